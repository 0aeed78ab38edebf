//! How a convolution is computed on a device.

use super::Conv2d;
use crate::lower::TEXTURE_LINE;
use crate::ops::ConvWeight;
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, TensorDesc};

/// The results that one thread holds: `rows` × `pixels` neighbouring pixels × `quads` quads of output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub pixels: usize,
    pub rows: usize,
    pub quads: usize,
}

/// How a convolution is computed, and so the order of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A tile in each thread, source and weight in buffers. Any convolution whose groups,
    /// if there are several, have a multiple of four channels in and out.
    Rows(Tile),
    /// The same with source and weight read through textures, on software adapters. The source
    /// has channels of zeros up to a multiple of four.
    Texels(Tile),
    /// One quad of channels of one pixel in each thread, for `groups == c_in == c_out`, a multiple of four.
    Depthwise,
    /// One result in each thread. Any convolution.
    Direct,
}

impl Conv2d {
    /// The best method for a device.
    pub fn choose(&self, target: &Target, source: &TensorDesc, output: &TensorDesc) -> Method {
        let groups = self.options.groups;
        if groups > 1 {
            if groups == self.c_in && self.c_in == self.c_out && self.c_in.is_multiple_of(4) {
                return Method::Depthwise;
            }
            if !(self.c_in / groups).is_multiple_of(4) || !(self.c_out / groups).is_multiple_of(4) {
                return Method::Direct;
            }
        }
        let tile = self.tile(target, output, true);
        match self.allows_texels(target, source, output, tile) {
            true => Method::Texels(tile),
            false => Method::Rows(self.tile(target, output, false)),
        }
    }

    fn tile(&self, target: &Target, output: &TensorDesc, textured: bool) -> Tile {
        let [n, height, width] = self.extent(output, textured);
        // Wide tiles where arithmetic is bound by loads (the CPU); on a GPU
        // narrower ones, so that there are enough threads to fill it.
        let (tile, most_quads) = match target.class {
            DeviceClass::Cpu => (16, 4),
            _ if n * height * width * self.c_out.div_ceil(4) >= 1 << 18 => (8, 2),
            _ => (4, 1),
        };
        let pixels = even_part(width, tile);
        let rows = if self.is_pointwise() { 1 } else { even_part(height, tile / pixels) };
        let most_quads = if pixels * rows < 4 { 1 } else { most_quads };
        let quads_group = (self.c_out / self.options.groups).div_ceil(4);
        let quads = match self.options.groups {
            1 => even_part(quads_group, most_quads),
            // No tile may reach into the next group.
            _ => (1..=most_quads).rev().find(|q| quads_group.is_multiple_of(*q)).unwrap_or(1),
        };
        Tile { pixels, rows, quads }
    }

    /// Samples, rows and pixels in a row, as the kernel sees them: a 1×1
    /// convolution has no neighbours and may cut all pixels into rows as it likes.
    pub(super) fn extent(&self, output: &TensorDesc, textured: bool) -> [usize; 3] {
        let [n, height, width] = [output.shape[0], output.shape[1], output.shape[2]];
        let pixels = n * height * width;
        match self.is_pointwise() {
            true if textured => {
                let width = row_of_pixels(pixels);
                [1, pixels / width, width]
            }
            true => [1, 1, pixels],
            false => [n, height, width],
        }
    }

    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.options.stride == [1, 1]
            && self.options.padding == [0; 4]
            && self.upsample == 1
    }

    /// Taps side by side are written out in the kernel, unless they are too many.
    pub(super) fn taps_written_out(&self) -> usize {
        if self.kernel[1] <= 5 { self.kernel[1] } else { 1 }
    }

    /// Whether to read through textures: only where buffers are slow, the work is
    /// worth the copy, and the tensors have the shape of images.
    fn allows_texels(&self, target: &Target, source: &TensorDesc, output: &TensorDesc, tile: Tile) -> bool {
        let taps = self.kernel[0] * self.kernel[1];
        let flops = 2 * output.shape.elements() * self.c_in / self.options.groups * taps;
        let [width, height] = self.source_lines(source, output, true);
        let steps = self.kernel[1] / self.taps_written_out();
        let weight_lines = self.c_out.div_ceil(4 * tile.quads)
            * self.kernel[0]
            * steps
            * (self.c_in / self.options.groups).div_ceil(4);
        target.class == DeviceClass::Cpu
            && output.dtype == DType::F32
            && flops >= if self.c_in.is_multiple_of(4) { 1 << 20 } else { 1 << 22 }
            && (16 * width).is_multiple_of(TEXTURE_LINE)
            && width.max(height).max(weight_lines) <= target.max_texture as usize
    }

    /// Quads in a line of the source and number of lines.
    pub(super) fn source_lines(
        &self,
        source: &TensorDesc,
        output: &TensorDesc,
        textured: bool,
    ) -> [usize; 2] {
        let [n, height, width] = match self.is_pointwise() {
            true => self.extent(output, textured),
            false => [source.shape[0], source.shape[1], source.shape[2]],
        };
        [width * self.c_in.div_ceil(4), n * height]
    }

    /// How the weight must be repacked for a method, if at all.
    pub fn packing(&self, method: Method) -> Option<ConvWeight> {
        let tiles =
            |tile: Tile, align| ConvWeight::Tiles { taps: self.taps_written_out(), quads: tile.quads, align };
        match method {
            Method::Rows(tile) => Some(tiles(tile, 1)),
            Method::Texels(tile) => Some(tiles(tile, TEXTURE_LINE / 4)),
            Method::Depthwise => Some(ConvWeight::Depthwise),
            Method::Direct => None,
        }
    }
}

/// A length of row that divides the number of pixels, as long as can be up to a few tiles.
fn row_of_pixels(pixels: usize) -> usize {
    (1..=64).rev().find(|width| pixels.is_multiple_of(*width)).unwrap_or(1)
}

/// Size of the parts when `n` is cut into as few as possible of at most `limit` each, as even as can be.
fn even_part(n: usize, limit: usize) -> usize {
    n.div_ceil(n.div_ceil(limit.max(1)))
}
