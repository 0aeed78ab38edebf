//! Winograd's convolution F(4 × 4, 3 × 3): four times fewer products for a kernel of 3 × 3.
//!
//! Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks": squares of the source and the kernel are
//! taken to [`POINTS`] × [`POINTS`] points, where the convolution is a matrix product at each, and the products back to
//! squares of [`RESULTS`] × [`RESULTS`] results. The three steps are launches of one operation; the kernel goes to the
//! points once, while the network is loaded.

use super::method::{FETCH, LANES, Tile, even_part};
use super::tiles::{self, unsigned};
use super::Conv2d;
use crate::lower::{Grid, Lower, Slot};
use crate::ops::epilogue::Width;
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, TensorDesc};

/// Results of a square, along a side.
const RESULTS: usize = 4;

/// Points along a side: results + kernel − 1.
pub(crate) const POINTS: usize = RESULTS + 2;

/// Bytes between the steps at a time: small enough to stay in a CPU's caches, large enough to read the weight rarely.
const BAND: usize = 32 << 20;

/// Most squares and most quads of output channels of a thread.
const MOST_PIXELS: usize = 16;
const MOST_QUADS: usize = 4;

/// What the first and the last step cost for a square and a quad of channels, in multiply-adds of a lane: 36 quads read
/// and written, at the cost of a fetch each, and what is done to them.
const STEPS: usize = 4000;

impl Conv2d {
    /// Whether the method computes this convolution at all.
    pub(crate) fn allows_winograd(&self, dtype: DType) -> bool {
        let o = &self.options;
        self.kernel == [3, 3]
            && o.stride == [1, 1]
            && o.dilation == [1, 1]
            && o.groups == 1
            && self.c_in.is_multiple_of(4)
            && self.c_out.is_multiple_of(4)
            && dtype == DType::F32
    }

    /// Squares of the result: in all, in a column, in a row.
    fn squares(output: &TensorDesc) -> [usize; 3] {
        let [down, across] = [1, 2].map(|i| output.shape[i].div_ceil(RESULTS));
        [output.shape[0] * down * across, down, across]
    }

    /// Squares that are under way at a time: all, or even parts.
    fn band(&self, squares: usize) -> usize {
        let most = (BAND / self.bytes_of_square()).next_multiple_of(256);
        even_part(squares, most).next_multiple_of(LANES).min(squares)
    }

    /// Bytes of a square at all points, of the source and of the result.
    fn bytes_of_square(&self) -> usize {
        POINTS * POINTS * (self.c_in + self.c_out) * size_of::<f32>()
    }

    /// Numbers of the weight at all points, in tiles of so many quads of channels.
    pub(crate) fn weight_at_points(c_in: usize, c_out: usize, quads: usize) -> [usize; 2] {
        [POINTS * POINTS * c_out.div_ceil(4 * quads) * (c_in / 4), 16 * quads]
    }

    /// Bytes of a band, the step before the products and the one after them.
    pub(crate) fn band_bytes(&self, output: &TensorDesc) -> usize {
        let [squares, ..] = Self::squares(output);
        self.band(squares) * self.bytes_of_square()
    }

    /// The best tile of the products on a CPU, and what the convolution costs its lanes so, see [`Conv2d::cost_of_lanes`].
    pub(crate) fn winograd_of_lanes(&self, output: &TensorDesc) -> (Tile, usize) {
        let [squares, ..] = Self::squares(output);
        let band = self.band(squares);
        let quads = even_part(self.c_out / 4, MOST_QUADS);
        let columns = POINTS * POINTS * (self.c_out / 4).div_ceil(quads);
        let cost = |pixels: usize| {
            let turn = 16 * pixels * quads + FETCH * (pixels + 4 * quads / LANES);
            band.div_ceil(LANES * pixels) * columns * self.c_in / 4 * turn
        };
        let pixels = (1..=MOST_PIXELS).min_by_key(|&pixels| (cost(pixels), pixels)).expect("at least one");
        let steps = band.div_ceil(LANES) * STEPS * (self.c_in + self.c_out) / 8;
        (Tile { pixels, rows: 1, quads }, squares.div_ceil(band) * (cost(pixels) + steps))
    }
}

