//! A plan on a device: buffers, bind groups and pipelines made once; then
//! recorded, run and read any number of times.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Pipeline};
use crate::graph::Graph;
use crate::passes;
use crate::plan::{Buffer, Dispatch, Plan, Port, Role};
use crate::profile::{Profile, Row};
use crate::tensor::{Bytes, Tensor, TensorDesc};
use std::sync::Arc;

/// A dispatch ready to be recorded.
struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    groups: [u32; 3],
    /// Copies made before the dispatch.
    fills: Vec<Fill>,
}

/// A copy of a buffer into a texture.
struct Fill {
    buffer: wgpu::Buffer,
    texture: wgpu::Texture,
    texels: u32,
}

/// A compiled network with its weights on the device.
pub struct Network {
    gpu: Gpu,
    plan: Plan,
    /// By [`crate::plan::BufferId`]; those used only while loading are gone.
    buffers: Vec<Option<wgpu::Buffer>>,
    textures: Vec<wgpu::Texture>,
    steps: Vec<Step>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({} dispatches on {:?})", self.steps.len(), self.gpu)
    }
}

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Network {
    /// Optimises, plans and loads a graph.
    ///
    /// # Errors
    /// [`Error::Limit`] when the network does not fit the device, [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`].
    pub fn new(gpu: &Gpu, graph: &Graph) -> Result<Network> {
        Self::from_plan(gpu, Plan::compile(graph, gpu.target())?)
    }

    /// Loads a plan that was made for this device's [target](Gpu::target).
    pub fn from_plan(gpu: &Gpu, plan: Plan) -> Result<Network> {
        let mut network = Network {
            gpu: gpu.clone(),
            buffers: vec![None; plan.buffers.len()],
            plan,
            textures: Vec::new(),
            steps: Vec::new(),
        };
        for texture in &network.plan.textures {
            network.textures.push(gpu.texture(&texture.label, [texture.width, texture.height])?);
        }
        let dispatches = network.plan.load.iter().chain(&network.plan.run);
        gpu.compile_all(dispatches.map(|d| &*d.shader))?;
        network.load()?;
        for id in 0..network.plan.buffers.len() {
            if network.plan.buffers[id].resident() {
                network.materialise(id)?;
            }
        }
        network.steps = network.prepare("run", &network.plan.run)?;
        Ok(network)
    }

    /// Does the work that depends on weights alone, a part of the weights at a time.
    fn load(&mut self) -> Result<()> {
        let ends = self.plan.load_ends();
        for range in self.plan.load_chunks() {
            for i in range.clone() {
                for id in self.plan.load[i].buffers.clone() {
                    self.materialise(id)?;
                }
            }
            let steps = self.prepare("load", &self.plan.load[range.clone()])?;
            let submission = self.submit_steps(&steps, &self.plan.load[range.clone()], 1, false)?;
            self.gpu.wait(submission)?;
            self.show_constants(|id| ends[id] > range.end)?;
            for (id, buffer) in self.plan.buffers.iter().enumerate() {
                if !buffer.resident() && ends[id] <= range.end {
                    self.buffers[id] = None;
                }
            }
        }
        Ok(())
    }

    /// Fills the textures of those constants that are there and that no later dispatch touches.
    fn show_constants(&self, touched_later: impl Fn(usize) -> bool) -> Result<()> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        for &fill in &self.plan.load_fills {
            if self.buffers[fill.buffer].is_some() && !touched_later(fill.buffer) {
                self.fill(fill).record(&mut encoder);
            }
        }
        let submission =
            self.gpu.checked(|| "textures".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        self.gpu.wait(submission)
    }

    fn fill(&self, fill: crate::plan::Fill) -> Fill {
        let texture = self.textures[fill.texture].clone();
        Fill { buffer: self.made(fill.buffer).clone(), texture, texels: fill.texels }
    }

    /// Makes a buffer, with its contents, if it is not there yet.
    fn materialise(&mut self, id: usize) -> Result<()> {
        if self.buffers[id].is_some() {
            return Ok(());
        }
        let Buffer { label, bytes, role } = &self.plan.buffers[id];
        let buffer = self.gpu.buffer(label, *bytes, STORAGE)?;
        if let Role::Weight { tensor, .. } | Role::State(tensor) = role {
            self.upload(&buffer, tensor)?;
        }
        self.buffers[id] = Some(buffer);
        Ok(())
    }

    fn upload(&self, buffer: &wgpu::Buffer, tensor: &Tensor) -> Result<()> {
        let bytes: &[u8] = &tensor.bytes;
        let whole = bytes.len() / 4 * 4;
        self.gpu.checked(
            || "upload".to_owned(),
            || {
                self.gpu.queue().write_buffer(buffer, 0, &bytes[..whole]);
                // Copies are in words; an odd number of 16-bit elements ends in half of one.
                if whole < bytes.len() {
                    let mut last = [0; 4];
                    last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                    self.gpu.queue().write_buffer(buffer, whole as u64, &last);
                }
            },
        )
    }

    /// Pipelines, bind groups and the uniform buffer of a list of dispatches.
    fn prepare(&self, label: &str, dispatches: &[Dispatch]) -> Result<Vec<Step>> {
        let align = u64::from(self.plan.target.uniform_alignment);
        let mut bytes = Vec::with_capacity(self.plan.uniform_bytes(dispatches) as usize);
        let mut offsets = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            offsets.push(bytes.len() as u64);
            bytes.extend_from_slice(&dispatch.params);
            bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = self.gpu.buffer(&format!("{label} parameters"), bytes.len() as u64, usage)?;
        self.gpu.queue().write_buffer(&uniforms, 0, &bytes);

        let mut steps = Vec::with_capacity(dispatches.len());
        for (dispatch, offset) in dispatches.iter().zip(offsets) {
            let pipeline = self.gpu.pipeline(&dispatch.shader)?;
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
            let bind_group = self.gpu.checked(
                || format!("binding {}", dispatch.label),
                || self.gpu.bind_group(&pipeline, &entries),
            )?;
            let fills = dispatch.fills.iter().map(|&fill| self.fill(fill)).collect();
            steps.push(Step { pipeline, bind_group, groups: dispatch.groups, fills });
        }
        Ok(steps)
    }

    fn made(&self, id: usize) -> &wgpu::Buffer {
        self.buffers[id].as_ref().expect("buffers are made before they are bound")
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Records one run. Allocates nothing on the device, compiles nothing, creates no bind groups.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        record(&self.steps, encoder);
        self.record_copies(encoder);
    }

    fn record_copies(&self, encoder: &mut wgpu::CommandEncoder) {
        for &(from, to, bytes) in &self.plan.copies {
            encoder.copy_buffer_to_buffer(self.made(from), 0, self.made(to), 0, bytes.next_multiple_of(4));
        }
    }

    /// Submits `runs` runs, one after the other, without waiting; split so that
    /// no submission is long enough to trip a driver's watchdog.
    pub fn submit(&self, runs: usize) -> Result<wgpu::SubmissionIndex> {
        self.submit_steps(&self.steps, &self.plan.run, runs, true)
    }

    fn submit_steps(
        &self,
        steps: &[Step],
        dispatches: &[Dispatch],
        runs: usize,
        copies: bool,
    ) -> Result<wgpu::SubmissionIndex> {
        let budget = self.gpu.submission_flops();
        let device = self.gpu.device();
        self.gpu.checked(
            || "submission".to_owned(),
            || {
                let mut encoder = device.create_command_encoder(&Default::default());
                let mut flops = 0;
                for _ in 0..runs {
                    let mut first = 0;
                    for (i, dispatch) in dispatches.iter().enumerate() {
                        flops += dispatch.flops;
                        if flops > budget {
                            record(&steps[first..=i], &mut encoder);
                            let full = std::mem::replace(
                                &mut encoder,
                                device.create_command_encoder(&Default::default()),
                            );
                            self.gpu.queue().submit([full.finish()]);
                            (first, flops) = (i + 1, 0);
                        }
                    }
                    record(&steps[first..], &mut encoder);
                    if copies {
                        self.record_copies(&mut encoder);
                    }
                }
                self.gpu.queue().submit([encoder.finish()])
            },
        )
    }

    /// Writes the inputs, runs once and reads all outputs.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an input that the network has not, [`Error::Invalid`] for
    /// a wrong shape or type.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        for (name, tensor) in inputs {
            self.write(name, tensor)?;
        }
        self.submit(1)?;
        self.read_ports(&self.plan.outputs.iter().collect::<Vec<_>>())
    }

    /// Sets an input or a state. Takes effect for the submissions that follow.
    pub fn write(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let port = find("input or state", name, self.plan.inputs.iter().chain(&self.plan.states))?;
        if tensor.desc != port.desc {
            return Err(Error::Invalid {
                what: format!("input \"{name}\""),
                expected: port.desc.to_string(),
                found: tensor.desc.to_string(),
            });
        }
        self.upload(self.made(port.buffer), tensor)
    }

    /// Copies an output or state of another network on the same device into an input or
    /// state of this one, without a way over the host; in order with what was submitted.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name, [`Error::Invalid`] for another shape or type.
    pub fn copy(&self, name: &str, from: &Network, source: &str) -> Result<()> {
        let to = find("input or state", name, self.plan.inputs.iter().chain(&self.plan.states))?;
        let source = find("output or state", source, from.plan.outputs.iter().chain(&from.plan.states))?;
        if source.desc != to.desc {
            return Err(Error::Invalid {
                what: format!("input \"{name}\""),
                expected: to.desc.to_string(),
                found: source.desc.to_string(),
            });
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let bytes = to.desc.bytes().next_multiple_of(4);
        encoder.copy_buffer_to_buffer(from.made(source.buffer), 0, self.made(to.buffer), 0, bytes);
        self.gpu.checked(|| "copy".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        Ok(())
    }

    /// Waits for what was submitted and reads an output or a state.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let port = find("output or state", name, self.plan.outputs.iter().chain(&self.plan.states))?;
        Ok(self.read_ports(&[port])?.remove(0))
    }

    fn read_ports(&self, ports: &[&Port]) -> Result<Vec<Tensor>> {
        let sources: Vec<_> = ports.iter().map(|p| (self.made(p.buffer), p.desc.bytes())).collect();
        let bytes = self.gpu.download(&sources)?;
        Ok(ports
            .iter()
            .zip(bytes)
            .map(|(port, bytes)| Tensor { desc: port.desc.clone(), bytes: Bytes::Owned(bytes.into()) })
            .collect())
    }

    /// Shape and type of an input, output or state.
    pub fn desc(&self, name: &str) -> Result<&TensorDesc> {
        let ports = self.plan.inputs.iter().chain(&self.plan.outputs).chain(&self.plan.states);
        Ok(&find("input, output or state", name, ports)?.desc)
    }

    /// The buffer of an input, output or state, for those who fill or read it on the device.
    pub fn buffer(&self, name: &str) -> Result<&wgpu::Buffer> {
        let plan = &self.plan;
        let ports = plan.inputs.iter().chain(&plan.outputs).chain(&plan.states);
        Ok(self.made(find("input, output or state", name, ports)?.buffer))
    }

    /// Fills every intermediate and output buffer with NaNs, so that a kernel
    /// that leaves something unwritten or reads what it should not shows it.
    pub fn poison(&self) -> Result<()> {
        for (id, buffer) in self.plan.buffers.iter().enumerate() {
            if matches!(buffer.role, Role::Pool | Role::Output) {
                let bytes = vec![0xff; buffer.bytes as usize];
                self.gpu.checked(
                    || "poisoning".to_owned(),
                    || self.gpu.queue().write_buffer(self.made(id), 0, &bytes),
                )?;
            }
        }
        Ok(())
    }

    /// Runs `runs` times with a timestamp before and after each dispatch; the
    /// median of each dispatch is kept.
    ///
    /// # Errors
    /// [`Error::Feature`] on a device without timestamps.
    pub fn profile(&self, runs: usize) -> Result<Profile> {
        if !self.gpu.has_timestamps() {
            return Err(Error::Feature {
                device: self.plan.target.name.clone(),
                feature: "timestamp queries",
                advice: "measure whole runs instead",
            });
        }
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); self.steps.len()];
        for _ in 0..runs.max(1) {
            for (at, chunk) in (0..self.steps.len()).collect::<Vec<_>>().chunks(256).enumerate() {
                let times = self.time_steps(chunk[0]..chunk[0] + chunk.len())?;
                for (i, time) in times.into_iter().enumerate() {
                    seconds[at * 256 + i].push(time);
                }
            }
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            self.record_copies(&mut encoder);
            self.gpu.queue().submit([encoder.finish()]);
        }
        let rows = self
            .plan
            .run
            .iter()
            .zip(seconds)
            .map(|(dispatch, mut times)| {
                times.sort_by(f64::total_cmp);
                Row::new(dispatch, times[times.len() / 2])
            })
            .collect();
        Ok(Profile { rows })
    }

    fn time_steps(&self, range: std::ops::Range<usize>) -> Result<Vec<f64>> {
        let device = self.gpu.device();
        let count = 2 * range.len() as u32;
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let bytes = u64::from(count) * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = self.gpu.buffer("timestamps", bytes, usage)?;
        let mut encoder = device.create_command_encoder(&Default::default());
        for (i, step) in self.steps[range].iter().enumerate() {
            step.fills.iter().for_each(|fill| fill.record(&mut encoder));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(2 * i as u32),
                    end_of_pass_write_index: Some(2 * i as u32 + 1),
                }),
            });
            step.record(&mut pass);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        self.gpu.checked(|| "profile".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        let raw = self.gpu.download(&[(&resolved, bytes)])?.remove(0);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&raw);
        let period = f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9;
        Ok(ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period).collect())
    }
}

