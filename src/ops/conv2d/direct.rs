//! Lowering to one result in each thread.

use super::Conv2d;
use crate::lower::{Grid, Lower, elem};
use crate::ops::epilogue::Width;
use crate::shader::{Kernel, Param};

pub fn lower(conv: &Conv2d, cx: &mut Lower) {
    let output = cx.output_desc();
    let groups = conv.options.groups;
    let kernel = Kernel::new("conv2d_direct").alias("Elem", elem(output));
    let kernel = conv.epilogue.splice(kernel, Width::Scalars);
    let mut params = params(conv, cx);
    params.push(("c_in", conv.c_in.into()));
    params.push(("c_in_group", (conv.c_in / groups).into()));
    params.push(("c_out_group", (conv.c_out / groups).into()));
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(output.shape.elements()));
}

/// The parameters of the kernels that compute pixel by pixel.
pub(super) fn params(conv: &Conv2d, cx: &Lower) -> Vec<(&'static str, Param)> {
    let (source, output, o) = (&cx.desc(0).shape, &cx.output_desc().shape, &conv.options);
    vec![
        ("height", source[1].into()),
        ("width", source[2].into()),
        ("height_out", output[1].into()),
        ("width_out", output[2].into()),
        ("pixels_out", output[..3].iter().product::<usize>().into()),
        ("c_out", conv.c_out.into()),
        ("kernel_y", conv.kernel[0].into()),
        ("kernel_x", conv.kernel[1].into()),
        ("stride_y", o.stride[0].into()),
        ("stride_x", o.stride[1].into()),
        ("dilation_y", o.dilation[0].into()),
        ("dilation_x", o.dilation[1].into()),
        ("pad_top", o.padding[0].into()),
        ("pad_left", o.padding[1].into()),
    ]
}
