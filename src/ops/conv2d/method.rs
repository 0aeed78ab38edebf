//! How a convolution is computed on a device.

use super::Conv2d;
use super::matrices::Blocks;
use super::shared::Shared;
use super::winograd::{Products, Squares};
use crate::ops::ConvWeight;
use crate::ops::quantized::{BLOCK, BlockFormat};
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
    /// Through the points of Winograd's convolution. 3×3 kernels of stride one, channels in multiples of four, f32.
    Winograd { squares: Squares, products: Products },
    /// A part of the product in each workgroup, which brings both sides into its memory, on GPUs. One group.
    Shared(Shared),
    /// Products of cooperative matrices, on devices that have them. f16, one group.
    Matrices(Blocks),
    /// A tile in each thread, with a weight in blocks of small integers, in a buffer; the source in a buffer or, on
    /// software adapters, read through a texture.
    Blocks { tile: Tile, format: BlockFormat, texels: bool },
    /// One quad of channels of one pixel in each thread, for `groups == c_in == c_out`, a multiple of four.
    Depthwise,
    /// One result in each thread. Any convolution.
    Direct,
}

/// What Winograd's way would give and take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtPoints {
    pub method: Method,
    /// What the plain way costs and what this one does, of one sample, as their device counts: [`Conv2d::cost_of_lanes`],
    /// [`Conv2d::plain_on_gpu`].
    plain: usize,
    cost: usize,
    /// Whether the model knows enough of such convolutions.
    known: bool,
    /// That the weight takes beyond its size.
    pub bytes: u64,
}

impl AtPoints {
    /// Whether it is taken where nothing was measured: the costs are estimates.
    pub fn is_quicker(&self) -> bool {
        self.known && 4 * self.cost < 3 * self.plain
    }

    /// What it saves by the model of costs, or, where it was measured to be quicker whatever the model says, a quarter at least.
    pub fn saved(&self) -> usize {
        self.plain.saturating_sub(self.cost).max(self.plain / 4)
    }
}

/// Lanes of a CPU's vector unit, as software adapters use it.
pub(super) const LANES: usize = 8;

/// What fetching a texel costs there in multiply-adds.
pub(super) const FETCH: usize = 25;

/// Fewer numbers than this are not worth their error.
const LEAST_IN_BLOCKS: usize = 1 << 12;

/// With fewer channels the way saves a GPU little by the model, whose tiles are half empty then; and networks for pictures, which are
/// narrow, would have tiles that look three times as far.
const LEAST_CHANNELS: usize = 96;

/// Most products of a quad in the innermost loop, which the caches for instructions must hold.
pub(super) const MOST_WRITTEN_OUT: usize = 16 * 4 * 4;

/// Most quads of output channels of a CPU's tile, the usual number first. Of a product, tiles of 8 pixels × 8 quads take 0.80
/// to 0.95 of the time of 16 × 4, for a third fewer fetches.
pub(super) const QUADS: [usize; 3] = [4, 8, 16];

/// With more than the usual number, most quads of results in a tile, and fewest workgroups: all cores are to have work.
const MOST_HELD: usize = 64;
const LEAST_WORKGROUPS: usize = 16;

impl Conv2d {
    /// The best method for a device; its weight in blocks of this format, if it is to be and large enough.
    pub fn choose(
        &self,
        target: &Target,
        source: &TensorDesc,
        output: &TensorDesc,
        format: Option<BlockFormat>,
    ) -> Method {
        let groups = self.options.groups;
        if let Some(format) = format
            && groups == 1
            && self.c_in >= BLOCK
            && self.c_in.is_multiple_of(4)
            && self.c_in * self.c_out * self.kernel[0] * self.kernel[1] >= LEAST_IN_BLOCKS
        {
            let texels = target.reads_texels(source) && source.shape.elements() >= 1 << 13;
            return Method::Blocks { tile: self.narrow_tile(target, output), format, texels };
        }
        if groups > 1 {
            if groups == self.c_in && self.c_in == self.c_out && self.c_in.is_multiple_of(4) {
                return Method::Depthwise;
            }
            if !(self.c_in / groups).is_multiple_of(4) || !(self.c_out / groups).is_multiple_of(4) {
                return Method::Direct;
            }
        }
        if let Some(blocks) = self.choose_blocks(target, output) {
            return Method::Matrices(blocks);
        }
        if let Some(tile) = self.choose_shared(target, output) {
            return Method::Shared(tile);
        }
        match self.allows_texels(target, source, output) {
            true => Method::Texels(self.tile(target, output)),
            false => Method::Rows(self.narrow_tile(target, output)),
        }
    }

