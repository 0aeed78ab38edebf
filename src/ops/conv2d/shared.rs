//! A convolution as one product whose sides workgroups bring into their memory.

use std::fmt;

use super::Conv2d;
use super::product::{FEW, MOST_PARTS, Product, TRIED};
use super::tiles::unsigned;
use crate::lower::Lower;
use crate::ops::waves::{Pace, units};
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

/// The largest first. On an H200 a linear layer of 320 → 2560 channels for 8192 rows runs at 37, 30 and 20 TFLOP/s with the first,
/// third and last, of 63 that multiply-adds alone reach; 128 × 128 numbers, 16 × 8 of them for a thread, steps of 32 and two rooms
/// for steps were slower.
pub(super) const TILES: [Shared; 4] = [
    Shared { rows: 64, columns: 128, depth: 16, held: 8, quads: 2, parts: 1 },
    Shared { rows: 128, columns: 64, depth: 16, held: 8, quads: 2, parts: 1 },
    Shared { rows: 64, columns: 64, depth: 16, held: 4, quads: 1, parts: 1 },
    Shared { rows: 32, columns: 32, depth: 16, held: 4, quads: 1, parts: 1 },
];

/// Shares of the peak that they reach, such that a convolution of 320 channels at 32×32 takes its 75 µs there, and how many a unit
/// computes at a time.
const PACES: [Pace; 4] = [
    Pace { rate: 0.55, at_a_time: 3 },
    Pace { rate: 0.53, at_a_time: 3 },
    Pace { rate: 0.45, at_a_time: 4 },
    Pace { rate: 0.30, at_a_time: 8 },
];

/// Operations of a unit at its peak, in the time in which a workgroup begins, in that in which it writes a result, in that of a launch,
/// and in that of a byte that all units move together.
const BEGIN: f64 = 0.1e6;
const RESULT: f64 = 60.0;
const LAUNCH: f64 = 2.5e6;
const BYTE: f64 = 0.13;

/// Fewer channels than this leave too much of a step empty.
const LEAST_CHANNELS: usize = 8;

impl Shared {
    fn pace(&self) -> Pace {
        let own = |other: &Shared| Shared { parts: 1, ..*self } == *other;
        TILES.iter().position(own).map_or(PACES[0], |at| PACES[at])
    }

    /// Of the peak, that it reaches where its columns are all channels.
    pub(super) fn share(&self) -> f64 {
        self.pace().rate
    }

    /// Time of so many workgroups with so many steps each, in operations of a unit at its full rate.
    fn time(&self, units: usize, workgroups: usize, steps: usize) -> f64 {
        let results = self.rows * self.columns;
        let operations = (2 * results * self.depth * steps) as f64;
        self.pace().time(units, workgroups, operations + BEGIN + RESULT * results as f64)
    }

    fn threads(&self) -> usize {
        self.rows / self.held * self.columns / (4 * self.quads)
    }

    /// The kernel with what it must know of the tile.
    pub(in crate::ops) fn constants(&self, kernel: Kernel) -> Kernel {
        let threads = self.threads();
        kernel
            .constant("ROWS", unsigned(self.rows))
            .constant("COLUMNS", unsigned(self.columns))
            .constant("DEPTH", unsigned(self.depth))
            .constant("HELD", unsigned(self.held))
            .constant("QUADS", unsigned(self.quads))
            .constant("THREADS", unsigned(threads))
            .constant("PATCHES", unsigned(self.columns / (32 * self.quads)))
            .constant("LOADS_LEFT", unsigned(self.rows * self.depth / 4 / threads))
            .constant("LOADS_RIGHT", unsigned(self.depth * self.columns / 4 / threads))
    }

    pub(in crate::ops) fn fits(&self, target: &Target) -> bool {
        let memory = (self.rows * (self.depth + 4) + self.depth * self.columns) * size_of::<f32>();
        self.threads() <= target.max_invocations as usize && memory <= target.shared_memory as usize
    }

    pub(in crate::ops) fn count(&self, pixels: usize, channels: usize) -> usize {
        pixels.div_ceil(self.rows) * channels.div_ceil(self.columns)
    }
}

