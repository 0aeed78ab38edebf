//! A plan on a device: buffers, bind groups and pipelines made once; then
//! recorded, run and read any number of times.

mod load;
#[cfg(feature = "bench")]
pub(crate) mod lone;
mod marks;
mod reload;
mod room;
mod scratch;
mod share;
mod stamps;
mod time;
#[cfg(feature = "bench")]
mod walk;
mod watch;

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Pipeline};
use crate::graph::Graph;
use crate::passes;
use crate::plan::{Dispatch, Plan, Port, Role};
use crate::profile::{Profile, Row};
use crate::tensor::{Bytes, Tensor, TensorDesc};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use load::Given;
pub(crate) use load::Loaded;
use marks::Marks;

pub use reload::Reloaded;
pub use scratch::Scratch;
pub(crate) use scratch::Turn;
pub use share::{Held, Shares};
#[cfg(feature = "bench")]
pub(crate) use stamps::Stamped;
pub use time::RunTime;
#[cfg(feature = "bench")]
pub(crate) use walk::{Moment, Walked};
pub use watch::NotFinite;

/// A dispatch ready to be recorded.
#[derive(Clone)]
pub(crate) struct Step {
    pub pipeline: Arc<Pipeline>,
    pub bind_group: wgpu::BindGroup,
    pub groups: [u32; 3],
    /// Copies made before the dispatch.
    pub fills: Vec<Fill>,
}

/// A copy of a buffer into a texture.
#[derive(Clone)]
pub(crate) struct Fill {
    buffer: wgpu::Buffer,
    offset: u64,
    texture: wgpu::Texture,
    texels: u32,
}

/// A compiled network with its weights on the device.
pub struct Network {
    gpu: Gpu,
    plan: Plan,
    /// Inputs, states and outputs, by [`crate::plan::BufferId`], and what else was given; there as long as the network.
    ports: Vec<Option<wgpu::Buffer>>,
    /// Whose intermediate results are in the pool.
    turn: Turn,
    /// Bytes of buffers and textures that others hold too: weights, intermediate results.
    shared: [u64; 2],
    /// The rest; none while the network is [set aside](Network::set_aside).
    loaded: Mutex<Option<Arc<Loaded>>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({} dispatches on {:?})", self.plan.run.len(), self.gpu)
    }
}

impl Network {
    /// Optimises, plans and loads a graph.
    ///
    /// # Errors
    /// [`Error::Limit`] when the network does not fit the device, [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`].
    pub fn new(gpu: &Gpu, graph: &Graph) -> Result<Network> {
        Self::from_plan(gpu, Plan::compile(graph, gpu.target())?)
    }

    /// Loads a plan that was made for this device's [target](Gpu::target), or for another that asks no more of it.
    ///
    /// # Errors
    /// As [`Network::new`]; [`Error::Lacking`] for a plan that [asks for more](Plan::check_device).
    pub fn from_plan(gpu: &Gpu, plan: Plan) -> Result<Network> {
        let network = Self::aside(gpu, plan)?;
        network.loaded()?;
        Ok(network)
    }

    /// A network of which only inputs, states and outputs are there until it first runs.
    pub(crate) fn aside(gpu: &Gpu, plan: Plan) -> Result<Network> {
        Self::beside(gpu, plan, &[])
    }

    /// The same, with inputs that are outputs of other networks on the same device: each by its name here, the other
    /// network and the name there. Nothing is copied.
    pub(crate) fn beside(gpu: &Gpu, plan: Plan, shared: &[(&str, &Network, &str)]) -> Result<Network> {
        let mut ports = vec![None; plan.buffers.len()];
        for (name, other, source) in shared {
            let port = find("input", name, plan.inputs.iter())?;
            let source = find("output", source, other.plan.outputs.iter())?;
            debug_assert_eq!(port.desc, source.desc);
            ports[port.buffer] = Some(other.port(source.buffer).clone());
        }
        Self::around(gpu, plan, ports)
    }

    /// A network that is not loaded yet, with buffers that are there already.
    fn around(gpu: &Gpu, plan: Plan, given: Vec<Option<wgpu::Buffer>>) -> Result<Network> {
        if plan.target != *gpu.target() {
            plan.check_device(gpu.device())?;
        }
        let ports = load::ports(gpu, &plan, given)?;
        let (turn, loaded) = (Turn::default(), Mutex::new(None));
        Ok(Network { gpu: gpu.clone(), ports, plan, turn, shared: [0; 2], loaded })
    }

