//! A network with what it reads and writes, ready to be recorded.

use std::ops::Range;
use std::sync::Arc;

use super::convert::{self, Launch, Plane, invalid};
use super::overlap::{self, Placed};
use super::{Alpha, Bound, Texels};
use crate::engine::{Loaded, Network, Step, Turn, record_in, record_steps};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::{Plan, Port, Role};

/// A network with what it reads and writes: textures and buffers of the caller's, or, where none is bound, the network's own
/// ([`Network::buffer`]). Made once, recorded any number of times; cheap to clone.
///
/// Another texture in the next frame, as with swap chains and ping-pong, is another of these, made beforehand: it has bind
/// groups and small kernels of its own, and shares everything else. They stay valid without the [`Network`].
#[derive(Clone)]
pub struct Bindings(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub gpu: Gpu,
    pub turn: Turn,
    /// From textures; a run; to states; to textures.
    pub steps: Vec<Step>,
    pub run: Range<usize>,
    /// What ends a run: results become states.
    pub updates: Range<usize>,
    /// Of each step, which launch of the plan's run it is, of how many.
    pub launch: Vec<Option<usize>>,
    pub launches: usize,
    /// Bytes that each step moves that is no launch of the run.
    pub bytes: Vec<u64>,
    /// A launch that needs copies before it.
    pub filled: Option<String>,
    pub in_place: bool,
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bindings({} dispatches on {:?})", self.0.steps.len(), self.0.gpu)
    }
}

impl Network {
    /// Binds inputs and outputs by their names: [`Bindings::new`].
    ///
    /// # Errors
    /// Those of [`Bindings::new`].
    pub fn bind(&self, bound: &[(&str, Bound)]) -> Result<Bindings> {
        Bindings::new(self, bound)
    }
}

impl Bindings {
    /// Binds inputs and outputs of a network by their names. A state may be bound as outputs are, to be looked at after each
    /// run. An output may go to several textures.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name, [`Error::Invalid`] for what does not fit (with the size, format or usage that would),
    /// [`Error::Feature`] for formats that the device does not write, and those of [`Network::new`].
    pub fn new(network: &Network, bound: &[(&str, Bound)]) -> Result<Bindings> {
        let gpu = network.gpu();
        let loaded = network.loaded()?;
        let plan = network.plan();
        let ports = Ports::of(plan, bound)?;
        let placed = ports.placed(gpu, plan)?;
        let in_place = overlap::check(plan, &placed)?;
        let place = |id: usize| match placed.iter().find(|placed| placed.id == id) {
            Some(placed) => wgpu::BufferBinding {
                buffer: &placed.buffer,
                offset: placed.offset,
                size: wgpu::BufferSize::new(placed.bytes),
            },
            None => loaded.whole(id),
        };

        let planes = ports.planes(gpu)?;
        let mut before: Vec<Launch> = Vec::new();
        for (port, texels) in ports.textures(true) {
            let plane = planes.iter().find(|p| p.name == port.name && p.picture == texels.picture);
            before.push(convert::read(gpu, port, texels, None, place(port.buffer), plane)?);
        }
        let run = run(gpu, plan, &loaded, &placed, place)?;
        let mut updates: Vec<Launch> = Vec::new();
        for &(from, to, bytes) in plan.copies.iter().filter(|(from, to, _)| from != to) {
            updates.push(convert::copy(gpu, place(from), place(to), bytes)?);
        }
        let mut after: Vec<Launch> = Vec::new();
        for (port, buffer, offset) in ports.copied(plan) {
            let size = wgpu::BufferSize::new(plan.buffers[port.buffer].bytes);
            let to = wgpu::BufferBinding { buffer, offset, size };
            after.push(convert::copy(gpu, place(port.buffer), to, port.desc.bytes())?);
        }
        for (port, texels) in ports.textures(false) {
            after.push(convert::write(gpu, port, texels, None, place(port.buffer), &planes)?);
        }

        let ends = [before.len(), run.len(), updates.len()];
        let first = ends[0] + ends[1];
        let all = before.into_iter().chain(run.into_iter().map(|step| (step, 0))).chain(updates).chain(after);
        let (steps, bytes): (Vec<Step>, Vec<u64>) = all.unzip();
        let launch = |at: usize| (ends[0]..first).contains(&at).then(|| at - ends[0]);
        Ok(Bindings(Arc::new(Inner {
            gpu: gpu.clone(),
            turn: network.turn().clone(),
            launch: (0..steps.len()).map(launch).collect(),
            launches: ends[1],
            steps,
            run: ends[0]..first,
            updates: first..first + ends[2],
            bytes,
            filled: filled(plan),
            in_place,
        })))
    }

