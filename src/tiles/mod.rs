//! Networks for pictures of any size within a bound of memory: a tile at a time, with the same result to the last bit.
//!
//! All tiles have one size, and so one plan: that of the picture, but for multiples of the network's period. They overlap by
//! as much as the network looks at, and begin where its strides and its squares do. At the picture's borders tiles end where
//! it does, and the network's own padding is what it is for the whole. Convolutions are computed as they are for the whole.

mod cut;
mod family;
mod reach;

use cut::Side;
pub(crate) use cut::Tile;
pub(crate) use family::Ratio;
use family::{Family, STEP};
use reach::{Unfit, reach};

use crate::error::{Error, Result};
use crate::graph::{Graph, Source};
use crate::ops::conv2d::Method;
use crate::passes::{self, choose};
use crate::plan::Plan;
use crate::target::Target;

/// Height and width.
pub(crate) type Size = [usize; 2];

/// How a network goes over pictures of a size.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub picture: Size,
    pub tile: Size,
    /// Down and across.
    pub tiles: [Vec<Tile>; 2],
    /// Of inputs and outputs that are pictures, elements for a pixel; empty if there is but one tile.
    pub scales: Vec<(String, [Ratio; 2])>,
    /// What tiles begin at multiples of, and what lies before and after the pixels that one is for, down and across.
    pub period: Size,
    pub margin: [[usize; 2]; 2],
}

/// How many plans of tiles are looked at beyond the smallest.
const TRIES: usize = 8;

