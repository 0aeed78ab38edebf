//! A convolution as one product of cooperative matrices.

use std::fmt;

use super::Conv2d;
use super::tiles::{LOAD_SCALARS, STORE_SCALARS, unsigned};
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::ops::matrices::{Block, enough};
use crate::shader::{Kernel, Param};
use crate::target::Target;
use crate::tensor::{DType, TensorDesc};

/// A part for each workgroup, and into how many the sums are cut besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub block: Block,
    pub parts: usize,
}

/// Most parts of a sum, and least steps in one.
const MOST_PARTS: usize = 16;
const LEAST_STEPS: usize = 8;

impl Conv2d {
    /// Whether the method computes this convolution, and fills matrices of this side.
    pub(crate) fn allows_matrices(&self, dtype: DType, side: usize) -> bool {
        self.options.groups == 1 && dtype == DType::F16 && self.c_in >= side && self.c_out >= side
    }

    /// What the device can take, the largest parts for workgroups first, then what is cut for few workgroups.
    pub(super) fn all_blocks(&self, target: &Target, output: &TensorDesc) -> Vec<Blocks> {
        let blocks: Vec<Block> = Block::all(target, output.dtype, self.c_in)
            .filter(|block| self.allows_matrices(output.dtype, block.side))
            .collect();
        let pixels: usize = self.extent(output).iter().product();
        let cut = blocks.iter().filter(|block| block.count(pixels, self.c_out) < FEW).flat_map(|&block| {
            [4, MOST_PARTS].into_iter().filter_map(move |parts| self.cut(target, output, block, parts))
        });
        blocks.iter().map(|&block| Blocks { block, parts: 1 }).chain(cut).collect()
    }

    pub(super) fn choose_blocks(&self, target: &Target, output: &TensorDesc) -> Option<Blocks> {
        let pixels = self.extent(output).iter().product();
        let block = Block::choose(target, output.dtype, [pixels, self.c_out], self.c_in, 1)
            .filter(|block| self.allows_matrices(output.dtype, block.side))?;
        let parts = self.parts(target, output, block.side);
        if parts == 1 {
            return Some(Blocks { block, parts });
        }
        let enough = enough(target)?.div_ceil(parts);
        let own_side = || Block::all(target, output.dtype, self.c_in).filter(|b| b.side == block.side);
        let block = own_side().find(|b| b.count(pixels, self.c_out) >= enough).or_else(|| own_side().last())?;
        self.cut(target, output, block, parts).or(Some(Blocks { block, parts: 1 }))
    }

    /// Into how many parts sums are cut: not at all where blocks that are not the smallest are enough. Of one sample, since a
    /// picture is the same to the bit however many are computed with it; rows of a linear layer, of which that cannot be
    /// known, stay whole.
    fn parts(&self, target: &Target, output: &TensorDesc, side: usize) -> usize {
        let pixels = output.shape[1] * output.shape[2];
        let Some(enough) = enough(target).filter(|_| pixels > 1) else { return 1 };
        let blocks: Vec<Block> =
            Block::all(target, output.dtype, self.c_in).filter(|block| block.side == side).collect();
        // The smallest fetches most for a product.
        let Some(block) = blocks.iter().rev().nth(1).or(blocks.first()) else { return 1 };
        let most = (self.steps(*block) / LEAST_STEPS).clamp(1, MOST_PARTS);
        enough.div_ceil(block.count(pixels, self.c_out)).min(most)
    }

    /// So many parts, or as many as have at least a step, if there is room for their sums.
    fn cut(&self, target: &Target, output: &TensorDesc, block: Block, parts: usize) -> Option<Blocks> {
        let steps = self.steps(block);
        let parts = steps.div_ceil(steps.div_ceil(parts));
        let room = self.bytes_of_parts(output, parts) <= target.max_binding.min(target.max_buffer);
        (parts > 1 && room).then_some(Blocks { block, parts })
    }

    fn bytes_of_parts(&self, output: &TensorDesc, parts: usize) -> u64 {
        let pixels: usize = output.shape[..3].iter().product();
        (parts * pixels * self.c_out.next_multiple_of(4) * size_of::<f32>()) as u64
    }

    /// Steps of a sum.
    fn steps(&self, block: Block) -> usize {
        self.kernel[0] * self.kernel[1] * self.c_in.div_ceil(block.depth)
    }
}

/// Workgroups, below which cutting sums is worth a trial on any device.
const FEW: usize = 256;

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.block)?;
        if self.parts > 1 {
            write!(f, " in {}", self.parts)?;
        }
        Ok(())
    }
}

