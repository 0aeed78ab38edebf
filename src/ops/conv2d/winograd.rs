//! Winograd's convolution F(m × m, 3 × 3): 2.25 or four times fewer products for a kernel of 3 × 3, where m is 2 or 4.
//!
//! Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks": squares of the source and the kernel are
//! taken to points, where the convolution is a matrix product at each, and the products back to squares of results. The
//! three steps are launches of one operation; the kernel goes to the points once, while the network is loaded.
//!
//! On software adapters squares lie side by side between the steps, as their lanes want them, and on GPUs channels, so that the
//! products are one batch of matrix products as any other.

use super::method::{FETCH, LANES, QUADS, Tile, even_part};
use super::tiles::{self, unsigned};
use super::{Conv2d, Shared};
use crate::lower::{Grid, Lower, Slot};
use crate::ops::epilogue::Width;
use crate::ops::matmul;
use crate::shader::{Kernel, Param};
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, TensorDesc};

/// Results of a square along a side: m of F(m × m, 3 × 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Squares {
    /// A weight takes 16/9 times its size.
    Two,
    /// A weight takes four times its size.
    Four,
}

impl Squares {
    pub(crate) const ALL: [Squares; 2] = [Squares::Two, Squares::Four];

    pub(crate) fn results(self) -> usize {
        match self {
            Squares::Two => 2,
            Squares::Four => 4,
        }
    }

    /// Points along a side: results + kernel − 1.
    pub(crate) fn points(self) -> usize {
        self.results() + 2
    }

    /// Points of a square.
    pub(crate) fn area(self) -> usize {
        self.points() * self.points()
    }

    /// What a row of the kernel's taps is multiplied with for its value at a point of a side: the point's powers, over what
    /// interpolation divides by; as in the kernel `conv_weight_winograd`.
    pub(crate) fn evaluate(self, point: usize) -> [f32; 3] {
        const NEAR: f32 = 1.0 / -1.898_437_5;
        const FAR: f32 = 1.0 / 7.593_75;
        const TWO: [[f32; 3]; 4] = [[-1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        const FOUR: [[f32; 3]; 6] = [
            [1.0 / 1.265_625, 0.0, 0.0],
            [NEAR, 0.75 * NEAR, 0.5625 * NEAR],
            [NEAR, -0.75 * NEAR, 0.5625 * NEAR],
            [FAR, 1.5 * FAR, 2.25 * FAR],
            [FAR, -1.5 * FAR, 2.25 * FAR],
            [0.0, 0.0, 1.0],
        ];
        match self {
            Squares::Two => TWO[point],
            Squares::Four => FOUR[point],
        }
    }

    /// A kernel of these squares, with what `function` is for 2 × 2: kernels have it for 4 × 4.
    fn kernel(self, name: &'static str, function: &'static str, of_two: &'static str) -> Kernel {
        let kernel = Kernel::new(name)
            .constant("RESULTS", unsigned(self.results()))
            .constant("POINTS", unsigned(self.points()));
        match self {
            Squares::Two => kernel.function(function, of_two),
            Squares::Four => kernel,
        }
    }
}

/// How the products at the points are computed, and so the order of what lies between the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// With a tile in each thread, whose pixels are squares of the result: on software adapters.
    Lanes(Tile),
    /// As matrices, squares × channels, of which each workgroup computes a part: on GPUs.
    Matrices(Shared),
}

impl Products {
    /// Quads of output channels that are side by side in the weight: for matrices `[c_in, c_out]` all.
    pub(crate) fn quads(self, c_out: usize) -> usize {
        match self {
            Products::Lanes(tile) => tile.quads,
            Products::Matrices(_) => c_out / 4,
        }
    }
}

/// Bytes between the steps at a time: small enough to stay in a CPU's caches, large enough to read the weight rarely.
const BAND: usize = 32 << 20;

/// On a GPU a band only bounds the memory: the largest of Stable Diffusion 1.5's UNet, two samples at 64×64, takes 94 MB.
const BAND_OF_GPU: usize = 128 << 20;

/// Its squares, a multiple of what a workgroup computes at a time.
const UNIT_OF_GPU: usize = 64;

/// Threads of a workgroup on a GPU.
const THREADS: usize = 128;

/// Most squares of a thread, and most of them times quads of output channels.
const MOST_PIXELS: usize = 16;
const MOST_HELD: usize = 64;

/// What the first and the last step cost for a point of a square and a quad of channels, in multiply-adds of a lane: a quad
/// read and written, at the cost of a fetch each, and what is done to it.
const STEPS: usize = 110;

impl Conv2d {
    /// Whether the method computes this convolution at all. In f16 what lies between the steps would be rounded to 11 bits as well,
    /// and the last step cancels.
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

    /// Numbers of the weight at all points, in tiles of so many quads of channels.
    pub(crate) fn weight_at_points([c_in, c_out]: [usize; 2], squares: Squares, quads: usize) -> [usize; 2] {
        [squares.area() * c_out.div_ceil(4 * quads) * (c_in / 4), 16 * quads]
    }