    /// Records one run: textures into inputs, the network, states, outputs into textures. Nothing else is done: no object is
    /// made, nothing is submitted or waited for.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] once that is [known](Gpu::set_lost), [`Error::Busy`] while a run in [slices](super::Slices) is
    /// under way in the same memory. Then nothing was recorded.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.0.gpu.check_lost()?;
        self.0.turn.check()?;
        record_steps(&self.0.steps, encoder);
        Ok(())
    }

    /// Records one run into a compute pass that is open. Pipeline and bind group 0 are others afterwards.
    ///
    /// # Errors
    /// Those of [`Bindings::record`]; [`Error::Pass`] where [`Bindings::needs_encoder`].
    pub fn record_in(&self, pass: &mut wgpu::ComputePass) -> Result<()> {
        if let Some(label) = &self.0.filled {
            return Err(Error::Pass {
                what: format!("\"{label}\""),
                advice: "record into an encoder, or plan for `Target::without_textures`",
            });
        }
        self.0.gpu.check_lost()?;
        self.0.turn.check()?;
        record_in(&self.0.steps, pass);
        Ok(())
    }

    /// Whether a run needs copies between launches, so that [`Bindings::record_in`] refuses it. Only on software adapters,
    /// where some tensors are read as textures, and not for plans that were made for a [target without
    /// these](crate::Target::without_textures).
    pub fn needs_encoder(&self) -> bool {
        self.0.filled.is_some()
    }

    /// Launches of a run, those at both ends among them.
    pub fn launches(&self) -> usize {
        self.0.steps.len()
    }
}

/// A launch that needs copies before it.
pub(super) fn filled(plan: &Plan) -> Option<String> {
    plan.run.iter().find(|launch| !launch.fills.is_empty()).map(|launch| launch.label.clone())
}

/// The launches of a run: those of the network, bound anew where they touch what is placed.
fn run<'a>(
    gpu: &Gpu,
    plan: &Plan,
    loaded: &Loaded,
    placed: &[Placed],
    place: impl Fn(usize) -> wgpu::BufferBinding<'a>,
) -> Result<Vec<Step>> {
    let moved = |id: &usize| placed.iter().any(|placed| placed.id == *id);
    let offsets = plan.uniform_offsets(&plan.run);
    let uniforms = loaded.uniforms.as_ref().expect("runs are loaded with their parameters");
    let steps = plan.run.iter().zip(offsets).zip(&loaded.steps);
    let steps = steps.map(|((dispatch, offset), step)| {
        let touches = dispatch.buffers.iter().any(moved) || dispatch.fills.iter().any(|f| moved(&f.buffer));
        match touches {
            true => loaded.step(gpu, dispatch, (uniforms, offset), &place),
            false => Ok(step.clone()),
        }
    });
    steps.collect()
}

/// What is bound, by the ports of a network.
pub(super) struct Ports<'a> {
    /// With whether it is an input.
    bound: Vec<(&'a Port, bool, &'a Bound)>,
}

