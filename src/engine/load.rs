//! The load of a network: buffers, what depends on weights alone, textures, bind groups.

use std::ops::Range;
use std::sync::Arc;

use super::room::{self, Room};
use super::{Fill, Step};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::plan::{Buffer, Dispatch, Part, Plan, Role};
use crate::tensor::Tensor;

pub(super) const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// All that runs need, made from a plan.
pub(crate) struct Loaded {
    /// By [`crate::plan::BufferId`]; those used only while loading are gone.
    pub buffers: Vec<Option<wgpu::Buffer>>,
    pub textures: Vec<wgpu::Texture>,
    pub steps: Vec<Step>,
    /// The parameters of the steps.
    pub uniforms: Option<wgpu::Buffer>,
    /// Held by all that use the weights of this: alone, or those of other networks too.
    pub family: Arc<()>,
}

/// What is there before a network is loaded.
pub(super) struct Given<'a> {
    /// By [`crate::plan::BufferId`].
    pub buffers: Vec<Option<wgpu::Buffer>>,
    /// By [`crate::plan::TextureId`].
    pub textures: Vec<Option<wgpu::Texture>>,
    /// The load of what is not.
    pub load: &'a Plan,
    pub family: Arc<()>,
}

impl<'a> Given<'a> {
    /// Buffers alone.
    pub fn buffers(plan: &'a Plan, buffers: &[Option<wgpu::Buffer>]) -> Self {
        let textures = vec![None; plan.textures.len()];
        Given { buffers: buffers.to_vec(), textures, load: plan, family: Arc::default() }
    }
}

/// A part of the load that the device works on.
struct Working<'p> {
    submission: wgpu::SubmissionIndex,
    part: &'p Part,
    _steps: Vec<Step>,
}

/// The buffers of inputs, states and outputs, which the caller may use before and after the rest is there; some may
/// be there already.
pub(super) fn ports(
    gpu: &Gpu,
    plan: &Plan,
    buffers: Vec<Option<wgpu::Buffer>>,
) -> Result<Vec<Option<wgpu::Buffer>>> {
    let mut loaded = Loaded { buffers, ..Loaded::default() };
    for port in plan.inputs.iter().chain(&plan.states).chain(&plan.outputs) {
        loaded.materialise(gpu, plan, port.buffer)?;
    }
    Ok(loaded.buffers)
}

/// Where a buffer lies: in a room of the load, or in one of its own.
pub(super) type Place<'a> = dyn Fn(usize) -> Option<wgpu::BufferBinding<'a>> + 'a;

