//! Pool: the maximum or mean of windows of a feature map.

use super::lines::{LOAD_TEXEL, run};
use super::reduce::{Reduce, Reduction};
use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    Max,
    /// `include_pad`: divided by the number of taps within the input and its padding, not the input alone.
    Mean { include_pad: bool },
}

/// Where the windows lie; pairs are `[y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// At the top, left, bottom and right; less than the window.
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    /// Whether a last window may reach past the end, if it begins before it.
    pub ceil: bool,
}

impl PoolOptions {
    /// Square windows side by side.
    pub fn square(kernel: usize) -> Self {
        PoolOptions {
            kernel: [kernel; 2],
            stride: [kernel; 2],
            padding: [0; 4],
            dilation: [1; 2],
            ceil: false,
        }
    }
}

/// The windows of a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    Sliding(PoolOptions),
    /// As many as the result has rows and columns, from `floor(i · in / out)` to `ceil((i + 1) · in / out)`.
    Adaptive([usize; 2]),
}

/// Pools `[n, h, w, c]`, as PyTorch's pooling layers.
#[derive(Clone, Debug)]
pub struct Pool {
    pub reduce: PoolKind,
    pub windows: Windows,
}

/// Number of windows along an axis.
pub(super) fn extent(o: &PoolOptions, axis: usize, size: usize) -> Result<usize, String> {
    let (before, after) = (o.padding[axis], o.padding[axis + 2]);
    let (kernel, stride, dilation) = (o.kernel[axis], o.stride[axis], o.dilation[axis]);
    let large = [size, before, after, kernel, stride, dilation].into_iter().any(|x| x > 1 << 15);
    if kernel == 0 || stride == 0 || dilation == 0 || large {
        return Err(format!("kernel, stride and dilation must be 1 to 32768, and sizes at most that, found {o:?}"));
    }
    let reach = dilation * (kernel - 1) + 1;
    let padded = size + before + after;
    if padded < reach || before >= reach || after >= reach {
        return Err(format!("window of {reach} pixels does not fit {size} pixels padded by {before} and {after}"));
    }
    let room = padded - reach;
    let floor = room / stride + 1;
    // A window that would begin in the padding after the end is left out.
    Ok(match o.ceil && room.div_ceil(stride) * stride < size + before {
        true => room.div_ceil(stride) + 1,
        false => floor,
    })
}

impl Operator for Pool {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let [n, h, w, c] = nhwc("input", inputs[0])?;
        let [oh, ow] = match &self.windows {
            Windows::Sliding(o) => [extent(o, 0, h)?, extent(o, 1, w)?],
            Windows::Adaptive(size) => *size,
        };
        if [oh, ow, h, w].into_iter().any(|n| n == 0 || n > 1 << 15) {
            return Err(format!("heights and widths must be 1 to 32768, found {h} by {w} pooled to {oh} by {ow}"));
        }
        Ok(TensorDesc::new([n, oh, ow, c], inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, c] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, _] = nhwc("result", cx.output_desc()).expect("made by infer");
        if self.takes_all([h, w]) {
            let reduction = if self.reduce == PoolKind::Max { Reduction::Max } else { Reduction::Mean };
            return Reduce { reduction, first: 1, end: 3 }.lower(cx);
        }
        let (unit, v, elem) = match (c.is_multiple_of(4), cx.desc(0).dtype) {
            (true, DType::F16) => (4, "vec4<f32>", "vec4<f16>"),
            (true, _) => (4, "vec4<f32>", "vec4<f32>"),
            (false, dtype) => (1, "f32", dtype.wgsl()),
        };
        let (o, adaptive) = match self.windows {
            Windows::Sliding(o) => (o, false),
            Windows::Adaptive(_) => (PoolOptions::square(1), true),
        };
        let run = run(cx.target(), c / unit, 4);
        let count = cx.output_desc().shape.elements() / unit / run;
        let include_pad = self.reduce == PoolKind::Mean { include_pad: true } && !adaptive;
        let mut kernel = Kernel::new("pool")
            .constant("MAX", self.reduce == PoolKind::Max)
            .constant("ADAPTIVE", adaptive)
            .constant("RUN", format!("{run}u"))
            .alias("V", v)
            .alias("Elem", elem);
        if unit == 4 && cx.prefers_texels(cx.desc(0)) {
            cx.texels("src_texture", cx.input(0), cx.desc(0));
            kernel = kernel.function("load", LOAD_TEXEL);
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("runs", (c / unit / run).into()),
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
                ("bottom", o.padding[2].into()),
                ("right", o.padding[3].into()),
                ("include_pad", u32::from(include_pad).into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        match self.windows {
            Windows::Sliding(o) => (output.shape.elements() * o.kernel[0] * o.kernel[1]) as u64,
            Windows::Adaptive(_) => inputs[0].shape.elements().max(output.shape.elements()) as u64,
        }
    }
}

impl Pool {
    /// Whether there is one window, and all pixels are in it: that is better spread over threads by a reduction.
    fn takes_all(&self, size: [usize; 2]) -> bool {
        match &self.windows {
            Windows::Sliding(o) => o.kernel == size && o.padding == [0; 4] && o.dilation == [1; 2],
            Windows::Adaptive(out) => *out == [1; 2],
        }
    }
}


impl Graph {
    /// The maximum of each window of `x` `[n, h, w, c]`.
    pub fn max_pool(&mut self, x: ValueId, options: PoolOptions) -> Result<ValueId> {
        self.push(Pool { reduce: PoolKind::Max, windows: Windows::Sliding(options) }, &[x])
    }

    /// The mean of each window of `x` `[n, h, w, c]`; with `include_pad` the padding counts as zeros.
    pub fn average_pool(&mut self, x: ValueId, options: PoolOptions, include_pad: bool) -> Result<ValueId> {
        self.push(Pool { reduce: PoolKind::Mean { include_pad }, windows: Windows::Sliding(options) }, &[x])
    }

    /// `x` pooled to `size` (height, width) by windows that cover it evenly.
    pub fn adaptive_pool(&mut self, x: ValueId, size: [usize; 2], reduce: PoolKind) -> Result<ValueId> {
        self.push(Pool { reduce, windows: Windows::Adaptive(size) }, &[x])
    }

    /// `x` `[n, h, w, c]` pooled over all pixels: `[n, 1, 1, c]`.
    pub fn global_pool(&mut self, x: ValueId, reduce: PoolKind) -> Result<ValueId> {
        self.adaptive_pool(x, [1, 1], reduce)
    }
}
