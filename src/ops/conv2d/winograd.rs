//! Winograd's convolution F(4 × 4, 3 × 3): four times fewer products for a kernel of 3 × 3.
//!
//! Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks": squares of the source and the kernel are
//! taken to [`POINTS`] × [`POINTS`] points, where the convolution is a matrix product at each, and the products back to
//! squares of [`RESULTS`] × [`RESULTS`] results. The three steps are launches of one operation; the kernel goes to the
//! points once, while the network is loaded.

use super::method::{Tile, even_part};
use super::{Conv2d, Conv2dOptions, Method, tiles};
use crate::lower::{Grid, Lower, Slot};
use crate::ops::epilogue::{Epilogue, Width};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, TensorDesc};

/// Results of a square, along a side.
pub(crate) const RESULTS: usize = 4;

/// Points along a side: results + kernel − 1.
pub(crate) const POINTS: usize = RESULTS + 2;

/// Bytes between the steps at a time: small enough to stay in a CPU's caches, large enough to read the weight rarely.
const BAND_CPU: usize = 48 << 20;

/// The same where launches are dear.
const BAND_GPU: usize = 256 << 20;

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

    /// The step between: a 1 × 1 convolution in a group for each point, over a row of squares.
    pub(crate) fn products(&self) -> Conv2d {
        let points = POINTS * POINTS;
        Conv2d {
            options: Conv2dOptions::default().groups(points),
            kernel: [1, 1],
            c_in: points * self.c_in,
            c_out: points * self.c_out,
            products: self.c_in,
            upsample: 1,
            epilogue: Epilogue::default(),
            method: None,
        }
    }

    /// Squares that are under way at a time: all, or even parts.
    fn band(&self, squares: usize, class: DeviceClass) -> usize {
        let bytes = POINTS * POINTS * (self.c_in + self.c_out) * size_of::<f32>();
        let most = match class {
            DeviceClass::Cpu => BAND_CPU,
            _ => BAND_GPU,
        };
        even_part(squares, (most / bytes).next_multiple_of(128)).next_multiple_of(8).min(squares)
    }

    /// Numbers of the weight at all points, in tiles of so many quads of channels.
    pub(crate) fn weight_at_points(c_in: usize, c_out: usize, quads: usize) -> [usize; 2] {
        [POINTS * POINTS * c_out.div_ceil(4 * quads) * (c_in / 4), 16 * quads]
    }

    /// The best tile of the products on a CPU, and what the convolution costs its lanes so, see [`Conv2d::cost_of_lanes`].
    pub(crate) fn winograd_of_lanes(&self, output: &TensorDesc) -> (Tile, usize) {
        let [squares, ..] = Self::squares(output);
        let band = self.band(squares, DeviceClass::Cpu);
        let products = self.products();
        let row = TensorDesc::new([1, 1, band, products.c_out], DType::F32);
        let tile = Tile { quads: even_part(self.c_out / 4, 4), ..products.tile_of_lanes(&row) };
        let steps = band.div_ceil(8) * STEPS * (self.c_in + self.c_out) / 8;
        (tile, squares.div_ceil(band) * (products.cost_of_lanes(&row, tile) + steps))
    }
}

pub fn lower(conv: &Conv2d, tile: Tile, cx: &mut Lower) {
    let output = cx.output_desc();
    let [squares, down, across] = Conv2d::squares(output);
    let band = conv.band(squares, cx.target().class);
    let products = conv.products();
    let flops = std::mem::take(&mut cx.flops);
    let source = &cx.desc(0).shape;
    for first in (0..squares).step_by(band) {
        let count = band.min(squares - first);
        let row = |channels| TensorDesc::new([1, 1, count, channels], DType::F32);
        let (at_points, multiplied) = (row(products.c_in), row(products.c_out));
        let [from, to] = [&at_points, &multiplied].map(|desc| cx.scratch(desc.bytes() as usize));
        let place = [("first", first.into()), ("tiles", count.into())];
        let grid = [("tiles_x", across.into()), ("tiles_y", down.into())];

        let mut params = vec![
            ("height", (source[1] * conv.upsample).into()),
            ("width", (source[2] * conv.upsample).into()),
            ("quads", (conv.c_in / 4).into()),
            ("pad_top", conv.options.padding[0].into()),
            ("pad_left", conv.options.padding[1].into()),
        ];
        params.extend(place.iter().chain(&grid).cloned());
        let kernel = Kernel::new("winograd_source").constant("UPSAMPLE", format!("{}u", conv.upsample));
        let kernel = shown(kernel, cx, cx.input(0), cx.desc(0));
        let buffers = [("src", cx.input(0)), ("dst", from)];
        cx.dispatch(kernel, &buffers, &params, Grid::Threads(count * conv.c_in / 4));

        // Counted as the convolution that it stands for.
        cx.flops = flops * count as u64 / squares as u64;
        let weight = (cx.desc(1), cx.input(1));
        let mut inner = cx.within(vec![(&at_points, from), weight], (&multiplied, to));
        let texels = [inner.desc(0), inner.desc(1)].iter().all(|desc| inner.target().reads_texels(desc));
        match texels {
            true => tiles::lower_texels(&products, tile, &mut inner),
            false => tiles::lower_rows(&products, tile, &mut inner),
        }

        let kernel = conv.epilogue.splice(Kernel::new("winograd_result"), Width::Quads);
        let kernel = shown(kernel, cx, to, &multiplied);
        let mut buffers = conv.buffers(cx);
        buffers.iter_mut().filter(|(name, _)| *name == "src").for_each(|(_, slot)| *slot = to);
        let mut params = vec![
            ("height_out", output.shape[1].into()),
            ("width_out", output.shape[2].into()),
            ("quads_out", (conv.c_out / 4).into()),
        ];
        params.extend(place.into_iter().chain(grid));
        cx.dispatch(kernel, &buffers, &params, Grid::Threads(count * conv.c_out / 4));
    }
}

/// The source of a step as a texture, where these are quicker to read.
fn shown(kernel: Kernel, cx: &mut Lower, slot: Slot, desc: &TensorDesc) -> Kernel {
    if !cx.target().reads_texels(desc) {
        return kernel;
    }
    cx.texels("src_texture", slot, desc);
    kernel.function("load", LOAD_TEXTURE)
}

const LOAD_TEXTURE: &str = "fn load(at: u32) -> V {
    return textureLoad(src_texture, texel(at), 0);
}";

/// `Method::Winograd` with the tile that the device class wants, for a convolution that allows it.
pub(crate) fn method(conv: &Conv2d, class: DeviceClass, output: &TensorDesc) -> Method {
    let (lanes, _) = conv.winograd_of_lanes(output);
    Method::Winograd(match class {
        DeviceClass::Cpu => lanes,
        _ => Tile { pixels: 8, rows: 1, quads: even_part(conv.c_out / 4, 2) },
    })
}
