//! A strided convolution over few channels becomes one over many: the first layer of most networks.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::conv2d::{Conv2d, Conv2dOptions};
use crate::ops::pad::PadMode;
use crate::ops::strided::Range;

/// More channels than this fill a quad, or several, well enough.
const FEW: usize = 4;

/// `stride × stride` neighbouring pixels become the channels of one, and the kernel shrinks as
/// much: 7×7 with stride 2 over 3 channels is 4×4 over 12, and cutting a picture into patches
/// is a matrix product. The kernel is filled up with zeros where the stride does not divide it.
pub fn unshuffle_stem(graph: &Graph) -> Result<Graph> {
    let constant = graph.constants();
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Conv2d(conv), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let o = &conv.options;
        let [stride, same] = o.stride;
        let plain = o.groups == 1 && o.dilation == [1; 2] && conv.upsample == 1 && stride == same;
        if !plain
            || stride < 2
            || stride > conv.kernel[0].min(conv.kernel[1])
            || conv.c_in > FEW
            || !constant[old[1].index()]
        {
            return new.keep(value, inputs);
        }
        let kernel = conv.kernel.map(|k| k.div_ceil(stride));
        let x = unshuffled(new, inputs[0], conv, stride, kernel, [value.desc.shape[1], value.desc.shape[2]])?;
        let weight = unshuffled_weight(new, inputs[1], conv, stride, kernel)?;
        let mut small = conv.clone();
        small.options = Conv2dOptions::default();
        small.kernel = kernel;
        small.c_in = conv.c_in * stride * stride;
        let mut inputs = inputs.to_vec();
        (inputs[0], inputs[1]) = (x, weight);
        new.push_named(value.name.clone(), small.into(), &inputs)
    })
}

/// `[n, h, w, c]` → `[n, h', w', stride² · c]`, padding and all that no window reaches cut off.
fn unshuffled(
    g: &mut Graph,
    x: ValueId,
    conv: &Conv2d,
    stride: usize,
    kernel: [usize; 2],
    out: [usize; 2],
) -> Result<ValueId> {
    let [n, h, w, c] = g.shape(x)[..] else { unreachable!("a convolution's source is [n, h, w, c]") };
    let [top, left, ..] = conv.options.padding;
    let cells = [out[0] + kernel[0] - 1, out[1] + kernel[1] - 1];
    let after = |i: usize, before: usize, size: usize| (cells[i] * stride).saturating_sub(before + size);
    let padding = [[0; 2], [top, after(0, top, h)], [left, after(1, left, w)], [0; 2]];
    let x = g.pad(x, &padding, PadMode::Constant(0.0))?;
    let part = |i: usize| Range { start: 0, stop: Some(cells[i] * stride), step: 1 };
    let x = match g.shape(x)[1..3] == [cells[0] * stride, cells[1] * stride] {
        true => x,
        false => g.slice(x, &[Range::all(), part(0), part(1), Range::all()])?,
    };
    let x = g.reshape(x, [n, cells[0], stride, cells[1], stride, c])?;
    let x = g.transpose(x, &[0, 1, 3, 2, 4, 5])?;
    g.reshape(x, [n, cells[0], cells[1], stride * stride * c])
}

/// `[c_out, c_in, kh, kw]` → `[c_out, stride² · c_in, kh', kw']`.
fn unshuffled_weight(
    g: &mut Graph,
    weight: ValueId,
    conv: &Conv2d,
    stride: usize,
    kernel: [usize; 2],
) -> Result<ValueId> {
    let more = [0, 1].map(|i| kernel[i] * stride - conv.kernel[i]);
    let weight = g.pad(weight, &[[0; 2], [0; 2], [0, more[0]], [0, more[1]]], PadMode::Constant(0.0))?;
    let weight = g.reshape(weight, [conv.c_out, conv.c_in, kernel[0], stride, kernel[1], stride])?;
    let weight = g.transpose(weight, &[0, 3, 5, 1, 2, 4])?;
    g.reshape(weight, [conv.c_out, stride * stride * conv.c_in, kernel[0], kernel[1]])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, weight};
    use super::*;

    fn kernel_of(g: &Graph) -> Conv2d {
        let found = g.values().find_map(|(_, v)| match &v.source {
            Source::Op { op: Op::Conv2d(conv), .. } => Some(conv.clone()),
            _ => None,
        });
        found.unwrap()
    }

    #[test]
    fn a_stem_takes_whole_cells() {
        for (k, stride, padding, small, c_in) in [(7, 2, 3, 4, 12), (3, 2, 1, 2, 12), (4, 4, 0, 1, 48)] {
            let mut g = Graph::new();
            let x = input(&mut g, &[1, 32, 32, 3]);
            let w = weight(&mut g, &[8, 3, k, k]);
            let y = g.conv2d(x, w, None, Conv2dOptions::padded(padding).stride(stride)).unwrap();
            g.output("y", y);
            let fused = unshuffle_stem(&g).unwrap();
            let conv = kernel_of(&fused);
            assert_eq!((conv.kernel, conv.c_in), ([small; 2], c_in));
            assert_eq!(g.flops(), fused.flops());
        }
    }

    #[test]
    fn others_stay() {
        let mut g = Graph::new();
        let x = input(&mut g, &[1, 32, 32, 16]);
        let w = weight(&mut g, &[8, 16, 3, 3]);
        let y = g.conv2d(x, w, None, Conv2dOptions::padded(1).stride(2)).unwrap();
        g.output("y", y);
        assert_eq!(kernel_of(&unshuffle_stem(&g).unwrap()).kernel, [3, 3]);
    }
}