/// Submits a part of a load: these steps, which are these launches of the plan's, and then what the last argument records.
pub(super) type Submit<'a> = dyn FnMut(
        &Loaded,
        &Place,
        &[Step],
        Range<usize>,
        &dyn Fn(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex>
    + 'a;

impl Default for Loaded {
    fn default() -> Self {
        let family = Arc::default();
        Loaded { buffers: Vec::new(), textures: Vec::new(), steps: Vec::new(), uniforms: None, family }
    }
}

impl Loaded {
    /// Loads a plan round what is there.
    pub(super) fn new(gpu: &Gpu, plan: &Plan, given: Given) -> Result<Loaded> {
        let load = given.load;
        Self::with(gpu, plan, given, &mut |_, _, steps, range, after| {
            super::submit_steps(gpu, steps, &load.load[range], 1, None, after)
        })
    }

    /// The same, with each part submitted by `submit`.
    pub(super) fn with(gpu: &Gpu, plan: &Plan, given: Given, submit: &mut Submit) -> Result<Loaded> {
        let Given { buffers, textures, load, family } = given;
        let mut loaded = Loaded { buffers, family, ..Loaded::default() };
        for (texture, given) in plan.textures.iter().zip(textures) {
            loaded.textures.push(match given {
                Some(texture) => texture,
                None => gpu.texture(&texture.label, [texture.width, texture.height])?,
            });
        }
        gpu.compile_all(load.load.iter().map(|d| &*d.shader))?;
        // What runs need is compiled while weights are on their way, which keeps neither the host nor the device busy alone.
        std::thread::scope(|scope| {
            let compiled = scope.spawn(|| gpu.compile_all(plan.run.iter().map(|d| &*d.shader)));
            let done = loaded.load(gpu, load, submit);
            let compiled = compiled.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.and(compiled)
        })?;
        for id in 0..plan.buffers.len() {
            if plan.buffers[id].resident() {
                loaded.make(gpu, plan, id)?;
            }
        }
        let (uniforms, steps) = loaded.prepare(gpu, plan, "run", &plan.run, |id| loaded.whole(id))?;
        (loaded.uniforms, loaded.steps) = (Some(uniforms), steps);
        Ok(loaded)
    }

    pub fn made(&self, id: usize) -> &wgpu::Buffer {
        self.buffers[id].as_ref().expect("buffers are made before they are bound")
    }

    /// Does the work that depends on weights alone, a part of the weights at a time: while the device works on one, the
    /// next is read from the file.
    pub fn load(&mut self, gpu: &Gpu, plan: &Plan, submit: &mut Submit) -> Result<()> {
        let loading = plan.loading();
        let rooms: Vec<Room> =
            (0..loading.rooms()).map(|_| Room::new(gpu, plan, &loading)).collect::<Result<_>>()?;
        let parts = loading.parts.iter().zip(rooms.iter().cycle());
        let mut parts = parts.peekable();
        let mut under_way = None;
        if let Some(&(part, room)) = parts.peek() {
            room::write(plan, part, room.open(gpu, part)?);
            room.close(gpu, part)?;
        }
        while let Some((part, room)) = parts.next() {
            let next = parts.peek().copied();
            next.iter().flat_map(|(next, _)| &next.uploads).for_each(|upload| room::soon(plan, upload));
            // Software adapters do the work of a submission before they return from it.
            if plan.target.mappable {
                self.finish(gpu, under_way.take())?;
                under_way = std::thread::scope(|scope| {
                    if let Some((next, room)) = next {
                        let view = room.open(gpu, next)?;
                        scope.spawn(move || room::write(plan, next, view));
                    }
                    self.work(gpu, plan, part, room, submit).map(Some)
                })?;
            } else {
                let submitted = self.work(gpu, plan, part, room, submit)?;
                self.finish(gpu, under_way.replace(submitted))?;
                if let Some((next, room)) = next {
                    room::write(plan, next, room.open(gpu, next)?);
                }
            }
            if let Some((next, room)) = next {
                room.close(gpu, next)?;
            }
        }
        self.finish(gpu, under_way)
    }

    /// Submits what is to be done with a part that is in its room.
    fn work<'p>(
        &mut self,
        gpu: &Gpu,
        plan: &Plan,
        part: &'p Part,
        room: &Room,
        submit: &mut Submit,
    ) -> Result<Working<'p>> {
        for &id in &part.made {
            self.make(gpu, plan, id)?;
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        room.copy(plan, part, |id| self.made(id), &mut encoder);
        gpu.checked(|| "upload".to_owned(), || gpu.queue().submit([encoder.finish()]))?;
        let place = |id| room.binding(plan, part, id).unwrap_or_else(|| self.whole(id));
        let launches = &plan.load[part.launches.clone()];
        let (_, steps) = self.prepare(gpu, plan, "load", launches, place)?;
        let there = |id| {
            let own = |buffer| wgpu::BufferBinding { buffer, offset: 0, size: None };
            room.binding(plan, part, id).or_else(|| self.buffers[id].as_ref().map(own))
        };
        let submission = submit(self, &there, &steps, part.launches.clone(), &|encoder| {
            part.fills.iter().for_each(|&fill| self.fill(fill, place).record(encoder));
        })?;
        Ok(Working { submission, part, _steps: steps })
    }

    /// Waits for a part and drops what no later one needs.
    fn finish(&mut self, gpu: &Gpu, working: Option<Working>) -> Result<()> {
        let Some(Working { submission, part, _steps }) = working else { return Ok(()) };
        gpu.wait(submission)?;
        part.dropped.iter().for_each(|&id| self.buffers[id] = None);
        Ok(())
    }

    pub fn whole(&self, id: usize) -> wgpu::BufferBinding<'_> {
        wgpu::BufferBinding { buffer: self.made(id), offset: 0, size: None }
    }

    fn fill<'a>(&self, fill: crate::plan::Fill, place: impl Fn(usize) -> wgpu::BufferBinding<'a>) -> Fill {
        let source = place(fill.buffer);
        let texture = self.textures[fill.texture].clone();
        Fill { buffer: source.buffer.clone(), offset: source.offset, texture, texels: fill.texels }
    }

    /// Makes a buffer if it is not there yet.
    fn make(&mut self, gpu: &Gpu, plan: &Plan, id: usize) -> Result<()> {
        if self.buffers[id].is_none() {
            let Buffer { label, bytes, .. } = &plan.buffers[id];
            self.buffers[id] = Some(gpu.buffer(label, *bytes, STORAGE)?);
        }
        Ok(())
    }

    /// Makes a buffer, with its contents, if it is not there yet.
    fn materialise(&mut self, gpu: &Gpu, plan: &Plan, id: usize) -> Result<()> {
        if self.buffers[id].is_some() {
            return Ok(());
        }
        self.make(gpu, plan, id)?;
        if let Role::Weight { tensor, .. } | Role::State(tensor) = &plan.buffers[id].role {
            upload(gpu, self.made(id), tensor)?;
        }
        Ok(())
    }

    /// The uniform buffer of a list of dispatches, and these with their pipelines and bind groups.
    fn prepare<'a>(
        &self,
        gpu: &Gpu,
        plan: &Plan,
        label: &str,
        dispatches: &[Dispatch],
        place: impl Fn(usize) -> wgpu::BufferBinding<'a>,
    ) -> Result<(wgpu::Buffer, Vec<Step>)> {
        let offsets = plan.uniform_offsets(dispatches);
        let mut bytes = vec![0; plan.uniform_bytes(dispatches) as usize];
        for (dispatch, &offset) in dispatches.iter().zip(&offsets) {
            bytes[offset as usize..][..dispatch.params.len()].copy_from_slice(&dispatch.params);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer(&format!("{label} parameters"), bytes.len() as u64, usage)?;
        gpu.checked(|| format!("{label} parameters"), || gpu.queue().write_buffer(&uniforms, 0, &bytes))?;
        let steps = dispatches.iter().zip(offsets);
        let steps = steps.map(|(dispatch, offset)| self.step(gpu, dispatch, (&uniforms, offset), &place));
        let steps = steps.collect::<Result<_>>()?;
        Ok((uniforms, steps))
    }

    /// A dispatch with its buffers where `place` says, and its parameters at an offset of a buffer.
    pub fn step<'a>(
        &self,
        gpu: &Gpu,
        dispatch: &Dispatch,
        (uniforms, offset): (&wgpu::Buffer, u64),
        place: impl Fn(usize) -> wgpu::BufferBinding<'a>,
    ) -> Result<Step> {
        let pipeline = gpu.pipeline(&dispatch.shader)?;
        let mut entries = Vec::new();
        for (binding, &id) in dispatch.shader.bindings.iter().zip(&dispatch.buffers) {
            entries.push(wgpu::BindGroupEntry {
                binding: binding.binding,
                resource: wgpu::BindingResource::Buffer(place(id)),
            });
        }
        let view = |&id: &usize| self.textures[id].create_view(&wgpu::TextureViewDescriptor::default());
        let views: Vec<wgpu::TextureView> = match dispatch.textures.is_empty() {
            true => Vec::new(),
            false => gpu.checked(
                || format!("textures of {}", dispatch.label),
                || dispatch.textures.iter().map(view).collect(),
            )?,
        };
        for ((_, binding), view) in dispatch.shader.texels.iter().zip(&views) {
            entries.push(wgpu::BindGroupEntry {
                binding: *binding,
                resource: wgpu::BindingResource::TextureView(view),
            });
        }
        if let Some(binding) = dispatch.shader.params_binding {
            entries.push(wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: uniforms,
                    offset,
                    size: wgpu::BufferSize::new(dispatch.params.len() as u64),
                }),
            });
        }
        let bind_group =
            gpu.checked(|| format!("binding {}", dispatch.label), || gpu.bind_group(&pipeline, &entries))?;
        let fills = dispatch.fills.iter().map(|&fill| self.fill(fill, &place)).collect();
        Ok(Step { pipeline, bind_group, groups: dispatch.groups, fills })
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
