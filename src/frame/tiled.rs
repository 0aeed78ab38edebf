//! Networks that go over a picture in tiles, within a bound of memory.

use std::sync::Arc;

use super::bindings::{self, Inner, Ports};
use super::convert::{self, Launch, Part};
use super::part::Whole;
use super::{Bindings, Bound};
use crate::engine::{Network, Shares};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::plan::{Plan, Port};
use crate::target::Target;
use crate::tiles::{self, Grid, Tile};

/// A network planned for pictures of a size within a bound of memory: whole, or in tiles of one size that overlap by what the
/// network looks at. Plain data, before anything is made on a device.
///
/// The result is that of the whole picture to the last bit: tiles begin where the network's strides do, and its convolutions are
/// computed as for the whole. (A picture that no plan of the device can have whole has no such result; its tiles agree with one
/// another.)
#[derive(Clone, Debug)]
pub struct TiledPlan {
    plan: Plan,
    grid: Grid,
}

impl TiledPlan {
    /// Plans for a picture `[width, height]`. `build` makes the network's graph for any width and height, as
    /// [`path_denoise`](crate::models::path_denoise::path_denoise) does; `max_memory` is in bytes, and holds while the network is
    /// loaded, too ([`Plan::peak_bytes`]). Of several ways to fit, the one with the least work is taken.
    ///
    /// # Errors
    /// [`Error::Whole`] where tiles are needed and something in the network looks at the whole picture: means over it, as
    /// instance and group norm and global pooling take, attention, states; [`Error::Budget`] where the smallest tile takes more;
    /// and those of [`Plan::compile`] and of `build`.
    pub fn new(
        target: &Target,
        [width, height]: [usize; 2],
        max_memory: u64,
        build: impl Fn(usize, usize) -> Result<Graph>,
    ) -> Result<TiledPlan> {
        let build = |[height, width]: [usize; 2]| build(width, height);
        let (plan, grid) = tiles::plan(target, [height, width], max_memory, &build)?;
        Ok(TiledPlan { plan, grid })
    }

    /// Of one tile, whose memory is that of the network: [`Plan::resident_bytes`], [`Plan::peak_bytes`].
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many there are.
    pub fn tiles(&self) -> usize {
        self.grid.count()
    }

    /// Width and height of one.
    pub fn tile(&self) -> [usize; 2] {
        across_first(self.grid.tile)
    }

    /// What tiles begin at multiples of, across and down.
    pub fn alignment(&self) -> [usize; 2] {
        across_first(self.grid.period)
    }

    /// Pixels of a tile that are no result of its own: at the left, the top, the right and the bottom, unless the picture ends
    /// there.
    pub fn overlap(&self) -> [usize; 4] {
        let [[top, bottom], [left, right]] = self.grid.margin;
        [left, top, right, bottom]
    }

    /// Pixels that go through the network for one of the picture.
    pub fn work(&self) -> f64 {
        let pixels = |[height, width]: [usize; 2]| height as f64 * width as f64;
        self.tiles() as f64 * pixels(self.grid.tile) / pixels(self.grid.picture)
    }
}

/// A [`TiledPlan`] on a device.
#[derive(Debug)]
pub struct TiledNetwork {
    network: Network,
    grid: Grid,
}

impl TiledNetwork {
    /// Loads the plan.
    ///
    /// # Errors
    /// As [`Network::from_plan`].
    pub fn new(gpu: &Gpu, plan: TiledPlan) -> Result<TiledNetwork> {
        Ok(TiledNetwork { network: Network::from_plan(gpu, plan.plan)?, grid: plan.grid })
    }

    /// Loads the plan beside other networks.
    ///
    /// # Errors
    /// As [`Network::sharing`].
    pub fn sharing(gpu: &Gpu, plan: TiledPlan, shares: Shares) -> Result<TiledNetwork> {
        Ok(TiledNetwork { network: Network::sharing(gpu, plan.plan, shares)?, grid: plan.grid })
    }

    /// The network of one tile: for profiles, costs and inputs that are no pictures.
    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn tiles(&self) -> usize {
        self.grid.count()
    }

    /// The same on another device: [`Network::rebuild`].
    ///
    /// # Errors
    /// As [`Network::rebuild`].
    pub fn rebuild(&self, gpu: &Gpu) -> Result<TiledNetwork> {
        Ok(TiledNetwork { network: self.network.rebuild(gpu)?, grid: self.grid.clone() })
    }