    /// A method that sums in the same order as another, which suits another size: the result is the same to the last bit
    /// where the source is. Whether source and weight are read through textures makes no difference.
    pub(crate) fn like(
        &self,
        method: Method,
        target: &Target,
        source: &TensorDesc,
        output: &TensorDesc,
        format: Option<BlockFormat>,
    ) -> Method {
        let tiles = |m: &Method| matches!(m, Method::Rows(_) | Method::Texels(_) | Method::Blocks { .. });
        match method {
            Method::Winograd { squares, products: Products::Lanes(_) } => {
                let (tile, _) = self.winograd_of_lanes(squares, output);
                Method::Winograd { squares, products: Products::Lanes(tile) }
            }
            // The tile of a workgroup makes no difference to its sums.
            Method::Winograd { .. } | Method::Depthwise | Method::Direct | Method::Shared(_) | Method::Matrices(_) => method,
            _ => match self.tuned(target, source, output, format).filter(tiles) {
                Some(method) => method,
                None => match self.choose(target, source, output, format) {
                    Method::Matrices(_) | Method::Shared(_) => Method::Rows(self.tile(target, output)),
                    method => method,
                },
            },
        }
    }

    /// Winograd's ways that the device can take, smaller squares first. `stored`: whether the host brings the weight into its
    /// order, so that no kernel writes it.
    pub(crate) fn at_points(
        &self,
        target: &Target,
        source: &TensorDesc,
        output: &TensorDesc,
        stored: bool,
    ) -> Vec<AtPoints> {
        if !self.allows_winograd(output.dtype) {
            return Vec::new();
        }
        // As for one sample: a picture is the same to the bit however many are computed with it.
        let mut one = output.shape.to_vec();
        one[0] = 1;
        let one = TensorDesc::new(one, output.dtype);
        let offers = Squares::ALL.into_iter();
        match target.class {
            DeviceClass::Cpu if !self.allows_texels(target, source, output) => Vec::new(),
            DeviceClass::Cpu => {
                offers.filter_map(|squares| self.at_points_of_lanes(squares, target, [output, &one], stored)).collect()
            }
            _ => offers.filter_map(|squares| self.at_points_of_gpu(squares, target, [output, &one])).collect(),
        }
    }

    fn at_points_of_lanes(
        &self,
        squares: Squares,
        target: &Target,
        [output, one]: [&TensorDesc; 2],
        stored: bool,
    ) -> Option<AtPoints> {
        let plain = self.cost_of_lanes(one, self.tile(target, one));
        let bound = target.max_binding.min(target.max_buffer);
        let (tile, _) = self.winograd_of_lanes(squares, output);
        let rows = Self::weight_at_points([self.c_in, self.c_out], squares, tile.quads);
        let weight = TensorDesc::new(rows, DType::F32);
        let fits = weight.bytes() <= if stored { target.max_buffer } else { bound }
            && self.band_bytes(squares, output) as u64 <= bound
            && target.reads_texels(&weight);
        let (_, cost) = self.winograd_of_lanes(squares, one);
        let method = Method::Winograd { squares, products: Products::Lanes(tile) };
        fits.then(|| AtPoints { method, plain, cost, known: true, bytes: self.bytes_at_points(squares) })
    }

    fn at_points_of_gpu(
        &self,
        squares: Squares,
        target: &Target,
        [output, one]: [&TensorDesc; 2],
    ) -> Option<AtPoints> {
        self.choose_shared(target, one)?;
        let plain = self.plain_on_gpu(target, one)?;
        let (_, cost) = self.winograd_of_gpu(squares, target, one)?;
        let (tile, _) = self.winograd_of_gpu(squares, target, output)?;
        let rows = Self::weight_at_points([self.c_in, self.c_out], squares, self.c_out / 4);
        let bound = target.max_binding.min(target.max_buffer);
        let fits = TensorDesc::new(rows, DType::F32).bytes().max(self.least_band_bytes(squares) as u64) <= bound;
        let method = Method::Winograd { squares, products: Products::Matrices(tile) };
        let known = self.c_in.min(self.c_out) >= LEAST_CHANNELS;
        fits.then(|| AtPoints { method, plain, cost, known, bytes: self.bytes_at_points(squares) })
    }

    /// Bytes that the weight takes at the points beyond its size.
    fn bytes_at_points(&self, squares: Squares) -> u64 {
        (self.c_in * self.c_out * size_of::<f32>() * (squares.area() - 9)) as u64
    }

    pub(super) fn tile(&self, target: &Target, output: &TensorDesc) -> Tile {
        match target.class {
            DeviceClass::Cpu => self.tile_of_lanes(output, &QUADS),
            _ => self.narrow_tile(target, output),
        }
    }

