//! The load of a network: buffers, what depends on weights alone, textures, bind groups.

use std::ops::Range;
use std::sync::Arc;

use super::{Fill, Step};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::plan::{Buffer, Dispatch, Plan, Role};
use crate::tensor::Tensor;

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// All that runs need, made from a plan.
pub(super) struct Loaded {
    /// By [`crate::plan::BufferId`]; those used only while loading are gone.
    pub buffers: Vec<Option<wgpu::Buffer>>,
    textures: Vec<wgpu::Texture>,
    pub steps: Vec<Step>,
}

/// The buffers of inputs, states and outputs, which the caller may use before and after the rest is there; some may
/// be there already.
pub(super) fn ports(
    gpu: &Gpu,
    plan: &Plan,
    buffers: Vec<Option<wgpu::Buffer>>,
) -> Result<Vec<Option<wgpu::Buffer>>> {
    let mut loaded = Loaded { buffers, textures: Vec::new(), steps: Vec::new() };
    for port in plan.inputs.iter().chain(&plan.states).chain(&plan.outputs) {
        loaded.materialise(gpu, plan, port.buffer)?;
    }
    Ok(loaded.buffers)
}

/// Does a part of a load: these steps, which are these launches of the plan's.
pub(super) type Submit<'a> = dyn FnMut(&Loaded, &[Step], Range<usize>) -> Result<()> + 'a;

impl Loaded {
    /// Loads a plan round the buffers of its ports.
    pub fn new(gpu: &Gpu, plan: &Plan, ports: &[Option<wgpu::Buffer>]) -> Result<Loaded> {
        Self::with(gpu, plan, ports, &mut |_, steps, range| {
            gpu.wait(super::submit_steps(gpu, steps, &plan.load[range], 1, None, |_| {})?)
        })
    }

    /// The same, with each part done by `submit`, which waits until it is.
    pub fn with(
        gpu: &Gpu,
        plan: &Plan,
        ports: &[Option<wgpu::Buffer>],
        submit: &mut Submit,
    ) -> Result<Loaded> {
        let mut loaded = Loaded { buffers: ports.to_vec(), textures: Vec::new(), steps: Vec::new() };
        for texture in &plan.textures {
            loaded.textures.push(gpu.texture(&texture.label, [texture.width, texture.height])?);
        }
        let dispatches = plan.load.iter().chain(&plan.run);
        gpu.compile_all(dispatches.map(|d| &*d.shader))?;
        loaded.load(gpu, plan, submit)?;
        for id in 0..plan.buffers.len() {
            if plan.buffers[id].resident() {
                loaded.materialise(gpu, plan, id)?;
            }
        }
        loaded.steps = loaded.prepare(gpu, plan, "run", &plan.run)?;
        Ok(loaded)
    }

    pub fn made(&self, id: usize) -> &wgpu::Buffer {
        self.buffers[id].as_ref().expect("buffers are made before they are bound")
    }

    /// Does the work that depends on weights alone, a part of the weights at a time.
    fn load(&mut self, gpu: &Gpu, plan: &Plan, submit: &mut Submit) -> Result<()> {
        let ends = plan.load_ends();
        for range in plan.load_chunks() {
            for i in range.clone() {
                for &id in &plan.load[i].buffers {
                    self.materialise(gpu, plan, id)?;
                }
            }
            let steps = self.prepare(gpu, plan, "load", &plan.load[range.clone()])?;
            submit(self, &steps, range.clone())?;
            self.show_constants(gpu, plan, |id| ends[id] > range.end)?;
            for (id, buffer) in plan.buffers.iter().enumerate() {
                if !buffer.resident() && ends[id] <= range.end {
                    self.buffers[id] = None;
                }
            }
        }
        // Weights that are shown as they are in the file.
        let shown: Vec<usize> = plan.shown_only().collect();
        for &id in &shown {
            self.materialise(gpu, plan, id)?;
        }
        if !shown.is_empty() {
            self.show_constants(gpu, plan, |id| !shown.contains(&id))?;
        }
        for id in shown.into_iter().filter(|&id| !plan.buffers[id].resident()) {
            self.buffers[id] = None;
        }
        Ok(())
    }

