//! ConvWeight: a convolution's weight from the file's order to the kernel's.

use super::conv2d::{Conv2d, Squares};
use super::quantized::{BLOCK, BlockFormat};
use super::{Operator, arity};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Repacks `[c_out, c_in, kh, kw]`, once, when the network is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvWeight {
    /// For `conv2d_rows` and `conv2d_texels`: `[rows, row]`, a row for each tile of `quads` quads of
    /// output channels, line of the kernel, `taps` taps side by side and quad of
    /// input channels.
    Tiles { taps: usize, quads: usize },
    /// For `conv2d_blocks`: words `[records, record]`, a record for each tile of `quads` quads of output channels, line
    /// of the kernel, `taps` taps side by side and block of 32 input channels.
    Blocks { taps: usize, quads: usize, format: BlockFormat },
    /// For Winograd's convolution: a 3×3 kernel at the points of these squares, `[rows, row]`, a row for each point, tile of
    /// `quads` quads of output channels and quad of input channels.
    Winograd { squares: Squares, quads: usize },
    /// For `conv2d_shared` and `conv2d_matrices`: `[tiles · kh · kw · c, columns]`, where c is the input channels up to a multiple of `depth`.
    Matrices { columns: usize, depth: usize },
    /// For `conv2d_depthwise`: `[kh · kw, c]`.
    Depthwise,
}

impl Operator for ConvWeight {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let [c_out, c_in, kh, kw] = inputs[0].shape[..] else {
            return Err(format!("weight must be [c_out, c_in, kh, kw], found {}", inputs[0].shape));
        };
        let shape = match self {
            ConvWeight::Tiles { taps, quads } => {
                let tiles = c_out.div_ceil(4 * quads);
                let row = taps * 16 * quads;
                [tiles * kh * (kw / taps) * c_in.div_ceil(4), row]
            }
            ConvWeight::Blocks { taps, quads, format } => {
                let tiles = c_out.div_ceil(4 * quads);
                let records = tiles * kh * (kw / taps) * c_in.div_ceil(BLOCK);
                // Of each block of four channels the scales, two words, and the integers.
                let record = taps * quads * (2 + 4 * format.words());
                return Ok(TensorDesc::new([records, record], DType::U32));
            }
            ConvWeight::Winograd { squares, quads } => {
                if [kh, kw] != [3, 3] || !c_in.is_multiple_of(4) {
                    return Err(format!("kernel must be 3×3 over a multiple of four channels, found {}", inputs[0].shape));
                }
                Conv2d::weight_at_points([c_in, c_out], *squares, *quads)
            }
            ConvWeight::Matrices { columns, depth } => {
                [c_out.div_ceil(*columns) * kh * kw * c_in.next_multiple_of(*depth), *columns]
            }
            ConvWeight::Depthwise => [kh * kw, c_out],
        };
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let (from, to) = (&cx.desc(0).shape, cx.output_desc());
        let buffers = [("src", cx.input(0)), ("dst", cx.output())];
        match self {
            ConvWeight::Tiles { taps, quads } => cx.dispatch(
                Kernel::new("conv_weight_tiles").alias("Elem", elem(to)),
                &buffers,
                &[
                    ("count", (to.shape[0] * 4 * quads).into()),
                    ("channels", (4 * quads).into()),
                    ("c_out", from[0].into()),
                    ("c_in", from[1].into()),
                    ("quads_in", from[1].div_ceil(4).into()),
                    ("kernel_y", from[2].into()),
                    ("steps", (from[3] / taps).into()),
                    ("taps", (*taps).into()),
                ],
                Grid::Threads(to.shape[0] * 4 * quads),
            ),
            ConvWeight::Blocks { taps, quads, format } => {
                let threads = to.shape[0] * taps * quads;
                let kernel = Kernel::new("conv_weight_blocks").alias("Elem", elem(cx.desc(0)));
                let kernel = match format {
                    BlockFormat::Q8_0 => kernel,
                    BlockFormat::Q4_0 => kernel
                        .constant("WORDS", "1u")
                        .function("scale", Q4_SCALE)
                        .function("integer", Q4_INTEGER)
                        .function("pack", Q4_PACK),
                };
                cx.dispatch(
                    kernel,
                    &buffers,
                    &[
                        ("count", threads.into()),
                        ("quads", (*quads).into()),
                        ("c_out", from[0].into()),
                        ("c_in", from[1].into()),
                        ("blocks", from[1].div_ceil(BLOCK).into()),
                        ("kernel_y", from[2].into()),
                        ("kernel_x", from[3].into()),
                        ("taps", (*taps).into()),
                    ],
                    Grid::Threads(threads),
                );
            }
            ConvWeight::Winograd { squares, quads } => {
                let tiles = from[0].div_ceil(4 * quads);
                let kernel = Kernel::new("conv_weight_winograd")
                    .alias("Elem", elem(to))
                    .constant("POINTS", format!("{}u", squares.points()));
                let kernel = match squares {
                    Squares::Two => kernel.function("points", POINTS_OF_TWO),
                    Squares::Four => kernel,
                };
                cx.dispatch(
                    kernel,
                    &buffers,
                    &[
                        ("c_out", from[0].into()),
                        ("c_in", from[1].into()),
                        ("channels", (4 * quads).into()),
                        ("tiles", tiles.into()),
                    ],
                    Grid::Threads(tiles * 4 * quads * from[1]),
                );
            }
            ConvWeight::Matrices { columns, depth } => cx.dispatch(
                Kernel::new("conv_weight_matrices").alias("Elem", elem(to)),
                &buffers,
                &[
                    ("count", to.shape.elements().into()),
                    ("columns", (*columns).into()),
                    ("depth", from[1].next_multiple_of(*depth).into()),
                    ("c_out", from[0].into()),
                    ("c_in", from[1].into()),
                    ("taps", (from[2] * from[3]).into()),
                ],
                Grid::Threads(to.shape.elements()),
            ),
            ConvWeight::Depthwise => cx.dispatch(
                Kernel::new("conv_weight_depthwise").alias("Elem", elem(to)),
                &buffers,
                &[("channels", from[0].into()), ("taps", (from[2] * from[3]).into())],
                Grid::Threads(to.shape.elements()),
            ),
        }
    }
}

