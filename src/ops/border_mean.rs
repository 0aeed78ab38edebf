//! Border mean: what lies behind the thing in a picture.

use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// Mean of the outermost pixels of each channel. Input: `[n, h, w, c]`.
#[derive(Clone, Debug)]
pub struct BorderMean;

impl Operator for BorderMean {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let [n, _, _, c] = nhwc("input", inputs[0])?;
        Ok(TensorDesc::new([n, 1, 1, c], inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let count = cx.output_desc().shape.elements();
        let [_, h, w, c] = nhwc("input", cx.desc(0)).unwrap_or_else(|_| unreachable!("checked by infer"));
        cx.dispatch(
            Kernel::new("border_mean").alias("Elem", elem(cx.desc(0))),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("count", count.into()), ("height", h.into()), ("width", w.into()), ("channels", c.into())],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// Mean of the outermost pixels of `x` `[n, h, w, c]`: `[n, 1, 1, c]`.
    pub fn border_mean(&mut self, x: ValueId) -> Result<ValueId> {
        self.push(BorderMean, &[x])
    }
}
