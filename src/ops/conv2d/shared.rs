//! A convolution as one product whose sides workgroups bring into their memory.

use std::fmt;

use super::Conv2d;
use super::product::{FEW, Product, TRIED, parts_of};
use super::tiles::{LOAD_SCALARS, unsigned};
use crate::lower::Lower;
use crate::ops::matrices::enough;
use crate::shader::Kernel;
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, TensorDesc};

/// A workgroup's part of the product, `rows` pixels × `columns` channels of the result, `depth` channels of a tap at a time,
/// of which each thread holds `held` pixels × `quads` quads of channels; and into how many parts the sums are cut besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub held: usize,
    pub quads: usize,
    pub parts: usize,
}

/// The largest first. On an H200 a product of 4096³ runs at 40, 35 and 32 TFLOP/s with them, of 63 that multiply-adds alone
/// reach; tiles that are long one way, 16 × 8 or 8 × 16 numbers for a thread, and two rooms for steps were slower.
const TILES: [Shared; 3] = [
    Shared { rows: 128, columns: 128, depth: 16, held: 8, quads: 2, parts: 1 },
    Shared { rows: 64, columns: 64, depth: 16, held: 8, quads: 2, parts: 1 },
    Shared { rows: 32, columns: 32, depth: 16, held: 4, quads: 1, parts: 1 },
];

/// Fewer channels than this leave too much of a step empty.
const LEAST_CHANNELS: usize = 8;

impl Shared {
    fn threads(&self) -> usize {
        self.rows / self.held * self.columns / (4 * self.quads)
    }

    fn fits(&self, target: &Target) -> bool {
        let memory = (self.rows * (self.depth + 4) + self.depth * self.columns) * size_of::<f32>();
        self.threads() <= target.max_invocations as usize && memory <= target.shared_memory as usize
    }

    fn count(&self, pixels: usize, channels: usize) -> usize {
        pixels.div_ceil(self.rows) * channels.div_ceil(self.columns)
    }
}

impl Conv2d {
    /// Whether the method computes this convolution, and is worth it.
    pub(crate) fn allows_shared(&self) -> bool {
        self.options.groups == 1 && self.c_in >= LEAST_CHANNELS && self.c_out >= LEAST_CHANNELS
    }

    /// What the device can take, the largest part for a workgroup first; all half as deep where there is little memory, since
    /// sums are to be cut at the same places whichever tile it is.
    fn shared_tiles(&self, target: &Target) -> Vec<Shared> {
        if target.class == DeviceClass::Cpu || !self.allows_shared() {
            return Vec::new();
        }
        let half = |tile: Shared| Shared { depth: tile.depth / 2, ..tile };
        let tiles = if TILES[0].fits(target) { TILES } else { TILES.map(half) };
        tiles.into_iter().filter(|tile| tile.fits(target)).collect()
    }

    /// All that are worth measuring.
    pub(super) fn all_shared(&self, target: &Target, output: &TensorDesc) -> Vec<Shared> {
        let tiles = self.shared_tiles(target);
        let pixels: usize = self.extent(output).iter().product();
        let few = tiles.iter().filter(|tile| tile.count(pixels, self.c_out) < FEW);
        let cut = few.flat_map(|&tile| {
            TRIED.into_iter().filter_map(move |parts| {
                let parts = self.cut(target, output, tile.depth, parts)?;
                Some(Shared { parts, ..tile })
            })
        });
        tiles.iter().copied().chain(cut).collect()
    }

    /// The largest parts of which there are enough to keep the device busy, with sums cut where even the second smallest are
    /// too few in one sample.
    pub(super) fn choose_shared(&self, target: &Target, output: &TensorDesc) -> Option<Shared> {
        let tiles = self.shared_tiles(target);
        let pixels: usize = self.extent(output).iter().product();
        let enough = enough(target)?;
        let usual = tiles.iter().rev().nth(1).or(tiles.first())?;
        let of_one = output.shape[1] * output.shape[2];
        let parts = match of_one {
            // Rows of a linear layer, which may be of one sample or of many.
            1 => 1,
            _ => parts_of(self.steps(usual.depth), enough.div_ceil(usual.count(of_one, self.c_out))),
        };
        let wanted = enough.div_ceil(parts);
        let tile = tiles.iter().find(|tile| tile.count(pixels, self.c_out) >= wanted).or(tiles.last())?;
        let parts = self.cut(target, output, tile.depth, parts).unwrap_or(1);
        Some(Shared { parts, ..*tile })
    }
}

/// Pixels × channels × depth.
impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.rows, self.columns, self.depth)?;
        if self.parts > 1 {
            write!(f, " in {}", self.parts)?;
        }
        Ok(())
    }
}

pub fn lower(conv: &Conv2d, tile: Shared, cx: &mut Lower) {
    let (scalar, quad) = match cx.output_desc().dtype {
        DType::F16 => ("f16", "vec4<f16>"),
        _ => ("f32", "vec4<f32>"),
    };
    let threads = tile.threads();
    let mut kernel = Kernel::new("conv2d_shared")
        .constant("UPSAMPLE", unsigned(conv.upsample))
        .constant("ROWS", unsigned(tile.rows))
        .constant("COLUMNS", unsigned(tile.columns))
        .constant("DEPTH", unsigned(tile.depth))
        .constant("HELD", unsigned(tile.held))
        .constant("QUADS", unsigned(tile.quads))
        .constant("THREADS", unsigned(threads))
        .constant("PATCHES", unsigned(tile.columns / (32 * tile.quads)))
        .constant("LOADS_LEFT", unsigned(tile.rows * tile.depth / 4 / threads))
        .constant("LOADS_RIGHT", unsigned(tile.depth * tile.columns / 4 / threads))
        .alias("Weight", quad);
    kernel = match conv.c_in.is_multiple_of(4) {
        true => kernel.alias("Src", quad),
        false => kernel.alias("Src", scalar).function("load", LOAD_SCALARS),
    };
    let product = Product { rows: tile.rows, columns: tile.columns, depth: tile.depth, parts: tile.parts };
    product.lower(conv, kernel, ("quads_in", conv.c_in.div_ceil(4)), cx);
}