pub fn lower(conv: &Conv2d, tile: Tile, cx: &mut Lower) {
    let output = cx.output_desc();
    let [squares, down, across] = Conv2d::squares(output);
    let band = conv.band(squares);
    let flops = std::mem::take(&mut cx.flops);
    for first in (0..squares).step_by(band) {
        let count = band.min(squares - first);
        let at_points = |channels| TensorDesc::new([POINTS * POINTS, channels / 4, count, 4], DType::F32);
        let (source, result) = (at_points(conv.c_in), at_points(conv.c_out));
        let [from, to] = [&source, &result].map(|desc| cx.scratch(desc.bytes() as usize));
        let squares_here: Parameters =
            vec![("first", first.into()), ("tiles", count.into()), ("tiles_x", across.into()), ("tiles_y", down.into())];

        to_points(conv, &squares_here, count, from, cx);
        // Counted as the convolution that it stands for.
        cx.flops = flops * count as u64 / squares as u64;
        multiply(conv, tile, (&source, from), (&result, to), cx);
        from_points(conv, &squares_here, (&result, to), cx);
    }
}

type Parameters = Vec<(&'static str, Param)>;

fn to_points(conv: &Conv2d, squares: &Parameters, count: usize, to: Slot, cx: &mut Lower) {
    let source = cx.desc(0);
    let kernel = Kernel::new("winograd_source").constant("UPSAMPLE", unsigned(conv.upsample));
    let kernel = shown(kernel, "load", "src_texture", (source, cx.input(0)), cx);
    let mut params: Parameters = vec![
        ("height", (source.shape[1] * conv.upsample).into()),
        ("width", (source.shape[2] * conv.upsample).into()),
        ("quads", (conv.c_in / 4).into()),
        ("pad_top", conv.options.padding[0].into()),
        ("pad_left", conv.options.padding[1].into()),
    ];
    params.extend_from_slice(squares);
    let threads = conv.c_in / 4 * count;
    cx.dispatch(kernel, &[("src", cx.input(0)), ("dst", to)], &params, Grid::Threads(threads));
}

fn multiply(
    conv: &Conv2d,
    tile: Tile,
    (source, from): (&TensorDesc, Slot),
    (result, to): (&TensorDesc, Slot),
    cx: &mut Lower,
) {
    let count = source.shape[2];
    let (blocks, columns) = (count.div_ceil(LANES * tile.pixels), (conv.c_out / 4).div_ceil(tile.quads));
    let kernel = Kernel::new("winograd_products")
        .constant("PIXELS", unsigned(tile.pixels))
        .constant("QUADS", unsigned(tile.quads));
    let kernel = tiles::sharing(kernel, 4 * tile.quads, cx.target());
    let kernel = shown(kernel, "load", "src_texture", (source, from), cx);
    let kernel = shown(kernel, "load_weight", "weight_texture", (cx.desc(1), cx.input(1)), cx);
    let params: Parameters = vec![
        ("tiles", count.into()),
        ("quads_in", source.shape[1].into()),
        ("quads_out", result.shape[1].into()),
        ("blocks", blocks.into()),
        ("columns", columns.into()),
    ];
    let buffers = [("src", from), ("weight", cx.input(1)), ("dst", to)];
    cx.dispatch(kernel, &buffers, &params, Grid::Groups(POINTS * POINTS * columns * blocks));
}

fn from_points(conv: &Conv2d, squares: &Parameters, from: (&TensorDesc, Slot), cx: &mut Lower) {
    let output = cx.output_desc();
    let kernel = conv.epilogue.splice(Kernel::new("winograd_result"), Width::Quads);
    let kernel = shown(kernel, "load", "src_texture", from, cx);
    let mut params: Parameters = vec![
        ("height_out", output.shape[1].into()),
        ("width_out", output.shape[2].into()),
        ("quads_out", (conv.c_out / 4).into()),
    ];
    params.extend_from_slice(squares);
    let mut buffers = conv.buffers(cx);
    buffers.iter_mut().filter(|(name, _)| *name == "src").for_each(|(_, slot)| *slot = from.1);
    let threads = from.0.shape[1] * from.0.shape[2];
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(threads));
}

/// What the kernel's function `load` reads as a texture, where these are quicker to read.
fn shown(
    kernel: Kernel,
    load: &'static str,
    texture: &'static str,
    (desc, slot): (&TensorDesc, Slot),
    cx: &mut Lower,
) -> Kernel {
    if !cx.target().reads_texels(desc) {
        return kernel;
    }
    cx.texels(texture, slot, desc);
    kernel.function(
        load,
        format!("fn {load}(at: u32) -> V {{\n    return textureLoad({texture}, texel(at), 0);\n}}"),
    )
}