    /// Binds inputs and outputs, textures and buffers of the whole picture, as [`Network::bind`] does. A recorded run goes over
    /// all tiles. Where there are several, each input that is a picture must be bound, outputs that are not are not kept, and
    /// nothing may be in place: a tile reads what lies beside it. Beside the network's memory there are some hundred bytes a
    /// tile for each that is bound, and a number a pixel of a tile for alpha that is [kept](super::Alpha::Of).
    ///
    /// # Errors
    /// Those of [`Network::bind`].
    pub fn bind(&self, bound: &[(&str, Bound)]) -> Result<Bindings> {
        if self.grid.count() == 1 {
            return self.network.bind(bound);
        }
        let (gpu, plan, loaded) = (self.network.gpu(), self.network.plan(), self.network.loaded()?);
        let ports = Ports::of(plan, bound)?;
        self.check(&ports)?;
        let planes = ports.planes(gpu)?;
        let tensor = |port: &Port| loaded.whole(port.buffer);
        let mut steps: Vec<(Launch, Option<usize>)> = Vec::new();
        let mut add = |launch: Launch| steps.push((launch, None));
        for (port, _, buffer, offset) in
            ports.buffers().filter(|(port, ..)| self.grid.scale(&port.name).is_none())
        {
            let size = wgpu::BufferSize::new(plan.buffers[port.buffer].bytes);
            let from = wgpu::BufferBinding { buffer, offset, size };
            add(convert::copy(gpu, from, tensor(port), port.desc.bytes())?);
        }
        for tile in self.grid.all() {
            let part = |port: &Port| self.grid.part(port, tile);
            let mut add = |launch: Launch| steps.push((launch, None));
            for (port, texels) in ports.textures(true) {
                let plane = planes.iter().find(|p| p.name == port.name && p.picture == texels.picture);
                add(convert::read(gpu, port, texels, part(port), tensor(port), plane)?);
            }
            let buffers = |wanted: bool| ports.buffers().filter(move |(_, input, ..)| *input == wanted);
            let whole =
                |port, buffer, offset| Whole { port, tile: loaded.whole(port.buffer), buffer, offset };
            for (port, _, buffer, offset) in buffers(true) {
                if let Some(part) = part(port) {
                    add(whole(port, buffer, offset).take(gpu, part)?);
                }
            }
            steps.extend(loaded.steps.iter().enumerate().map(|(i, step)| ((step.clone(), 0), Some(i))));
            let mut add = |launch: Launch| steps.push((launch, None));
            for (port, _, buffer, offset) in buffers(false) {
                if let Some(part) = part(port) {
                    add(whole(port, buffer, offset).give(gpu, part)?);
                }
            }
            for (port, texels) in ports.textures(false) {
                add(convert::write(gpu, port, texels, part(port), tensor(port), &planes)?);
            }
        }
        let all = steps.len();
        let (launches, launch): (Vec<Launch>, Vec<Option<usize>>) = steps.into_iter().unzip();
        let (steps, bytes) = launches.into_iter().unzip();
        Ok(Bindings(Arc::new(Inner {
            gpu: gpu.clone(),
            turn: self.network.turn().clone(),
            steps,
            run: 0..all,
            updates: all..all,
            launch,
            launches: plan.run.len(),
            bytes,
            filled: bindings::filled(plan),
            in_place: false,
        })))
    }

    /// Whether a run in tiles can go from what is bound to what is bound.
    fn check(&self, ports: &Ports) -> Result<()> {
        let invalid = |expected: &str, found: String| {
            let (what, expected) = ("what is bound to a network in tiles".to_owned(), expected.to_owned());
            Err(Error::Invalid { what, expected, found })
        };
        for port in self.network.plan().inputs.iter().filter(|port| self.grid.scale(&port.name).is_some()) {
            let texture = ports.textures(true).any(|(other, _)| other.name == port.name);
            if !texture && !ports.buffers().any(|(other, ..)| other.name == port.name) {
                return invalid(
                    "a texture or buffer for each input that is a picture",
                    format!("none for \"{}\"", port.name),
                );
            }
        }
        for (input, source) in ports.textures(true) {
            if let Some((output, _)) = ports.textures(false).find(|(_, goal)| source.is(goal)) {
                let found = format!("one for \"{}\" and \"{}\"", input.name, output.name);
                return invalid("two textures, as tiles read what lies beside them", found);
            }
        }
        let bytes = |port: &Port| match self.grid.whole(port) {
            Some(size) => Whole::bytes(port, size).next_multiple_of(16),
            None => self.network.plan().buffers[port.buffer].bytes,
        };
        for (port, _, buffer, offset) in ports.buffers() {
            let usage = wgpu::BufferUsages::empty();
            bindings::check_buffer(self.network.gpu(), port, buffer, offset, bytes(port), usage)?;
        }
        let all: Vec<_> = ports.buffers().collect();
        for (i, (a, from_picture, first, start)) in all.iter().enumerate() {
            for (b, input, second, other) in &all[..i] {
                let apart = start + bytes(a) <= *other || other + bytes(b) <= *start;
                if first == second && !apart && !(*from_picture && *input) {
                    let found = format!("one for \"{}\" and \"{}\"", b.name, a.name);
                    return invalid("two buffers, as tiles read what lies beside them", found);
                }
            }
        }
        Ok(())
    }
}

impl Grid {
    /// Down and across, line by line.
    fn all(&self) -> impl Iterator<Item = [Tile; 2]> + '_ {
        let [down, across] = &self.tiles;
        down.iter().flat_map(|&y| across.iter().map(move |&x| [y, x]))
    }

    /// Width and height of the whole picture of a port; none if it is no picture.
    fn whole(&self, port: &Port) -> Option<[u32; 2]> {
        let scales = self.scale(&port.name)?;
        let length =
            |side: usize| port.desc.shape[side + 1] + scales[side].of(self.picture[side] - self.tile[side]);
        Some(across_first([0, 1].map(length)).map(|length| length as u32))
    }

    /// What the tensor of a tile is of the whole one.
    fn part(&self, port: &Port, tile: [Tile; 2]) -> Option<Part> {
        let (scales, whole) = (self.scale(&port.name)?, self.whole(port)?);
        let end = |side: usize| match tile[side].keep[1] == self.picture[side] {
            true => whole[1 - side] as usize,
            false => scales[side].of(tile[side].keep[1]),
        };
        let sides =
            |length: &dyn Fn(usize) -> usize| across_first([0, 1].map(length)).map(|length| length as u32);
        let start = sides(&|side| scales[side].of(tile[side].start));
        Some(Part { whole, start, keep: [sides(&|side| scales[side].of(tile[side].keep[0])), sides(&end)] })
    }
}

/// Height and width as width and height, and the other way round.
fn across_first<T: Copy>([down, across]: [T; 2]) -> [T; 2] {
    [across, down]
}
