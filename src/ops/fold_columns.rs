//! Fold columns: blocks of pixels put together to a picture, summed where they overlap (PyTorch's `Fold`).

use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// Of blocks `[n, rows, columns, c · kh · kw]`, the taps of a channel together, the picture `[n, h, w, c]` that they were
/// taken from; pairs are `[y, x]`.
#[derive(Clone, Debug)]
pub struct FoldColumns {
    /// Height and width of the picture.
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Of the picture when it was cut, at the top, left, bottom and right.
    pub padding: [usize; 4],
}

impl Operator for FoldColumns {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("blocks", inputs[0])?;
        let &[n, rows, columns, taps] = &inputs[0].shape[..] else {
            return Err(format!("blocks must be [n, rows, columns, c · kh · kw], found {}", inputs[0]));
        };
        let counts = [self.kernel, self.stride, self.dilation, self.size].concat();
        if counts.iter().any(|&n| n == 0 || n > 1 << 15) || self.padding.iter().any(|&n| n > 1 << 15) {
            return Err(format!(
                "size, kernel, stride and dilation must be 1 to 32768, and padding at most that, found {self:?}"
            ));
        }
        let blocks = |i: usize| {
            let padded = self.size[i] + self.padding[i] + self.padding[i + 2];
            let reach = self.dilation[i] * (self.kernel[i] - 1) + 1;
            padded.checked_sub(reach).map(|room| room / self.stride[i] + 1)
        };
        let each = self.kernel[0] * self.kernel[1];
        match [blocks(0), blocks(1)] == [Some(rows), Some(columns)] && taps.is_multiple_of(each) {
            true => {
                Ok(TensorDesc::new([n, self.size[0], self.size[1], taps / each], inputs[0].dtype))
            }
            false => Err(format!("blocks {} are not those of {self:?}", inputs[0].shape)),
        }
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        inputs[0].shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [rows, columns] = [1, 2].map(|d| cx.desc(0).shape[d]);
        let output = cx.output_desc();
        let count = output.shape.elements();
        cx.dispatch(
            Kernel::new("fold_columns").alias("Elem", output.dtype.wgsl()),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("h", self.size[0].into()),
                ("w", self.size[1].into()),
                ("c", output.shape.last().into()),
                ("rows", rows.into()),
                ("columns", columns.into()),
                ("kernel_y", self.kernel[0].into()),
                ("kernel_x", self.kernel[1].into()),
                ("stride_y", self.stride[0].into()),
                ("stride_x", self.stride[1].into()),
                ("dilation_y", self.dilation[0].into()),
                ("dilation_x", self.dilation[1].into()),
                ("top", self.padding[0].into()),
                ("left", self.padding[1].into()),
            ],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// The picture that `blocks` make: see [`FoldColumns`].
    pub fn fold_columns(&mut self, blocks: ValueId, options: FoldColumns) -> Result<ValueId> {
        self.push(options, &[blocks])
    }
}
