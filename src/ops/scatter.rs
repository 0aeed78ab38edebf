//! Scatter: elements or slices of a tensor replaced, or combined with others, at computed places.

use super::gather_elements::{one_by_one, reversed};
use super::gather_nd::{Tuples, eight, tuples, unit};
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, Slot};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, TensorDesc};

/// What becomes of an element and its update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The update, the last one where several go to one place.
    Replace,
    Add,
    Mul,
    Min,
    Max,
}

/// Where updates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Each has an index of its own along this axis.
    Along(usize),
    /// Tuples of indices, along the last axis, each place a slice.
    Tuples,
}

/// The first input with the third, updates, at the places that the second, `i32` indices, says. Negative indices
/// count from the end; updates that are still outside change nothing. Updates of one place come in their order, each
/// rounded to the type of the tensor, so the result is the same on every run.
#[derive(Clone, Debug)]
pub struct Scatter {
    pub places: Places,
    pub combine: Combine,
}

/// The lines of a launch; lists have the last axis first.
struct Lines {
    lines: usize,
    rows: usize,
    count: usize,
    /// From a row, a place and an update to the next.
    steps: [usize; 3],
    shape: Vec<usize>,
    limits: Vec<usize>,
    /// Of rows, places and updates.
    strides: [Vec<usize>; 3],
}

impl Operator for Scatter {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 3..=3)?;
        let [src, indices, updates] = [inputs[0], inputs[1], inputs[2]];
        let wanted = match self.places {
            Places::Along(axis) => {
                one_by_one(src, indices, axis)?;
                indices.shape.to_vec()
            }
            Places::Tuples => {
                let depth = tuples(src, indices, 0)?.depth;
                [&indices.shape[..indices.shape.len() - 1], &src.shape[depth..]].concat()
            }
        };
        match updates.shape[..] == wanted && updates.dtype == src.dtype {
            true => Ok(src.clone()),
            false => Err(format!("updates must be {}{wanted:?}, found {updates}", src.dtype)),
        }
    }

    fn detail(&self) -> String {
        format!("{:?} {:?}", self.combine, self.places)
    }

    fn lower(&self, cx: &mut Lower) {
        let (src, indices) = (cx.desc(0), cx.desc(1));
        match self.places {
            Places::Along(axis) => {
                let (from, to) = (indices.shape.strides(), src.shape.strides());
                let other = |list: &[usize], along: usize| -> Vec<usize> {
                    list.iter().enumerate().map(|(d, &n)| if d == axis { along } else { n }).collect()
                };
                let shape = other(&src.shape, 1);
                let lines = Lines {
                    lines: shape.iter().product(),
                    rows: src.shape[axis],
                    count: indices.shape[axis],
                    steps: [to[axis], from[axis], from[axis]],
                    shape,
                    limits: other(&indices.shape, 1),
                    strides: [other(&to, 0), other(&from, 0), other(&from, 0)],
                };
                self.walk(cx, lines, cx.input(1), 1);
            }
            Places::Tuples => {
                let Tuples { count, depth, inner } =
                    tuples(src, indices, 0).expect("checked when the graph was built");
                let sizes = &src.shape[..depth];
                let place = match depth {
                    1 => cx.input(1),
                    _ => {
                        let place = cx.scratch(4 * count);
                        cx.dispatch(
                            Kernel::new("scatter_place").constant("DEPTH", format!("{depth}u")),
                            &[("indices", cx.input(1)), ("place", place)],
                            &[
                                ("count", count.into()),
                                ("sizes", eight(sizes.iter().copied(), 1)),
                                ("strides", eight(src.shape.strides()[..depth].iter().map(|s| s / inner), 0)),
                            ],
                            Grid::Threads(count),
                        );
                        place
                    }
                };
                let (_, unit) = unit(inner, src.dtype);
                let inner = inner / unit;
                let lines = Lines {
                    lines: inner,
                    rows: sizes.iter().product(),
                    count,
                    steps: [inner, 1, inner],
                    shape: vec![inner],
                    limits: vec![inner],
                    strides: [vec![1], vec![0], vec![1]],
                };
                self.walk(cx, lines, place, unit);
            }
        }
    }
}

impl Scatter {
    fn walk(&self, cx: &mut Lower, l: Lines, place: Slot, wide: usize) {
        // Every thread walks all updates of its line: no more of them than keep the device busy.
        let threads = if cx.target().class == DeviceClass::Cpu { 1 << 6 } else { 1 << 13 };
        let stretch = l.rows.div_ceil((threads / l.lines).max(1));
        let threads = l.lines * l.rows.div_ceil(stretch);
        let dtype = cx.desc(0).dtype;
        let elem = unit(wide, dtype).0;
        let arithmetic = unit(wide, if dtype.is_float() { DType::F32 } else { dtype }).0;
        let result = match self.combine {
            Combine::Replace => "given",
            Combine::Add => "was + given",
            Combine::Mul => "was * given",
            Combine::Min => "min(was, given)",
            Combine::Max => "max(was, given)",
        };
        let combine = format!("fn combine(was: Wide, given: Wide) -> Wide {{\n    return {result};\n}}");
        let [row_step, place_step, update_step] = l.steps;
        let [row_strides, place_strides, update_strides] = l.strides;
        cx.dispatch(
            Kernel::new("scatter")
                .alias("Elem", elem)
                .alias("Wide", arithmetic)
                .constant("RANK", format!("{}u", l.shape.len()))
                .function("combine", combine),
            &[("src", cx.input(0)), ("place", place), ("updates", cx.input(2)), ("dst", cx.output())],
            &[
                ("threads", threads.into()),
                ("lines", l.lines.into()),
                ("rows", l.rows.into()),
                ("stretch", stretch.into()),
                ("count", l.count.into()),
                ("row_step", row_step.into()),
                ("place_step", place_step.into()),
                ("update_step", update_step.into()),
                ("shape", reversed(l.shape.into_iter(), 1)),
                ("limits", reversed(l.limits.into_iter(), 1)),
                ("row_strides", reversed(row_strides.into_iter(), 0)),
                ("place_strides", reversed(place_strides.into_iter(), 0)),
                ("update_strides", reversed(update_strides.into_iter(), 0)),
            ],
            Grid::Threads(threads),
        );
    }
}

impl Graph {
    /// `x`, but `result[…, indices[…, i, …], …] = combine(that element, updates[…, i, …])` along `axis`; `indices` (i32) and
    /// `updates` have one shape. Negative indices count from the end; updates that are still outside change nothing.
    pub fn scatter_elements(
        &mut self,
        x: ValueId,
        indices: ValueId,
        updates: ValueId,
        axis: usize,
        combine: Combine,
    ) -> Result<ValueId> {
        self.push(Scatter { places: Places::Along(axis), combine }, &[x, indices, updates])
    }

    /// `x`, but `result[indices[u…, 0], indices[u…, 1], …, i…] = combine(that element, updates[u…, i…])` with `indices` (i32)
    /// `[u…, depth]`. Negative indices count from the end; updates that are still outside change nothing.
    pub fn scatter_nd(
        &mut self,
        x: ValueId,
        indices: ValueId,
        updates: ValueId,
        combine: Combine,
    ) -> Result<ValueId> {
        self.push(Scatter { places: Places::Tuples, combine }, &[x, indices, updates])
    }
}
