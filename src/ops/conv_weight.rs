//! ConvWeight: a convolution's weight from the file's order to the kernel's.

use super::{Operator, arity};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// Repacks `[c_out, c_in, kh, kw]`, once, when the network is loaded.
#[derive(Clone, Debug)]
pub enum ConvWeight {
    /// For `conv2d_rows` and `conv2d_texels`: `[rows, row]`, a row for each tile of `quads` quads of
    /// output channels, line of the kernel, `taps` taps side by side and quad of
    /// input channels.
    Tiles { taps: usize, quads: usize },
    /// For `conv2d_depthwise`: `[kh · kw, c]`.
    Depthwise,
}

impl Operator for ConvWeight {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let [c_out, c_in, kh, kw] = inputs[0].shape[..] else {
            return Err(format!("weight must be [c_out, c_in, kh, kw], found {}", inputs[0].shape));
        };
        let shape = match self {
            ConvWeight::Tiles { taps, quads } => {
                let tiles = c_out.div_ceil(4 * quads);
                let row = taps * 16 * quads;
                [tiles * kh * (kw / taps) * c_in.div_ceil(4), row]
            }
            ConvWeight::Depthwise => [kh * kw, c_out],
        };
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let (from, to) = (&cx.desc(0).shape, cx.output_desc());
        let buffers = [("src", cx.input(0)), ("dst", cx.output())];
        match self {
            ConvWeight::Tiles { taps, quads } => cx.dispatch(
                Kernel::new("conv_weight_tiles").alias("Elem", elem(to)),
                &buffers,
                &[
                    ("count", (to.shape[0] * 4 * quads).into()),
                    ("channels", (4 * quads).into()),
                    ("c_out", from[0].into()),
                    ("c_in", from[1].into()),
                    ("quads_in", from[1].div_ceil(4).into()),
                    ("kernel_y", from[2].into()),
                    ("kernel_x", from[3].into()),
                    ("taps", (*taps).into()),
                ],
                Grid::Threads(to.shape[0] * 4 * quads),
            ),
            ConvWeight::Depthwise => cx.dispatch(
                Kernel::new("conv_weight_depthwise").alias("Elem", elem(to)),
                &buffers,
                &[("channels", from[0].into()), ("taps", (from[2] * from[3]).into())],
                Grid::Threads(to.shape.elements()),
            ),
        }
    }
}
