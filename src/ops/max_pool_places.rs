//! Max-pool places: where a pool's maxima come from, as an unpooling layer wants to know.

use super::pool::{PoolOptions, extent};
use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// For each window of `[n, h, w, c]` where its maximum is in the plane of its channel, i32: `y · w + x`, of equals the first.
#[derive(Clone, Debug)]
pub struct MaxPoolPlaces {
    pub windows: PoolOptions,
    /// Places are `x · h + y` instead.
    pub columns_first: bool,
}

impl Operator for MaxPoolPlaces {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let [n, h, w, c] = nhwc("input", inputs[0])?;
        let (oh, ow) = (extent(&self.windows, 0, h)?, extent(&self.windows, 1, w)?);
        Ok(TensorDesc::new([n, oh, ow, c], DType::I32))
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, c] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, _] = nhwc("result", cx.output_desc()).expect("made by infer");
        let o = self.windows;
        let count = cx.output_desc().shape.elements();
        cx.dispatch(
            Kernel::new("max_pool_places")
                .constant("COLUMNS_FIRST", self.columns_first)
                .alias("Elem", cx.desc(0).dtype.wgsl()),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("c", c.into()),
                ("oh", oh.into()),
                ("ow", ow.into()),
                ("kernel_y", o.kernel[0].into()),
                ("kernel_x", o.kernel[1].into()),
                ("stride_y", o.stride[0].into()),
                ("stride_x", o.stride[1].into()),
                ("dilation_y", o.dilation[0].into()),
                ("dilation_x", o.dilation[1].into()),
                ("top", o.padding[0].into()),
                ("left", o.padding[1].into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        (output.shape.elements() * self.windows.kernel[0] * self.windows.kernel[1]) as u64
    }
}

impl Graph {
    /// Where the maxima of `x` `[n, h, w, c]` are: see [`MaxPoolPlaces`].
    pub fn max_pool_places(
        &mut self,
        x: ValueId,
        windows: PoolOptions,
        columns_first: bool,
    ) -> Result<ValueId> {
        self.push(MaxPoolPlaces { windows, columns_first }, &[x])
    }
}