impl<'a> Ports<'a> {
    pub(super) fn of(plan: &'a Plan, bound: &'a [(&str, Bound)]) -> Result<Ports<'a>> {
        let mut found = Vec::new();
        for (name, bound) in bound {
            let inputs = plan.inputs.iter().map(|port| (port, true));
            let others = plan.outputs.iter().chain(&plan.states).map(|port| (port, false));
            let mut all = inputs.chain(others);
            let (port, input) =
                all.clone().find(|(port, _)| port.name == *name).ok_or_else(|| Error::Unknown {
                    what: "input, output or state",
                    found: (*name).to_owned(),
                    expected: all.by_ref().map(|(port, _)| port.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
            found.push((port, input, bound));
        }
        Ok(Ports { bound: found })
    }

    pub(super) fn textures(&self, input: bool) -> impl Iterator<Item = (&'a Port, &'a Texels)> {
        self.bound.iter().filter(move |(_, of, _)| *of == input).filter_map(|(port, _, bound)| match bound {
            Bound::Texels(texels) => Some((*port, texels)),
            Bound::Buffer { .. } => None,
        })
    }

    pub(super) fn buffers(&self) -> impl Iterator<Item = (&'a Port, bool, &'a wgpu::Buffer, u64)> {
        self.bound.iter().filter_map(|&(port, input, bound)| match bound {
            Bound::Buffer { buffer, offset } => Some((port, input, buffer, *offset)),
            Bound::Texels(_) => None,
        })
    }

    /// Tensors that kernels read and write in the caller's buffers.
    fn placed(&self, gpu: &Gpu, plan: &Plan) -> Result<Vec<Placed>> {
        let mut placed: Vec<Placed> = Vec::new();
        for (port, input, buffer, offset) in self.buffers() {
            check(gpu, plan, port, buffer, offset)?;
            if !is_placed(plan, port, input) {
                continue;
            }
            if placed.iter().any(|placed| placed.id == port.buffer) {
                return Err(invalid(
                    port,
                    "one buffer",
                    "another, for it or for a name of the same tensor".into(),
                ));
            }
            let (name, bytes) = (port.name.clone(), plan.buffers[port.buffer].bytes);
            placed.push(Placed {
                name,
                id: port.buffer,
                buffer: buffer.clone(),
                offset,
                bytes,
                written: !input,
            });
        }
        Ok(placed)
    }

    /// What stays where it is, and where it is copied to.
    fn copied(&self, plan: &'a Plan) -> impl Iterator<Item = (&'a Port, &'a wgpu::Buffer, u64)> {
        let rest = self.buffers().filter(|(port, input, ..)| !is_placed(plan, port, *input));
        rest.map(|(port, _, buffer, offset)| (port, buffer, offset))
    }

    /// Memory for the alpha of textures that outputs keep.
    pub(super) fn planes(&self, gpu: &Gpu) -> Result<Vec<Plane>> {
        let mut planes: Vec<Plane> = Vec::new();
        for (_, wanted) in self.textures(false) {
            let Alpha::Of(name) = &wanted.alpha else { continue };
            let source = self.textures(true).find(|(p, t)| p.name == *name && t.picture == wanted.picture);
            let Some((port, texels)) = source else { continue };
            let known = |plane: &Plane| plane.name == *name && plane.picture == texels.picture;
            if planes.iter().any(known) {
                continue;
            }
            let [h, w] = [port.desc.shape.get(1), port.desc.shape.get(2)].map(|side| side.map_or(1, |s| *s));
            let usage = wgpu::BufferUsages::STORAGE;
            let buffer = gpu.buffer(&format!("alpha of {name}"), 4 * (h * w) as u64, usage)?;
            planes.push(Plane {
                name: name.clone(),
                picture: texels.picture,
                buffer,
                size: [w as u32, h as u32],
            });
        }
        Ok(planes)
    }
}

/// Whether kernels can read or write it where the caller wants. States and constants have their place, and an output that
/// is an input, that of the input.
fn is_placed(plan: &Plan, port: &Port, input: bool) -> bool {
    match plan.buffers[port.buffer].role {
        Role::Input => input,
        Role::Output => !input,
        _ => false,
    }
}

/// Whether a buffer can be bound to a port.
fn check(gpu: &Gpu, plan: &Plan, port: &Port, buffer: &wgpu::Buffer, offset: u64) -> Result<()> {
    let bytes = plan.buffers[port.buffer].bytes;
    let mut usage = wgpu::BufferUsages::empty();
    if plan.run.iter().flat_map(|d| &d.fills).any(|fill| fill.buffer == port.buffer) {
        usage |= wgpu::BufferUsages::COPY_SRC;
    }
    check_buffer(gpu, port, buffer, offset, bytes, usage)
}

/// Whether a buffer has so many bytes from an offset on, and these usages beside that of storage.
pub(super) fn check_buffer(
    gpu: &Gpu,
    port: &Port,
    buffer: &wgpu::Buffer,
    offset: u64,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> Result<()> {
    let usage = usage | wgpu::BufferUsages::STORAGE;
    if !buffer.usage().contains(usage) {
        return Err(invalid(
            port,
            &format!("a buffer with the usages {usage:?}"),
            format!("{:?}", buffer.usage()),
        ));
    }
    let align = u64::from(gpu.device().limits().min_storage_buffer_offset_alignment);
    if !offset.is_multiple_of(align) {
        return Err(invalid(port, &format!("an offset that is a multiple of {align}"), offset.to_string()));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > buffer.size()) {
        let expected = format!("{bytes} bytes from the offset {offset} on");
        return Err(invalid(port, &expected, format!("a buffer of {}", buffer.size())));
    }
    Ok(())
}