/// The plan of a tile, within `most` bytes, of a network that `build` makes for any size.
pub(crate) fn plan(
    target: &Target,
    picture: Size,
    most: u64,
    build: &dyn Fn(Size) -> Result<Graph>,
) -> Result<(Plan, Grid)> {
    let build = |size: Size| passes::before_methods(&build(size)?, target);
    let whole = match build(picture) {
        Ok(graph) => Ok(graph),
        // More elements than there may be.
        Err(error @ (Error::Graph { .. } | Error::Limit { .. })) => Err(error),
        Err(error) => return Err(error),
    };
    let mut needed = None;
    if let Ok(graph) = &whole {
        let optimised = passes::with_methods(graph, target, &choose::own(graph, target))?;
        match Plan::new(&optimised, target) {
            Ok(plan) if plan.peak_bytes() <= most => return Ok((plan, Grid::uncut(picture))),
            Ok(plan) => needed = Some(plan.peak_bytes()),
            Err(Error::Limit { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let refused = |Unfit { op, node, why }: Unfit| Error::Whole { op, node, why, needed, budget: most };
    let family = match (Family::new(&build, picture), whole.as_ref()) {
        (Ok(family), _) => family.map_err(refused)?,
        (Err(_), Err(_)) => return Err(whole.expect_err("as matched")),
        (Err(error), Ok(_)) => return Err(error),
    };
    if let Some((_, state)) = family.graph.values().find(|(_, v)| matches!(v.source, Source::State(_))) {
        let why = "is kept from one run to the next".to_owned();
        return Err(refused(Unfit { op: "State", node: state.name.clone(), why }));
    }
    // A picture that is too large for any plan has no result to be the same as; its tiles agree with one another.
    let methods = match &whole {
        Ok(graph) => {
            family.check(graph, picture).map_err(refused)?;
            choose::methods(graph, target)
        }
        Err(_) => choose::methods(&family.graph, target),
    };
    let sides = [0, 1].map(|side| reach(&family, &methods, side));
    let [down, across] = match sides {
        [Ok(down), Ok(across)] => [down, across],
        [Err(unfit), _] | [_, Err(unfit)] => return Err(refused(unfit)),
    };
    let mut sides = [down, across].into_iter().zip(picture).map(|(reach, length)| Side {
        length,
        period: reach.period,
        before: reach.before.next_multiple_of(reach.period),
        after: reach.after,
    });
    let sides: [Side; 2] = std::array::from_fn(|_| sides.next().expect("two sides"));
    if let Some(side) = sides.iter().find(|side| !STEP.is_multiple_of(side.period)) {
        let why = format!("has a period of {} pixels, which does not divide {STEP}", side.period);
        return Err(refused(Unfit { op: "Output", node: names(&family.graph), why }));
    }
    let search = Search { target, build: &build, family: &family, methods: &methods, sides };
    let (plan, tile) = search.best(most, needed)?;
    let tiles = [0, 1].map(|side| sides[side].tiles(tile[side]).expect("of a length that was found so"));
    let grid = Grid {
        picture,
        tile,
        tiles,
        scales: family.ports().map_err(refused)?,
        period: sides.map(|side| side.period),
        margin: sides.map(|side| [side.before, side.after]),
    };
    Ok((plan, grid))
}

fn names(graph: &Graph) -> String {
    graph.outputs().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

impl Grid {
    fn uncut(picture: Size) -> Grid {
        let tiles = picture.map(|length| vec![Tile { start: 0, keep: [0, length] }]);
        let (scales, period, margin) = (Vec::new(), [1; 2], [[0; 2]; 2]);
        Grid { picture, tile: picture, tiles, scales, period, margin }
    }

    pub fn count(&self) -> usize {
        self.tiles[0].len() * self.tiles[1].len()
    }

    /// Of an input or output that is a picture, elements for a pixel, down and across.
    pub fn scale(&self, name: &str) -> Option<[Ratio; 2]> {
        self.scales.iter().find(|(port, _)| port == name).map(|(_, scale)| *scale)
    }
}

/// Of tiles that fit, those with the least work.
struct Search<'a> {
    target: &'a Target,
    build: &'a dyn Fn(Size) -> Result<Graph>,
    family: &'a Family,
    methods: &'a [Option<Method>],
    sides: [Side; 2],
}

/// Tiles of a size.
#[derive(Clone, Copy)]
struct Candidate {
    tile: Size,
    /// Of one, and of all.
    area: usize,
    work: usize,
}

impl Search<'_> {
    fn best(&self, most: u64, whole: Option<u64>) -> Result<(Plan, Size)> {
        let [down, across] = self.sides.map(|side| side.lengths());
        let mut candidates = Vec::new();
        for &(height, rows) in &down {
            for &(width, columns) in &across {
                let area = height * width;
                candidates.push(Candidate { tile: [height, width], area, work: area * rows * columns });
            }
        }
        candidates.sort_by_key(|candidate| (candidate.work, candidate.area));
        let picture = down[0].0 * across[0].0;
        let least = *candidates.iter().min_by_key(|candidate| candidate.area).expect("the whole is one");
        let plan = self.plan(least.tile, None)?;
        if plan.peak_bytes() > most {
            return Err(Error::Budget {
                budget: most,
                needed: plan.peak_bytes(),
                parts: format!("for tiles of {} × {} pixels, the smallest", least.tile[1], least.tile[0]),
                advice: "allow more, or take a network that looks less far".to_owned(),
            });
        }
        // Memory grows with the area, by how much is between what was seen to fit and what was seen not to.
        let mut low = (least.area, plan.peak_bytes());
        let mut high = (picture, whole);
        let mut best = (plan, least);
        for _ in 0..TRIES {
            let spare = (most - low.1) as f64;
            let slope = match high {
                (area, Some(bytes)) if area > low.0 => {
                    (bytes.saturating_sub(low.1)) as f64 / (area - low.0) as f64
                }
                _ => (best.0.scratch_bytes() + best.0.port_bytes()) as f64 / best.1.area as f64,
            };
            let area = low.0 as f64 + spare / slope.max(f64::MIN_POSITIVE);
            let between = |c: &&Candidate| (low.0 + 1..high.0).contains(&c.area) && c.area as f64 <= area;
            let Some(&next) = candidates.iter().find(between).filter(|next| next.work < best.1.work) else {
                break;
            };
            match self.plan(next.tile, Some(&best.0)) {
                Ok(plan) if plan.peak_bytes() <= most => {
                    low = (next.area, plan.peak_bytes());
                    best = (plan, next);
                }
                Ok(plan) => high = (next.area, Some(plan.peak_bytes())),
                Err(Error::Limit { .. }) => high = (next.area, None),
                Err(error) => return Err(error),
            }
        }
        Ok((best.0, best.1.tile))
    }

    /// The plan of a tile, with the kernels that another has already.
    fn plan(&self, tile: Size, other: Option<&Plan>) -> Result<Plan> {
        let graph = (self.build)(tile)?;
        self.family.check(&graph, tile).map_err(|Unfit { op, node, why }| {
            let message = format!("{why}: tiles of {} × {} pixels", tile[1], tile[0]);
            Error::Graph { op, node, message }
        })?;
        let graph =
            passes::with_methods(&graph, self.target, &choose::like(&graph, self.target, self.methods))?;
        other.map_or_else(|| Plan::new(&graph, self.target), |other| other.again(&graph))
    }
}

impl Family {
    /// Inputs and outputs that are pictures, `[n, h, w, c]` or `[n, h, w]`.
    fn ports(&self) -> Result<Vec<(String, [Ratio; 2])>, Unfit> {
        let inputs = self.graph.values().filter(|(_, value)| matches!(value.source, Source::Input));
        let inputs = inputs.map(|(id, value)| ("Input", value.name.clone(), id));
        let outputs = self.graph.outputs().iter().map(|(name, id)| ("Output", name.clone(), *id));
        let mut ports = Vec::new();
        for (op, name, id) in inputs.chain(outputs) {
            match [0, 1].map(|side| self.scales[side][id.index()]) {
                [None, None] => {}
                [Some((1, down)), Some((2, across))] => ports.push((name, [down, across])),
                _ => return Err(Unfit { op, node: name, why: "is no picture [n, h, w, c]".to_owned() }),
            }
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests;