impl Conv2d {
    /// Whether the method computes this convolution, and is worth it.
    pub(crate) fn allows_shared(&self) -> bool {
        self.options.groups == 1 && self.c_in >= LEAST_CHANNELS && self.c_out >= LEAST_CHANNELS
    }

    /// What the device can take, the largest part for a workgroup first.
    fn shared_tiles(&self, target: &Target) -> Vec<Shared> {
        if target.class == DeviceClass::Cpu || !self.allows_shared() {
            return Vec::new();
        }
        TILES.into_iter().filter(|tile| tile.fits(target)).collect()
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

    /// The tile and the number of parts that take least by a model. As for cooperative matrices, the number of parts is what suits
    /// one sample, or two, best, whatever the number of samples; tiles make no difference to the result.
    pub(super) fn choose_shared(&self, target: &Target, output: &TensorDesc) -> Option<Shared> {
        let units = units(target)?;
        let tiles = self.shared_tiles(target);
        let time = |tile: &Shared, pixels: usize| {
            let parts = tile.parts;
            let steps = self.steps(tile.depth).div_ceil(parts);
            let time = tile.time(units, parts * tile.count(pixels, self.c_out), steps);
            let added = LAUNCH + BYTE * (2 * size_of::<f32>() * parts * pixels * self.c_out) as f64;
            time + if parts > 1 { added } else { 0.0 }
        };
        let of_one = output.shape[1] * output.shape[2];
        let cut = |&tile: &Shared| {
            let parts = (2..=MOST_PARTS).filter_map(move |parts| self.cut(target, output, tile.depth, parts));
            std::iter::once(1).chain(parts).map(move |parts| Shared { parts, ..tile })
        };
        let both = |tile: &Shared| time(tile, of_one) + 2.0 * time(tile, 2 * of_one);
        let parts = tiles.iter().flat_map(cut).min_by(|a, b| both(a).total_cmp(&both(b)))?.parts;
        let pixels: usize = self.extent(output).iter().product();
        let own = tiles.into_iter().map(|tile| Shared { parts, ..tile });
        own.min_by(|a, b| time(a, pixels).total_cmp(&time(b, pixels)))
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
    let mut kernel = tile
        .constants(Kernel::new("conv2d_shared"))
        .constant("EAGER", tile != Shared { parts: tile.parts, ..TILES[TILES.len() - 1] })
        .constant("UPSAMPLE", unsigned(conv.upsample))
        .constant("POINTWISE", conv.is_pointwise())
        .constant("WHOLE", conv.c_in.is_multiple_of(tile.depth))
        .alias("Weight", quad);
    kernel = match conv.c_in.is_multiple_of(4) {
        true => kernel.alias("Src", quad),
        false => kernel.alias("Src", scalar).function("load", LOAD_NUMBERS),
    };
    let product = Product { rows: tile.rows, columns: tile.columns, depth: tile.depth, parts: tile.parts };
    product.lower(conv, kernel, ("quads_in", conv.c_in.div_ceil(4)), cx);
}

const LOAD_NUMBERS: &str = "fn load(pixel: u32, quad: u32) -> vec4<f32> {
    var v = vec4<f32>(0.0);
    for (var t = 0u; t < min(4u, P.c_in - quad * 4u); t++) {
        v[t] = f32(src[pixel * P.c_in + quad * 4u + t]);
    }
    return v;
}";

#[cfg(test)]
mod tests {
    use super::super::Conv2dOptions;
    use super::*;
    use crate::ops::epilogue::Epilogue;

    /// Where there is work enough for all tiles, one whose columns are channels.
    #[test]
    fn columns_are_filled() {
        let target = Target::typical();
        for (c_out, columns) in [(8, 32), (24, 32), (32, 32), (48, 64), (64, 64), (96, 128), (128, 128), (320, 64)] {
            let conv = Conv2d {
                options: Conv2dOptions::padded(1),
                kernel: [3, 3],
                c_in: 32,
                c_out,
                products: 9 * 32,
                upsample: 1,
                epilogue: Epilogue::default(),
                method: None,
            };
            let output = TensorDesc::new([1, 512, 512, c_out], DType::F32);
            let tile = conv.choose_shared(&target, &output).unwrap();
            assert_eq!((tile.columns, tile.parts), (columns, 1), "{c_out} channels: {tile}");
        }
    }
}