impl Step {
    fn record(&self, pass: &mut wgpu::ComputePass) {
        let [x, y, z] = self.groups;
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Fill {
    /// Whole lines, then what is left of the last.
    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let width = self.texture.width();
        let (lines, rest) = (self.texels / width, self.texels % width);
        for (line, size) in [(0, [width, lines]), (lines, [rest, 1])] {
            if size.contains(&0) {
                continue;
            }
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo {
                    buffer: &self.buffer,
                    layout: wgpu::TexelCopyBufferLayout {
                        offset: 16 * u64::from(line) * u64::from(width),
                        bytes_per_row: Some(16 * width),
                        rows_per_image: None,
                    },
                },
                wgpu::TexelCopyTextureInfo {
                    origin: wgpu::Origin3d { x: 0, y: line, z: 0 },
                    ..self.texture.as_image_copy()
                },
                wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
            );
        }
    }
}

/// Records steps in as few passes as the copies between them allow.
fn record(steps: &[Step], encoder: &mut wgpu::CommandEncoder) {
    let mut rest = steps;
    while let Some((first, after)) = rest.split_first() {
        first.fills.iter().for_each(|fill| fill.record(encoder));
        let length = after.iter().take_while(|step| step.fills.is_empty()).count();
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        first.record(&mut pass);
        after[..length].iter().for_each(|step| step.record(&mut pass));
        drop(pass);
        rest = &after[length..];
    }
}

fn find<'a>(
    what: &'static str,
    name: &str,
    ports: impl Iterator<Item = &'a Port> + Clone,
) -> Result<&'a Port> {
    ports.clone().find(|p| p.name == name).ok_or_else(|| Error::Unknown {
        what,
        found: name.to_owned(),
        expected: ports.map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

impl Plan {
    /// Runs the passes over a graph and plans the result.
    pub fn compile(graph: &Graph, target: &crate::Target) -> Result<Plan> {
        Plan::new(&passes::optimise(graph, target)?, target)
    }
}