    /// Gives back what the network holds on the device but for inputs, states and outputs, once what was submitted is
    /// done. The next [`Network::submit`] loads it again; until then it must not be recorded.
    pub(crate) fn set_aside(&self) -> Result<()> {
        self.lock().take();
        self.gpu.settle()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Loaded>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs need, loaded if it is not there.
    pub(crate) fn loaded(&self) -> Result<Arc<Loaded>> {
        let mut slot = self.lock();
        if let Some(loaded) = &*slot {
            return Ok(loaded.clone());
        }
        let given = Given::buffers(&self.plan, &self.ports);
        let loaded = Arc::new(Loaded::new(&self.gpu, &self.plan, given)?);
        *slot = Some(loaded.clone());
        Ok(loaded)
    }

    /// Whose intermediate results are in the pool.
    pub(crate) fn turn(&self) -> &Turn {
        &self.turn
    }

    pub(crate) fn port(&self, id: usize) -> &wgpu::Buffer {
        self.ports[id].as_ref().expect("ports are there as long as the network")
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Records one run, with the network's own inputs and outputs. Allocates nothing on the device, compiles nothing, creates
    /// no bind groups. [`Network::bind`] is the way for what is the caller's, and minds runs in slices.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let loaded = self.lock().clone().expect("only tasks set networks aside, and those submit");
        record(&loaded.steps, encoder, None, None);
        self.record_copies(&loaded, encoder);
    }

    fn record_copies(&self, loaded: &Loaded, encoder: &mut wgpu::CommandEncoder) {
        for &(from, to, bytes) in &self.plan.copies {
            let (from, to) = (loaded.made(from), loaded.made(to));
            encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes.next_multiple_of(4));
        }
    }

    /// Submits `runs` runs, one after the other, without waiting; split so that
    /// no submission is long enough to trip a driver's watchdog.
    ///
    /// # Errors
    /// Those of the device; [`Error::Busy`] while a run in [slices](crate::frame::Slices) is under way.
    pub fn submit(&self, runs: usize) -> Result<wgpu::SubmissionIndex> {
        self.turn.check()?;
        self.submit_marked(&*self.loaded()?, runs, None)
    }

