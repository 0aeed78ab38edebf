//! A network at the sizes that pictures have: graphs of the same operations, whose tensors grow with the picture.

use super::reach::{Unfit, gcd};
use crate::error::Result;
use crate::graph::{Graph, Source, Value};
use crate::ops::Op;
use crate::ops::strided::Strided;
use crate::tensor::TensorDesc;

/// Between the sizes at which a network is looked at, pixels: periods of networks divide it.
pub(crate) const STEP: usize = 384;

/// Elements for pixels, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio {
    pub num: usize,
    pub den: usize,
}

impl Ratio {
    pub fn new(num: usize, den: usize) -> Ratio {
        let both = gcd(num, den).max(1);
        Ratio { num: num / both, den: den / both }
    }

    pub fn times(self, factor: usize) -> Ratio {
        Ratio::new(self.num * factor, self.den)
    }

    pub fn over(self, divisor: usize) -> Ratio {
        Ratio::new(self.num, self.den * divisor)
    }

    /// Elements of so many pixels, of which they are a whole number.
    pub fn of(self, pixels: usize) -> usize {
        debug_assert!((pixels * self.num).is_multiple_of(self.den), "{pixels} pixels at {self:?}");
        pixels * self.num / self.den
    }
}

/// The graph for one size, and how others differ.
pub(crate) struct Family {
    pub graph: Graph,
    /// Height and width.
    size: [usize; 2],
    /// Down and across: of each value the dimension that grows, and by how much.
    pub scales: [Vec<Option<(usize, Ratio)>>; 2],
}

impl Family {
    /// From graphs as they are before methods are chosen, at sizes that differ from the wanted one by multiples of [`STEP`].
    pub fn new(
        build: &dyn Fn([usize; 2]) -> Result<Graph>,
        size: [usize; 2],
    ) -> Result<Result<Family, Unfit>> {
        let size = size.map(|length| STEP + length % STEP);
        let graph = build(size)?;
        let grown = [build([size[0] + STEP, size[1]])?, build([size[0], size[1] + STEP])?];
        let scales = grown.each_ref().map(|grown| scales(&graph, grown));
        let [down, across] = match scales {
            [Ok(down), Ok(across)] => [down, across],
            [Err(unfit), _] | [_, Err(unfit)] => return Ok(Err(unfit)),
        };
        let family = Family { graph, size, scales: [down, across] };
        let checks = [
            family.check(&grown[0], [size[0] + STEP, size[1]]),
            family.check(&grown[1], [size[0], size[1] + STEP]),
        ];
        Ok(checks.into_iter().collect::<Result<(), Unfit>>().map(|()| family))
    }

    /// Whether a graph is this network at another size.
    pub fn check(&self, other: &Graph, size: [usize; 2]) -> Result<(), Unfit> {
        same_length(&self.graph, other)?;
        for ((id, value), (_, there)) in self.graph.values().zip(other.values()) {
            let mut shape = value.desc.shape.to_vec();
            for ((scales, &from), &to) in self.scales.iter().zip(&self.size).zip(&size) {
                let Some((dim, ratio)) = scales[id.index()] else { continue };
                // Elements of pixels that are a multiple of the period; else there is none.
                let more = |pixels: usize| ratio.num * pixels / ratio.den;
                shape[dim] = match to >= from {
                    true => shape[dim] + more(to - from),
                    false => shape[dim].saturating_sub(more(from - to)),
                };
            }
            let same = TensorDesc::new(shape, value.desc.dtype) == there.desc && same(value, there);
            if !same {
                return Err(unlike(value));
            }
        }
        let outputs = |graph: &Graph| graph.outputs().to_vec();
        match outputs(&self.graph) == outputs(other) {
            true => Ok(()),
            false => Err(Unfit { op: "Output", node: self.outputs(), why: UNLIKE.to_owned() }),
        }
    }

    fn outputs(&self) -> String {
        self.graph.outputs().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

const UNLIKE: &str = "is another at another size of the picture";

fn unlike(value: &Value) -> Unfit {
    let op = match &value.source {
        Source::Op { op, .. } => op.name(),
        Source::Weight(_) => "Weight",
        Source::State(_) => "State",
        Source::Input => "Input",
    };
    Unfit { op, node: value.name.clone(), why: UNLIKE.to_owned() }
}

fn same_length(graph: &Graph, other: &Graph) -> Result<(), Unfit> {
    let kind = |value: &Value| match &value.source {
        Source::Op { op, .. } => op.name(),
        _ => "",
    };
    for ((_, a), (_, b)) in graph.values().zip(other.values()) {
        if kind(a) != kind(b) {
            return Err(unlike(a));
        }
    }
    let [shorter, longer] = match graph.values().count() <= other.values().count() {
        true => [graph, other],
        false => [other, graph],
    };
    longer.values().nth(shorter.values().count()).map_or(Ok(()), |(_, value)| Err(unlike(value)))
}

/// Of each value the dimension that grows with a side of the picture by [`STEP`], if one does.
fn scales(graph: &Graph, grown: &Graph) -> Result<Vec<Option<(usize, Ratio)>>, Unfit> {
    same_length(graph, grown)?;
    let scale = |(a, b): (&Value, &Value)| {
        let (from, to) = (&a.desc.shape, &b.desc.shape);
        if from.len() != to.len() {
            return Err(unlike(a));
        }
        let mut dims = (0..from.len()).filter(|&dim| from[dim] != to[dim]);
        match (dims.next(), dims.next()) {
            (None, _) => Ok(None),
            (Some(dim), None) if to[dim] > from[dim] => {
                Ok(Some((dim, Ratio::new(to[dim] - from[dim], STEP))))
            }
            _ => Err(unlike(a)),
        }
    };
    graph.values().zip(grown.values()).map(|((_, a), (_, b))| scale((a, b))).collect()
}

/// Whether two values of the same shape, but for the picture's size, are made in the same way.
fn same(a: &Value, b: &Value) -> bool {
    match (&a.source, &b.source) {
        (Source::Input, Source::Input) => a.name == b.name,
        (Source::State(a), Source::State(b)) | (Source::Weight(a), Source::Weight(b)) => {
            let (x, y): (&[u8], &[u8]) = (&a.bytes, &b.bytes);
            a.desc == b.desc && (std::ptr::eq(x, y) || x == y)
        }
        (Source::Op { op: x, inputs }, Source::Op { op: y, inputs: others }) => {
            inputs == others
                && match (x, y) {
                    // Their sizes are those of their results.
                    (Op::Reshape(_), Op::Reshape(_)) => true,
                    (Op::Strided(Strided::Broadcast(_)), Op::Strided(Strided::Broadcast(_))) => true,
                    (Op::Strided(Strided::Slice(x)), Op::Strided(Strided::Slice(y))) => {
                        x.iter().zip(y).all(|(x, y)| x.start == y.start && x.step == y.step)
                    }
                    (Op::Resize(x), Op::Resize(y)) => {
                        x.interpolation == y.interpolation && x.coordinates == y.coordinates
                    }
                    _ => format!("{x:?}") == format!("{y:?}"),
                }
        }
        _ => false,
    }
}
