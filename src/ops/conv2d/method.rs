//! How a convolution is computed on a device.

use super::Conv2d;
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
        let tile = self.tile(target, output);
        match self.allows_texels(target, source, output) {
            true => Method::Texels(tile),
            false => Method::Rows(tile),
        }
    }

    fn tile(&self, target: &Target, output: &TensorDesc) -> Tile {
        let [n, height, width] = self.extent(output);
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
    pub(super) fn extent(&self, output: &TensorDesc) -> [usize; 3] {
        let [n, height, width] = [output.shape[0], output.shape[1], output.shape[2]];
        match self.is_pointwise() {
            true => [1, 1, n * height * width],
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

    /// Whether to read through textures: only where buffers are slow and the work is worth the copy.
    fn allows_texels(&self, target: &Target, source: &TensorDesc, output: &TensorDesc) -> bool {
        let taps = self.kernel[0] * self.kernel[1];
        let flops = 2 * output.shape.elements() * self.c_in / self.options.groups * taps;
        let mut whole = source.shape.to_vec();
        whole[3] = whole[3].next_multiple_of(4);
        let weights = taps * self.c_in.next_multiple_of(4) * self.c_out.next_multiple_of(64);
        output.dtype == DType::F32
            && target.reads_texels(&TensorDesc::new(whole, source.dtype))
            && target.reads_texels(&TensorDesc::new([weights], DType::F32))
            && flops >= if self.c_in.is_multiple_of(4) { 1 << 20 } else { 1 << 22 }
    }

    /// How the weight must be repacked for a method, if at all.
    pub fn packing(&self, method: Method) -> Option<ConvWeight> {
        match method {
            Method::Rows(tile) | Method::Texels(tile) => {
                Some(ConvWeight::Tiles { taps: self.taps_written_out(), quads: tile.quads })
            }
            Method::Depthwise => Some(ConvWeight::Depthwise),
            Method::Direct => None,
        }
    }
}

/// Size of the parts when `n` is cut into as few as possible of at most `limit` each, as even as can be.
pub(super) fn even_part(n: usize, limit: usize) -> usize {
    n.div_ceil(n.div_ceil(limit.max(1)))
}