pub fn lower(conv: &Conv2d, Blocks { block, parts }: Blocks, cx: &mut Lower) {
    let (source, output, o) = (cx.desc(0), cx.output_desc(), &conv.options);
    let [n, height_out, width_out] = conv.extent(output);
    let [height, width] = match conv.is_pointwise() {
        true => [height_out, width_out],
        false => [source.shape[1] * conv.upsample, source.shape[2] * conv.upsample],
    };
    let pixels = n * height_out * width_out;
    let (tiles_y, tiles_x) = (pixels.div_ceil(block.rows()), conv.c_out.div_ceil(block.columns()));
    let steps = conv.steps(block);
    let mut kernel = block
        .kernel("conv2d_matrices", cx.target(), [false, false])
        .constant("UPSAMPLE", unsigned(conv.upsample));
    if !conv.c_in.is_multiple_of(4) {
        kernel = kernel.alias("Src", "f16").function("load", load_halves());
    }
    let mut buffers = conv.buffers(cx);
    let kernel = match parts {
        1 => finished(conv, kernel),
        _ => {
            let bytes = conv.bytes_of_parts(output, parts);
            buffers.push(("partial", cx.scratch(bytes as usize)));
            kernel.function("finish", FINISH_PART)
        }
    };
    let common = |parts: usize| {
        let pixels_sample = output.shape[1] * output.shape[2];
        [
            ("parts", Param::from(parts)),
            ("pixels", pixels.into()),
            // Of the tensor, even when all pixels are taken as one row.
            ("pixels_sample", pixels_sample.into()),
            ("c_out", conv.c_out.into()),
            ("quads_out", conv.c_out.div_ceil(4).into()),
        ]
    };
    let mut params = vec![
        ("height", height.into()),
        ("width", width.into()),
        ("c_in", conv.c_in.into()),
        ("quads_in", conv.c_in.div_ceil(4).into()),
        ("height_out", height_out.into()),
        ("width_out", width_out.into()),
        ("tiles_x", tiles_x.into()),
        ("tiles", (tiles_y * tiles_x).into()),
        ("slices", conv.c_in.div_ceil(block.depth).into()),
        ("steps", steps.into()),
        ("steps_part", steps.div_ceil(parts).into()),
        ("kernel_x", conv.kernel[1].into()),
        ("stride_y", o.stride[0].into()),
        ("stride_x", o.stride[1].into()),
        ("dilation_y", o.dilation[0].into()),
        ("dilation_x", o.dilation[1].into()),
        ("pad_top", o.padding[0].into()),
        ("pad_left", o.padding[1].into()),
    ];
    params.extend(common(parts));
    cx.dispatch(kernel, &buffers, &params, Grid::Groups(parts * tiles_y * tiles_x));
    if parts > 1 {
        let quads = pixels * conv.c_out.div_ceil(4);
        let (_, partial) = buffers.pop().expect("it was put there");
        buffers[0] = ("src", partial);
        let kernel = finished(conv, Kernel::new("sum_parts").alias("Dst", "vec4<f16>"));
        cx.dispatch(kernel, &buffers, &common(parts), Grid::Threads(quads));
    }
}

/// The kernel with the epilogue, and the way in which results are written.
fn finished(conv: &Conv2d, kernel: Kernel) -> Kernel {
    match conv.c_out.is_multiple_of(4) {
        true => conv.epilogue.splice(kernel, Width::Quads),
        false => {
            let kernel = kernel.alias("Dst", "f16").function("store", STORE_SCALARS);
            conv.epilogue.splice(kernel, Width::QuadsOfScalars)
        }
    }
}

const FINISH_PART: &str = "fn finish(value: V, part: u32, pixel: u32, quad: u32) {
    partial[(part * P.pixels + pixel) * P.quads_out + quad] = value;
}";

/// [`LOAD_SCALARS`] without the way through f32.
fn load_halves() -> String {
    LOAD_SCALARS.replace("vec4<f32>", "vec4<f16>").replace("f32(src", "f16(src")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2dOptions, Method};
    use crate::ops::epilogue::Epilogue;
    use crate::target::Matrices;

    fn device() -> Target {
        let matrices = Some(Matrices { sides: vec![16, 8], subgroup_size: 32 });
        Target { matrices, ..Target::typical() }
    }

    fn conv(channels: usize, side: usize) -> Conv2d {
        Conv2d {
            options: Conv2dOptions::padded(side / 2),
            kernel: [side; 2],
            c_in: channels,
            c_out: channels,
            products: channels * side * side,
            upsample: 1,
            epilogue: Epilogue::default(),
            method: None,
        }
    }

    fn chosen(conv: &Conv2d, shape: [usize; 4]) -> Blocks {
        conv.choose_blocks(&device(), &TensorDesc::new(shape, DType::F16)).expect("f16 of many channels")
    }

    #[test]
    fn sums_are_cut_in_the_same_way_however_many_samples_there_are() {
        let small = conv(1280, 3);
        let of_one = chosen(&small, [1, 8, 8, 1280]);
        assert!(of_one.parts > 1, "{of_one}");
        for n in [2, 5, 32] {
            assert_eq!(chosen(&small, [n, 8, 8, 1280]).parts, of_one.parts);
        }
        // Large enough in one sample; rows of a linear layer, which may be of one sample or of many.
        assert_eq!(chosen(&conv(320, 3), [1, 64, 64, 320]).parts, 1);
        assert_eq!(chosen(&conv(1280, 1), [64, 1, 1, 1280]).parts, 1);
    }

    #[test]
    fn every_part_has_a_step() {
        let (device, output) = (device(), TensorDesc::new([1, 4, 4, 40], DType::F16));
        let conv = conv(40, 3);
        let all = conv.all_blocks(&device, &output);
        assert!(all.iter().any(|blocks| blocks.parts > 1));
        for Blocks { block, parts } in all {
            let steps = conv.steps(block);
            assert!((parts - 1) * steps.div_ceil(parts) < steps, "{parts} parts of {steps} steps");
        }
    }

    #[test]
    fn few_channels_and_f32_are_left_to_others() {
        let shape = [1, 32, 32, 32];
        let methods = |conv: &Conv2d, dtype| {
            let (source, output) = (TensorDesc::new(shape, dtype), TensorDesc::new(shape, dtype));
            conv.candidates(&device(), &source, &output, None)
        };
        let matrices = |methods: &[Method]| methods.iter().filter(|m| matches!(m, Method::Matrices(_))).count();
        assert!(matrices(&methods(&conv(32, 3), DType::F16)) > 0);
        assert_eq!(matrices(&methods(&conv(32, 3), DType::F32)), 0);
        let mut few = conv(32, 3);
        few.c_in = 3;
        assert_eq!(matrices(&methods(&few, DType::F16)), 0);
        let mut grouped = conv(32, 3);
        grouped.options.groups = 2;
        assert_eq!(matrices(&methods(&grouped, DType::F16)), 0);
    }
}