    fn submit_marked(
        &self,
        loaded: &Loaded,
        runs: usize,
        marks: Option<&Marks>,
    ) -> Result<wgpu::SubmissionIndex> {
        submit_steps(&self.gpu, &loaded.steps, &self.plan.run, runs, marks, |encoder| {
            self.record_copies(loaded, encoder);
        })
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
        load::upload(&self.gpu, self.port(port.buffer), tensor)
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
        encoder.copy_buffer_to_buffer(from.port(source.buffer), 0, self.port(to.buffer), 0, bytes);
        self.gpu.checked(|| "copy".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        Ok(())
    }

    /// Copies lines of an output `[1, h, w, c]` of another network into an input `[1, h', w, c]` of this one:
    /// `lines` of them from line `first`, to line `at`.
    pub(crate) fn copy_lines(
        &self,
        name: &str,
        at: usize,
        from: &Network,
        source: &str,
        lines: std::ops::Range<usize>,
    ) -> Result<()> {
        let to = find("input", name, self.plan.inputs.iter())?;
        let source = find("output", source, from.plan.outputs.iter())?;
        debug_assert_eq!(source.desc.shape[2..], to.desc.shape[2..]);
        let line = to.desc.bytes() / to.desc.shape[1] as u64;
        let (first, count) = (lines.start as u64, lines.len() as u64);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let (from, to) = (from.port(source.buffer), self.port(to.buffer));
        encoder.copy_buffer_to_buffer(from, first * line, to, at as u64 * line, count * line);
        self.gpu.checked(|| "copy".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        Ok(())
    }

    /// Waits for what was submitted and reads an output or a state.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let port = find("output or state", name, self.plan.outputs.iter().chain(&self.plan.states))?;
        Ok(self.read_ports(&[port])?.remove(0))
    }

    fn read_ports(&self, ports: &[&Port]) -> Result<Vec<Tensor>> {
        let sources: Vec<_> = ports.iter().map(|p| (self.port(p.buffer), p.desc.bytes())).collect();
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
        Ok(self.port(find("input, output or state", name, ports)?.buffer))
    }

    /// Fills every intermediate and output buffer with NaNs, and what others have beyond their contents, so that a kernel
    /// that leaves something unwritten or reads what it should not shows it.
    pub fn poison(&self) -> Result<()> {
        let loaded = self.loaded()?;
        for (id, buffer) in self.plan.buffers.iter().enumerate() {
            let Some(there) = &loaded.buffers[id] else { continue };
            let first = match buffer.role {
                Role::Pool | Role::Output => 0,
                _ => buffer.bytes.next_multiple_of(4),
            };
            let bytes = vec![0xff; there.size().saturating_sub(first) as usize];
            self.gpu
                .checked(|| "poisoning".to_owned(), || self.gpu.queue().write_buffer(there, first, &bytes))?;
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
        let loaded = self.loaded()?;
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); loaded.steps.len()];
        let (mut walls, mut plain_walls) = (Vec::new(), Vec::new());
        for _ in 0..runs.max(1) {
            let mut wall = 0.0;
            let mut rest = seconds.iter_mut();
            for steps in loaded.steps.chunks(stamps::MOST) {
                let stamped = stamps::submit(&self.gpu, steps)?;
                wall += stamped.wall;
                rest.by_ref().zip(stamped.seconds()).for_each(|(all, time)| all.push(time));
            }
            walls.push(wall);
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            self.record_copies(&loaded, &mut encoder);
            self.gpu.checked(|| "states".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;

            self.gpu.settle()?;
            let start = Instant::now();
            let submission = self.submit(1)?;
            self.gpu.wait(submission)?;
            plain_walls.push(start.elapsed().as_secs_f64());
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let rows = self.plan.run.iter().zip(seconds).map(|(d, times)| Row::new(d, median(times))).collect();
        Ok(Profile { rows, wall: median(walls), plain_wall: median(plain_walls) })
    }
}

impl Step {
    fn record(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline.pipeline);
        self.launch(pass);
    }

    fn launch(&self, pass: &mut wgpu::ComputePass) {
        let [x, y, z] = self.groups;
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Records steps without fills into a pass; a pipeline that is set already is not set again.
pub(crate) fn record_in(steps: &[Step], pass: &mut wgpu::ComputePass) {
    let mut set: Option<&Arc<Pipeline>> = None;
    for step in steps {
        if !set.is_some_and(|set| Arc::ptr_eq(set, &step.pipeline)) {
            pass.set_pipeline(&step.pipeline.pipeline);
            set = Some(&step.pipeline);
        }
        step.launch(pass);
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
                        offset: self.offset + 16 * u64::from(line) * u64::from(width),
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

/// Submits steps `runs` times, after each what `between` records; with timestamps round all of it where there are marks.
fn submit_steps(
    gpu: &Gpu,
    steps: &[Step],
    dispatches: &[Dispatch],
    runs: usize,
    marks: Option<&Marks>,
    between: impl Fn(&mut wgpu::CommandEncoder),
) -> Result<wgpu::SubmissionIndex> {
    let (budget, device) = (gpu.submission_flops(), gpu.device());
    gpu.checked(
        || "submission".to_owned(),
        || {
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut flops = 0;
            for run in 0..runs {
                let mut first = 0;
                let begin = |first: usize| marks.filter(|_| run == 0 && first == 0);
                for (i, dispatch) in dispatches.iter().enumerate() {
                    flops += dispatch.flops;
                    // The last steps of a run are left to what follows it.
                    if flops > budget && i + 1 < steps.len() {
                        record(&steps[first..=i], &mut encoder, begin(first), None);
                        let full = std::mem::replace(
                            &mut encoder,
                            device.create_command_encoder(&Default::default()),
                        );
                        gpu.queue().submit([full.finish()]);
                        (first, flops) = (i + 1, 0);
                    }
                }
                record(&steps[first..], &mut encoder, begin(first), marks.filter(|_| run + 1 == runs));
                between(&mut encoder);
            }
            if let Some(marks) = marks {
                marks.resolve(&mut encoder);
            }
            gpu.queue().submit([encoder.finish()])
        },
    )
}

/// Records steps in as few passes as the copies between them allow.
pub(crate) fn record_steps(steps: &[Step], encoder: &mut wgpu::CommandEncoder) {
    record(steps, encoder, None, None);
}

/// Records steps in as few passes as the copies between them allow; with a timestamp before the first pass and after the
/// last where there are marks for it.
fn record(steps: &[Step], encoder: &mut wgpu::CommandEncoder, begin: Option<&Marks>, end: Option<&Marks>) {
    let mut rest = steps;
    while let Some((first, after)) = rest.split_first() {
        first.fills.iter().for_each(|fill| fill.record(encoder));
        let length = after.iter().take_while(|step| step.fills.is_empty()).count();
        let begin = begin.filter(|_| rest.len() == steps.len());
        let end = end.filter(|_| length == after.len());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Marks::writes(begin, end),
        });
        record_in(&rest[..=length], &mut pass);
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