    /// Fills the textures of those constants that are there and that no later dispatch touches.
    fn show_constants(&self, gpu: &Gpu, plan: &Plan, touched_later: impl Fn(usize) -> bool) -> Result<()> {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for &fill in &plan.load_fills {
            if self.buffers[fill.buffer].is_some() && !touched_later(fill.buffer) {
                self.fill(fill).record(&mut encoder);
            }
        }
        let submission = gpu.checked(|| "textures".to_owned(), || gpu.queue().submit([encoder.finish()]))?;
        gpu.wait(submission)
    }

    fn fill(&self, fill: crate::plan::Fill) -> Fill {
        let texture = self.textures[fill.texture].clone();
        Fill { buffer: self.made(fill.buffer).clone(), texture, texels: fill.texels }
    }

    /// Makes a buffer, with its contents, if it is not there yet.
    fn materialise(&mut self, gpu: &Gpu, plan: &Plan, id: usize) -> Result<()> {
        if self.buffers[id].is_some() {
            return Ok(());
        }
        let Buffer { label, bytes, role } = &plan.buffers[id];
        let buffer = gpu.buffer(label, *bytes, STORAGE)?;
        if let Role::Weight { tensor, .. } | Role::State(tensor) = role {
            upload(gpu, &buffer, tensor)?;
        }
        self.buffers[id] = Some(buffer);
        Ok(())
    }

    /// Pipelines, bind groups and the uniform buffer of a list of dispatches.
    fn prepare(&self, gpu: &Gpu, plan: &Plan, label: &str, dispatches: &[Dispatch]) -> Result<Vec<Step>> {
        let align = u64::from(plan.target.uniform_alignment);
        let mut bytes = Vec::with_capacity(plan.uniform_bytes(dispatches) as usize);
        let mut offsets = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            offsets.push(bytes.len() as u64);
            bytes.extend_from_slice(&dispatch.params);
            bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer(&format!("{label} parameters"), bytes.len() as u64, usage)?;
        gpu.queue().write_buffer(&uniforms, 0, &bytes);

        let mut steps = Vec::with_capacity(dispatches.len());
        for (dispatch, offset) in dispatches.iter().zip(offsets) {
            let pipeline = gpu.pipeline(&dispatch.shader)?;
            let mut entries = Vec::new();
            for (binding, &id) in dispatch.shader.bindings.iter().zip(&dispatch.buffers) {
                entries.push(wgpu::BindGroupEntry {
                    binding: binding.binding,
                    resource: self.made(id).as_entire_binding(),
                });
            }
            let views: Vec<wgpu::TextureView> = dispatch
                .textures
                .iter()
                .map(|&id| self.textures[id].create_view(&wgpu::TextureViewDescriptor::default()))
                .collect();
            for ((_, binding), view) in dispatch.shader.textures.iter().zip(&views) {
                entries.push(wgpu::BindGroupEntry {
                    binding: *binding,
                    resource: wgpu::BindingResource::TextureView(view),
                });
            }
            if let Some(binding) = dispatch.shader.params_binding {
                entries.push(wgpu::BindGroupEntry {
                    binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &uniforms,
                        offset,
                        size: wgpu::BufferSize::new(dispatch.params.len() as u64),
                    }),
                });
            }
            let bind_group = gpu
                .checked(|| format!("binding {}", dispatch.label), || gpu.bind_group(&pipeline, &entries))?;
            let fills = dispatch.fills.iter().map(|&fill| self.fill(fill)).collect();
            steps.push(Step { pipeline: Arc::clone(&pipeline), bind_group, groups: dispatch.groups, fills });
        }
        Ok(steps)
    }
}

pub(super) fn upload(gpu: &Gpu, buffer: &wgpu::Buffer, tensor: &Tensor) -> Result<()> {
    let bytes: &[u8] = &tensor.bytes;
    let whole = bytes.len() / 4 * 4;
    gpu.checked(
        || "upload".to_owned(),
        || {
            gpu.queue().write_buffer(buffer, 0, &bytes[..whole]);
            // Copies are in words; an odd number of 16-bit elements ends in half of one.
            if whole < bytes.len() {
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                gpu.queue().write_buffer(buffer, whole as u64, &last);
            }
        },
    )
}
