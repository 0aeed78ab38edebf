//! A convolution as one product of cooperative matrices.

use std::fmt;

use super::Conv2d;
use super::product::{FEW, MOST_PARTS, Product, TRIED};
use super::tiles::unsigned;
use crate::lower::Lower;
use crate::ops::matrices::{BYTE, Block, LAUNCH};
use crate::ops::waves::units;
use crate::target::Target;
use crate::tensor::{DType, TensorDesc};

/// A part for each workgroup, and into how many the sums are cut besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub block: Block,
    pub parts: usize,
}

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
            TRIED.into_iter().filter_map(move |parts| self.blocks_cut(target, output, block, parts))
        });
        blocks.iter().map(|&block| Blocks { block, parts: 1 }).chain(cut).collect()
    }

    /// The block and the number of parts that take least by a model. Into how many parts sums are cut, and where, does not depend on
    /// how many samples there are, since a picture is the same to the bit however many are computed with it: it is what suits
    /// one sample, or two as guidance computes them, best.
    pub(super) fn choose_blocks(&self, target: &Target, output: &TensorDesc) -> Option<Blocks> {
        if !self.allows_matrices(output.dtype, 1) {
            return None;
        }
        let cut = self.choose_cut(target, output, output.shape[1] * output.shape[2])?;
        if cut.parts > 1 {
            return Some(cut);
        }
        let pixels: usize = self.extent(output).iter().product();
        let taps = self.kernel[0] * self.kernel[1];
        let block = Block::choose(target, output.dtype, [pixels, self.c_out], self.c_in, 1, taps)
            .filter(|block| self.allows_matrices(output.dtype, block.side))?;
        Some(Blocks { block, parts: 1 })
    }

    fn choose_cut(&self, target: &Target, output: &TensorDesc, of_one: usize) -> Option<Blocks> {
        let units = units(target)?;
        let blocks: Vec<Block> = Block::all(target, output.dtype, self.c_in).collect();
        let side = blocks.first()?.side;
        let own_side = blocks.into_iter().filter(|block| block.side == side);
        let cut = own_side.filter(|block| self.allows_matrices(output.dtype, block.side)).flat_map(|block| {
            let parts = (2..=MOST_PARTS).filter_map(move |parts| self.cut(target, output, block.depth, parts));
            std::iter::once(1).chain(parts).map(move |parts| Blocks { block, parts })
        });
        let time = |&Blocks { block, parts }: &Blocks, samples: usize| {
            let steps = self.steps(block.depth).div_ceil(parts);
            let time = block.time(units, parts * block.count(samples * of_one, self.c_out), steps);
            let added = |parts: usize| LAUNCH + BYTE * (2 * size_of::<f32>() * parts * samples * of_one * self.c_out) as f64;
            time + if parts > 1 { added(parts) } else { 0.0 }
        };
        let both = |blocks: &Blocks| time(blocks, 1) + 2.0 * time(blocks, 2);
        cut.min_by(|a, b| both(a).total_cmp(&both(b)))
    }

    fn blocks_cut(&self, target: &Target, output: &TensorDesc, block: Block, parts: usize) -> Option<Blocks> {
        let parts = self.cut(target, output, block.depth, parts)?;
        Some(Blocks { block, parts })
    }
}

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
    let mut kernel = block
        .kernel("conv2d_matrices", cx.target(), [false, false])
        .constant("UPSAMPLE", unsigned(conv.upsample))
        .constant("POINTWISE", conv.is_pointwise())
        .constant("WHOLE", conv.c_in.is_multiple_of(block.depth));
    if !conv.c_in.is_multiple_of(8) {
        kernel = kernel.alias("Src", "f16").function("load", LOAD_HALVES);
    }
    let product = Product { rows: block.rows(), columns: block.columns(), depth: block.depth, parts };
    product.lower(conv, kernel, ("eights_in", conv.c_in.div_ceil(8)), cx);
}

const LOAD_HALVES: &str = "fn load(pixel: u32, eight: u32) -> Eight {
    var v: array<vec4<f16>, 2>;
    let first = eight * 8u;
    for (var t = 0u; t < min(8u, P.c_in - first); t++) {
        v[t / 4u][t % 4u] = src[pixel * P.c_in + first + t];
    }
    return eight_of(v[0], v[1]);
}";

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
        // Large enough in one sample.
        assert_eq!(chosen(&conv(320, 3), [1, 64, 64, 320]).parts, 1);
        // Rows of a linear layer: of a sample each, of a sample together, and too many for samples.
        let linear = conv(1280, 1);
        let of_one = chosen(&linear, [1, 1, 1, 1280]);
        assert!(of_one.parts > 1, "{of_one}");
        assert_eq!(chosen(&linear, [64, 1, 1, 1280]).parts, of_one.parts);
        assert_eq!(chosen(&linear, [1, 1024, 1, 1280]).parts, 1);
        assert_eq!(chosen(&linear, [1024, 1, 1, 1280]).parts, 1);
    }

    #[test]
    fn every_part_has_a_step() {
        let (device, output) = (device(), TensorDesc::new([1, 4, 4, 40], DType::F16));
        let conv = conv(40, 3);
        let all = conv.all_blocks(&device, &output);
        assert!(all.iter().any(|blocks| blocks.parts > 1));
        for Blocks { block, parts } in all {
            let steps = conv.steps(block.depth);
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
