//! Lowering where every channel has a filter of its own.

use super::{Conv2d, direct};
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::shader::Kernel;
use crate::tensor::DType;

pub fn lower(conv: &Conv2d, cx: &mut Lower) {
    let output = cx.output_desc();
    let quad = match output.dtype {
        DType::F16 => "vec4<f16>",
        _ => "vec4<f32>",
    };
    let kernel = Kernel::new("conv2d_depthwise").alias("Quad", quad);
    let kernel = conv.epilogue.splice(kernel, Width::Quads);
    let mut params = direct::params(conv, cx);
    params.push(("quads_out", (conv.c_out / 4).into()));
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(output.shape.elements() / 4));
}