    /// Bytes of a square at all points, of the source and of the result.
    fn bytes_of_square(&self, squares: Squares) -> usize {
        squares.area() * (self.c_in + self.c_out) * size_of::<f32>()
    }

    /// Bytes of a band on a software adapter, the step before the products and the one after them.
    pub(crate) fn band_bytes(&self, squares: Squares, output: &TensorDesc) -> usize {
        let way = Way::of_lanes(self, squares);
        let [count, ..] = way.count(output);
        way.band(count) * self.bytes_of_square(squares)
    }

    /// Of the narrowest band on a GPU.
    pub(super) fn least_band_bytes(&self, squares: Squares) -> usize {
        UNIT_OF_GPU * self.bytes_of_square(squares)
    }

    /// Squares of the result on a GPU, and how many of them are under way at a time.
    pub(super) fn squares_in_bands(&self, squares: Squares, target: &Target, output: &TensorDesc) -> [usize; 2] {
        let way = Way::new(self, squares, target);
        let [count, ..] = way.count(output);
        [count, way.band(count)]
    }

    /// The best tile of the products on a CPU, and what the convolution costs its lanes so, see [`Conv2d::cost_of_lanes`].
    pub(crate) fn winograd_of_lanes(&self, squares: Squares, output: &TensorDesc) -> (Tile, usize) {
        let way = Way::of_lanes(self, squares);
        let [count, ..] = way.count(output);
        let band = way.band(count);
        let quads_out = self.c_out / 4;
        let cost = |&Tile { pixels, quads, .. }: &Tile| {
            let turn = 16 * pixels * quads + FETCH * (pixels + (4 * quads).div_ceil(LANES));
            let columns = squares.area() * quads_out.div_ceil(quads);
            band.div_ceil(LANES * pixels) * columns * self.c_in / 4 * turn
        };
        let tile = QUADS
            .map(|most| even_part(quads_out, most))
            .into_iter()
            .flat_map(|quads| (1..=MOST_PIXELS).map(move |pixels| Tile { pixels, rows: 1, quads }))
            .filter(|tile| tile.pixels * tile.quads <= MOST_HELD)
            .min_by_key(|tile| (cost(tile), tile.pixels * tile.quads, tile.quads))
            .expect("a tile of one square");
        let steps = band.div_ceil(LANES) * STEPS * squares.area() * (self.c_in + self.c_out) / 8;
        (tile, count.div_ceil(band) * (cost(&tile) + steps))
    }
}

/// A convolution in squares.
struct Way<'a> {
    conv: &'a Conv2d,
    squares: Squares,
    /// Most squares of a band.
    most: usize,
}

impl<'a> Way<'a> {
    fn new(conv: &'a Conv2d, squares: Squares, target: &Target) -> Self {
        if target.class == DeviceClass::Cpu {
            return Self::of_lanes(conv, squares);
        }
        let bound = usize::try_from(target.max_binding.min(target.max_buffer)).unwrap_or(usize::MAX);
        let most = BAND_OF_GPU.min(bound) / conv.bytes_of_square(squares) / UNIT_OF_GPU * UNIT_OF_GPU;
        Way { conv, squares, most: most.max(UNIT_OF_GPU) }
    }

    fn of_lanes(conv: &'a Conv2d, squares: Squares) -> Self {
        Way { conv, squares, most: (BAND / conv.bytes_of_square(squares)).next_multiple_of(256) }
    }

    /// Squares of the result: in all, in a column, in a row.
    fn count(&self, output: &TensorDesc) -> [usize; 3] {
        let [down, across] = [1, 2].map(|i| output.shape[i].div_ceil(self.squares.results()));
        [output.shape[0] * down * across, down, across]
    }

    /// Squares that are under way at a time: all, or even parts.
    fn band(&self, count: usize) -> usize {
        even_part(count, self.most).next_multiple_of(LANES).min(count)
    }

    /// What lies between the steps: a tensor of so many channels at the points.
    fn at_points(&self, products: Products, channels: usize, count: usize) -> TensorDesc {
        let area = self.squares.area();
        match products {
            Products::Lanes(_) => TensorDesc::new([area, channels / 4, count, 4], DType::F32),
            Products::Matrices(_) => TensorDesc::new([area, count, channels], DType::F32),
        }
    }

