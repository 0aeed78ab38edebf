//! ConvWeight: a convolution's weight from the file's order to the kernel's.

use super::{Operator, arity};
use crate::plan::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// From `[c_out, c_in, kh, kw]` to `[kh, kw, c_in', c_out']`, the channel
/// counts rounded up to a multiple of the given ones and filled with zeros.
#[derive(Clone, Debug)]
pub struct ConvWeight {
    pub c_in_multiple: usize,
    pub c_out_multiple: usize,
}

impl Operator for ConvWeight {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let [c_out, c_in, kh, kw] = inputs[0].shape[..] else {
            return Err(format!("weight must be [c_out, c_in, kh, kw], found {}", inputs[0].shape));
        };
        Ok(TensorDesc::new(
            [
                kh,
                kw,
                c_in.next_multiple_of(self.c_in_multiple),
                c_out.next_multiple_of(self.c_out_multiple),
            ],
            inputs[0].dtype,
        ))
    }

    fn lower(&self, cx: &mut Lower) {
        let (from, to) = (cx.desc(0), cx.output_desc());
        let count = to.shape.elements();
        cx.dispatch(
            Kernel::new("conv_weight").alias("Elem", elem(to)),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("c_out", from.shape[0].into()),
                ("c_in", from.shape[1].into()),
                ("taps", (from.shape[2] * from.shape[3]).into()),
                ("c_in_padded", to.shape[2].into()),
                ("c_out_padded", to.shape[3].into()),
            ],
            Grid::Threads(count),
        );
    }
}
