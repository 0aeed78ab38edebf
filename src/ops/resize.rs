//! Resize: a feature map at another height and width.

use super::lines::{LOAD_TEXEL, run};
use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// How a value between pixels is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    Nearest,
    Bilinear,
    /// Cubic convolution (Keys 1981) with slope `a` at distance one; PyTorch has -0.75.
    Bicubic {
        a: f32,
    },
}

/// Where an output pixel lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Pixel centres at halves: `(i + 0.5) · in / out − 0.5`. PyTorch's `align_corners=False`; with nearest, `nearest-exact`.
    HalfPixel,
    /// First and last pixels stay: `i · (in − 1) / (out − 1)`. With nearest, halves round up.
    AlignCorners,
    /// `i · in / out`. With nearest, PyTorch's `nearest`.
    Asymmetric,
}

/// Samples `[n, h, w, c]` on a grid of another size; no low-pass filter when shrinking.
#[derive(Clone, Debug)]
pub struct Resize {
    /// Height and width of the result.
    pub size: [usize; 2],
    pub interpolation: Interpolation,
    pub coordinates: Coordinates,
}

impl Resize {
    /// `[a, b, d]` in lowest terms: the coordinate of output `i` is `(a · i + b) / d`; for nearest, its floor is the pixel. A
    /// picture at twice its size has the same ones whatever that is, and so the same results where it is the same.
    pub(crate) fn fraction(&self, input: usize, output: usize) -> [i64; 3] {
        let all = self.unreduced(input as i64, output as i64);
        let gcd = all.into_iter().fold(0, gcd);
        all.map(|x| x / gcd)
    }

    fn unreduced(&self, input: i64, output: i64) -> [i64; 3] {
        let nearest = self.interpolation == Interpolation::Nearest;
        match self.coordinates {
            Coordinates::HalfPixel if nearest => [2 * input, input, 2 * output],
            Coordinates::HalfPixel => [2 * input, input - output, 2 * output],
            Coordinates::AlignCorners if output == 1 => [0, 0, 1],
            Coordinates::AlignCorners if nearest => [2 * (input - 1), output - 1, 2 * (output - 1)],
            Coordinates::AlignCorners => [input - 1, 0, output - 1],
            Coordinates::Asymmetric => [input, 0, output],
        }
    }
}

/// Never zero, as a divisor is never zero.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

impl Operator for Resize {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let [n, h, w, c] = nhwc("input", inputs[0])?;
        for (input, output) in [(h, self.size[0]), (w, self.size[1])] {
            let fits = (1..=i32::MAX as usize).contains(&output) && input <= i32::MAX as usize && {
                let [a, b, d] = self.fraction(input, output);
                a * output as i64 + b.abs() + d <= i64::from(i32::MAX)
            };
            if !fits {
                return Err(format!(
                    "sizes must be at least 1 and places between them, in lowest terms, below 2^31, found {input} pixels resized to {output}"
                ));
            }
        }
        Ok(TensorDesc::new([n, self.size[0], self.size[1], c], inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, c] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let (unit, v, elem) = match (c.is_multiple_of(4), cx.desc(0).dtype) {
            (true, DType::F16) => (4, "vec4<f32>", "vec4<f16>"),
            (true, _) => (4, "vec4<f32>", "vec4<f32>"),
            (false, dtype) => (1, "f32", dtype.wgsl()),
        };
        let (taps, cubic) = match self.interpolation {
            Interpolation::Nearest => ("1u", 0.0),
            Interpolation::Bilinear => ("2u", 0.0),
            Interpolation::Bicubic { a } => ("4u", a),
        };
        let run = run(cx.target(), c / unit, 8);
        let count = cx.output_desc().shape.elements() / unit / run;
        let [ya, yb, yd] = self.fraction(h, self.size[0]).map(|x| x as i32);
        let [xa, xb, xd] = self.fraction(w, self.size[1]).map(|x| x as i32);
        let mut kernel = Kernel::new("resize")
            .constant("TAPS", taps)
            .constant("RUN", format!("{run}u"))
            .alias("V", v)
            .alias("Elem", elem);
        let source = cx.desc(0);
        if unit == 4 && if taps == "1u" { cx.finds_texels(0) } else { cx.prefers_texels(source) } {
            cx.texels("src_texture", cx.input(0), source);
            kernel = kernel.function("load", LOAD_TEXEL);
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("runs", (c / unit / run).into()),
                ("oh", self.size[0].into()),
                ("ow", self.size[1].into()),
                ("ya", ya.into()),
                ("yb", yb.into()),
                ("yd", yd.into()),
                ("xa", xa.into()),
                ("xb", xb.into()),
                ("xd", xd.into()),
                ("cubic", cubic.into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let taps = match self.interpolation {
            Interpolation::Nearest => return 0,
            Interpolation::Bilinear => 2,
            Interpolation::Bicubic { .. } => 4,
        };
        output.shape.elements() as u64 * 2 * taps * (taps + 1)
    }
}

impl Graph {
    /// `x` `[n, h, w, c]` at `size` (height, width).
    pub fn resize(
        &mut self,
        x: ValueId,
        size: [usize; 2],
        interpolation: Interpolation,
        coordinates: Coordinates,
    ) -> Result<ValueId> {
        self.push(Resize { size, interpolation, coordinates }, &[x])
    }

    /// `x` `[n, h, w, c]` with every pixel repeated `factor` times in both directions.
    pub fn upsample_nearest(&mut self, x: ValueId, factor: usize) -> Result<ValueId> {
        let size = match self.shape(x)[..] {
            [_, h, w, _] => [h.saturating_mul(factor), w.saturating_mul(factor)],
            // The op's own check names the shape.
            _ => [1, 1],
        };
        self.resize(x, size, Interpolation::Nearest, Coordinates::Asymmetric)
    }
}