    /// A kernel of the first or last step, and how many numbers a thread of it computes at each point.
    fn step(&self, products: Products, name: &'static str, [function, of_two]: [&'static str; 2]) -> (Kernel, usize) {
        let kernel = self.squares.kernel(name, function, of_two);
        match products {
            Products::Lanes(_) => (kernel, 4),
            Products::Matrices(_) => {
                let kernel = kernel.constant("THREADS", unsigned(THREADS)).constant("CHANNELS_INNERMOST", true);
                (kernel.alias("V", "f32").alias("Quad", "f32"), 1)
            }
        }
    }

    /// The first step.
    fn to_points(&self, products: Products, range: &Parameters, count: usize, to: Slot, cx: &mut Lower) {
        let (conv, source) = (self.conv, cx.desc(0));
        let (kernel, held) = self.step(products, "winograd_source", ["points", POINTS_OF_TWO]);
        let kernel = kernel.constant("UPSAMPLE", unsigned(conv.upsample));
        let kernel = shown(kernel, "load", "src_texture", (source, cx.input(0)), cx);
        let mut params: Parameters = vec![
            ("height", (source.shape[1] * conv.upsample).into()),
            ("width", (source.shape[2] * conv.upsample).into()),
            ("quads", (conv.c_in / held).into()),
            ("pad_top", conv.options.padding[0].into()),
            ("pad_left", conv.options.padding[1].into()),
        ];
        params.extend_from_slice(range);
        let threads = conv.c_in / held * count;
        cx.dispatch(kernel, &[("src", cx.input(0)), ("dst", to)], &params, Grid::Threads(threads));
    }

    fn multiply(
        &self,
        products: Products,
        count: usize,
        [from, to]: [(&TensorDesc, Slot); 2],
        cx: &mut Lower,
    ) {
        match products {
            Products::Lanes(tile) => self.multiply_of_lanes(tile, from, to, cx),
            Products::Matrices(tile) => {
                let sizes = [self.squares.area(), count, self.conv.c_in, self.conv.c_out];
                matmul::multiply(tile, sizes, [from.1, cx.input(1), to.1], cx);
            }
        }
    }

    fn multiply_of_lanes(
        &self,
        tile: Tile,
        (source, from): (&TensorDesc, Slot),
        (result, to): (&TensorDesc, Slot),
        cx: &mut Lower,
    ) {
        let (count, points) = (source.shape[2], self.squares.area());
        let blocks = count.div_ceil(LANES * tile.pixels);
        let columns = (self.conv.c_out / 4).div_ceil(tile.quads);
        let kernel = Kernel::new("winograd_products")
            .constant("POINTS", unsigned(points))
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
        cx.dispatch(kernel, &buffers, &params, Grid::Groups(points * columns * blocks));
    }

    /// The last step.
    fn results_of_points(
        &self,
        products: Products,
        range: &Parameters,
        count: usize,
        from: (&TensorDesc, Slot),
        cx: &mut Lower,
    ) {
        let (conv, output) = (self.conv, cx.output_desc());
        let (kernel, held) = self.step(products, "winograd_result", ["results", RESULTS_OF_TWO]);
        // The same in numbers as in quads: the kernel counts both by its own V.
        let kernel = conv.epilogue.splice(kernel, Width::Quads);
        let kernel = shown(kernel, "load", "src_texture", from, cx);
        let mut params: Parameters = vec![
            ("height_out", output.shape[1].into()),
            ("width_out", output.shape[2].into()),
            ("quads_out", (conv.c_out / held).into()),
        ];
        params.extend_from_slice(range);
        let mut buffers = conv.buffers(cx);
        buffers.iter_mut().filter(|(name, _)| *name == "src").for_each(|(_, slot)| *slot = from.1);
        let threads = conv.c_out / held * count;
        cx.dispatch(kernel, &buffers, &params, Grid::Threads(threads));
    }
}

pub fn lower(conv: &Conv2d, squares: Squares, products: Products, cx: &mut Lower) {
    let way = Way::new(conv, squares, cx.target());
    let [all, down, across] = way.count(cx.output_desc());
    let band = way.band(all);
    let flops = std::mem::take(&mut cx.flops);
    for first in (0..all).step_by(band) {
        let count = band.min(all - first);
        let [source, result] = [conv.c_in, conv.c_out].map(|channels| way.at_points(products, channels, count));
        let [from, to] = [&source, &result].map(|desc| cx.scratch(desc.bytes() as usize));
        let range: Parameters =
            vec![("first", first.into()), ("tiles", count.into()), ("tiles_x", across.into()), ("tiles_y", down.into())];

        way.to_points(products, &range, count, from, cx);
        // Counted as the convolution that it stands for.
        cx.flops = flops * count as u64 / all as u64;
        way.multiply(products, count, [(&source, from), (&result, to)], cx);
        way.results_of_points(products, &range, count, (&result, to), cx);
    }
}

type Parameters = Vec<(&'static str, Param)>;

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
        format!("fn {load}(at: u32) -> V {{\n    return textureLoad({texture}, texel(at));\n}}"),
    )
}

/// Values at 0, 1, −1 and ∞.
const POINTS_OF_TWO: &str = "fn points(d0: V, d1: V, d2: V, d3: V, d4: V, d5: V) -> array<V, 6> {
    return array<V, 6>(d2 - d0, d1 + d2, d2 - d1, d3 - d1, V(0.0), V(0.0));
}";

/// Two results from values there.
const RESULTS_OF_TWO: &str = "fn results(m0: V, m1: V, m2: V, m3: V, m4: V, m5: V) -> array<V, 4> {
    return array<V, 4>(m0 + m1 + m2, m1 - m2 + m3, V(0.0), V(0.0));
}";