    /// Of no more than the usual number of quads of channels.
    fn narrow_tile(&self, target: &Target, output: &TensorDesc) -> Tile {
        if target.class == DeviceClass::Cpu {
            return self.tile_of_lanes(output, &QUADS[..1]);
        }
        let [n, height, width] = self.extent(output);
        // Narrow tiles, so that there are enough threads to fill a GPU.
        let (tile, most_quads) = match n * height * width * self.c_out.div_ceil(4) {
            0..0x4_0000 => (4, 1),
            _ => (8, 2),
        };
        let pixels = even_part(width, tile);
        let rows = if self.is_pointwise() { 1 } else { even_part(height, tile / pixels) };
        Tile { pixels, rows, quads: self.quads(if pixels * rows < 4 { 1 } else { most_quads }) }
    }

    /// Quads of output channels in a tile, at most so many.
    fn quads(&self, most: usize) -> usize {
        let quads_group = (self.c_out / self.options.groups).div_ceil(4);
        match self.options.groups {
            1 => even_part(quads_group, most),
            // No tile may reach into the next group.
            _ => (1..=most).rev().find(|q| quads_group.is_multiple_of(*q)).unwrap_or(1),
        }
    }

    /// Multiply-adds of a CPU's lane that the convolution costs with tiles like this, texels that are fetched among them:
    /// the larger the tile, the fewer; but lanes work in step, so that their tiles should come out even.
    pub(crate) fn cost_of_lanes(&self, output: &TensorDesc, tile: Tile) -> usize {
        let taps = self.taps_written_out();
        let columns = (tile.pixels - 1) * self.options.stride[1] + (taps - 1) * self.options.dilation[1] + 1;
        let products = 16 * tile.rows * tile.pixels * tile.quads * taps;
        let fetches = tile.rows * columns + 4 * taps * tile.quads / LANES;
        let groups = self.options.groups;
        let tiles_group = (self.c_out / groups).div_ceil(4 * tile.quads);
        let turns = self.kernel[0] * self.kernel[1] / taps * (self.c_in / groups).div_ceil(4);
        let tiles = self.tiles_of(output, tile).div_ceil(LANES) * groups * tiles_group;
        tiles * turns * (products + FETCH * fetches)
    }

    /// Tiles of pixels.
    fn tiles_of(&self, output: &TensorDesc, tile: Tile) -> usize {
        let [n, height, width] = self.extent(output);
        n * height.div_ceil(tile.rows) * width.div_ceil(tile.pixels)
    }

    /// The tile that costs the CPU's lanes least.
    pub(super) fn tile_of_lanes(&self, output: &TensorDesc, quads: &[usize]) -> Tile {
        let [_, height, width] = self.extent(output);
        let taps = self.taps_written_out();
        let most_rows = if self.is_pointwise() { 1 } else { height };
        let groups = self.options.groups;
        let quads: Vec<usize> = quads.iter().map(|&most| self.quads(most)).collect();
        let wide = |t: &Tile| {
            let columns = groups * (self.c_out / groups).div_ceil(4 * t.quads);
            t.pixels * t.rows * t.quads <= MOST_HELD
                && self.tiles_of(output, *t).div_ceil(LANES) * columns >= LEAST_WORKGROUPS
        };
        (1..=width.min(16))
            .flat_map(|pixels| (1..=most_rows.min(16 / pixels)).map(move |rows| (pixels, rows)))
            .flat_map(|(pixels, rows)| quads.iter().map(move |&quads| Tile { pixels, rows, quads }))
            .filter(|t| t.pixels * t.rows == 1 || t.pixels * t.rows * t.quads * taps <= MOST_WRITTEN_OUT)
            .filter(|t| t.quads == quads[0] || wide(t))
            .min_by_key(|&tile| (self.cost_of_lanes(output, tile), self.tiles_of(output, tile), tile.quads))
            .expect("a tile of one pixel")
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
    pub(super) fn allows_texels(&self, target: &Target, source: &TensorDesc, output: &TensorDesc) -> bool {
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
            Method::Winograd { squares, products } => {
                Some(ConvWeight::Winograd { squares, quads: products.quads(self.c_out) })
            }
            Method::Shared(Shared { columns, depth, .. }) => Some(ConvWeight::Matrices { columns, depth }),
            Method::Matrices(Blocks { block, .. }) => {
                Some(ConvWeight::Matrices { columns: block.columns(), depth: block.depth })
            }
            Method::Blocks { tile, format, .. } => {
                let taps = self.taps_written_out();
                Some(ConvWeight::Blocks { taps, quads: tile.quads, format })
            }
            Method::Depthwise => Some(ConvWeight::Depthwise),
            Method::Direct => None,
        }
    }
}

/// Size of the parts when `n` is cut into as few as possible of at most `limit` each, as even as can be.
pub(in crate::ops) fn even_part(n: usize, limit: usize) -> usize {
    n.div_ceil(n.div_ceil(limit.max(1)))
}