/// Values at 0, 1, −1 and ∞, over what interpolation divides by.
const POINTS_OF_TWO: &str = "fn points(g0: f32, g1: f32, g2: f32) -> array<f32, 6> {
    let even = g0 + g2;
    return array<f32, 6>(-g0, 0.5 * (even + g1), 0.5 * (even - g1), g2, 0.0, 0.0);
}";

const Q4_SCALE: &str = "fn scale(extreme: f32) -> f32 {
    return extreme * -0.125;
}";

/// x + 8.5 in units of 2⁻²⁵, all that x can have near a half; what lies less than half an f32's last bit below an integer is
/// rounded to it by that sum, from 8 to 16 and from 4 to 8. Below that x itself has no such numbers.
const Q4_INTEGER: &str = "fn integer(x: f32) -> u32 {
    let sum = u32(i32(clamp(x, -8.0, 8.0) * 33554432.0) + 285212672);
    return min(15u, (sum + select(8u, 16u, sum >= 268435456u)) >> 25u);
}";

const Q4_PACK: &str = "fn pack(x: array<V, 4>) -> array<vec2<u32>, 2> {
    var words: array<u32, 2>;
    for (var i = 0u; i < 4u; i++) {
        for (var lane = 0u; lane < 4u; lane++) {
            words[i / 2u] |= integer(x[i][lane]) << (16u * (i % 2u) + 4u * lane);
        }
    }
    return array<vec2<u32>, 2>(vec2<u32>(words[0], words[1]), vec2<u32>(0u));
}";
