//! TopK: where the largest or smallest numbers of a line are, in order.

use super::lines::split;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Longest lines whose elements are all compared with each other.
const SHORT: usize = 256;

/// Indices (i32) of the `keep` largest or smallest numbers, f32, f16 or i32, along `axis`, best first, of equals the
/// first one first.
#[derive(Clone, Debug)]
pub struct TopK {
    pub axis: usize,
    pub keep: usize,
    pub smallest: bool,
}

impl Operator for TopK {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let desc = inputs[0];
        if !matches!(desc.dtype, DType::F32 | DType::F16 | DType::I32) {
            return Err(format!("input must be f32, f16 or i32, found {}", desc.dtype));
        }
        let mut shape = desc.shape.to_vec();
        match shape.get_mut(self.axis) {
            Some(n) if (1..=*n).contains(&self.keep) => *n = self.keep,
            Some(n) => return Err(format!("of {n} numbers {} cannot be kept", self.keep)),
            None => return Err(format!("no axis {} in {}", self.axis, desc.shape)),
        }
        Ok(TensorDesc::new(shape, DType::I32))
    }

    fn detail(&self) -> String {
        self.keep.to_string()
    }

    fn lower(&self, cx: &mut Lower) {
        let desc = cx.desc(0);
        let [outer, size, inner] = split(&desc.shape, self.axis, self.axis + 1);
        let short = size <= SHORT;
        let key = match desc.dtype {
            DType::I32 => "key_of_i32(x)",
            _ => "key_of_f32(f32(x))",
        };
        let sign = if self.smallest { "~" } else { "" };
        let kernel = Kernel::new(if short { "top_k" } else { "top_k_long" })
            .alias("Elem", elem(desc))
            .function("key_of", format!("fn key_of(x: Elem) -> u32 {{\n    return {sign}{key};\n}}"));
        if short {
            cx.dispatch(
                kernel,
                &[("src", cx.input(0)), ("dst", cx.output())],
                &[
                    ("count", desc.shape.elements().into()),
                    ("size", size.into()),
                    ("inner", inner.into()),
                    ("keep", self.keep.into()),
                ],
                Grid::Threads(desc.shape.elements()),
            );
            return;
        }
        let (lines, room) = (outer * inner, self.keep.next_power_of_two());
        let (keys, places) = (cx.scratch(4 * lines * room), cx.scratch(4 * lines * room));
        let bits = usize::BITS - (size - 1).leading_zeros();
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("keys", keys), ("places", places), ("dst", cx.output())],
            &[
                ("lines", lines.into()),
                ("size", size.into()),
                ("inner", inner.into()),
                ("keep", self.keep.into()),
                ("room", room.into()),
                ("digits", (bits.div_ceil(8) as usize).into()),
            ],
            Grid::Groups(lines),
        );
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        inputs[0].shape.elements() as u64
    }
}

impl Graph {
    /// Indices (i32) of the `keep` largest numbers of `x` along `axis`, the largest first, of equals the first one first.
    pub fn top_k(&mut self, x: ValueId, axis: usize, keep: usize) -> Result<ValueId> {
        self.push(TopK { axis, keep, smallest: false }, &[x])
    }
}
