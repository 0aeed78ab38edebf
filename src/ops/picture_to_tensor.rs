//! Pictures of 8-bit sRGB bytes → feature maps.

use super::{Operator, arity, float};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, Tensor, TensorDesc};

/// Filter of a resize. But for the last they are widened when they shrink, as Pillow's and PyTorch's with `antialias=True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Keys' cubic with a = −1/2.
    Bicubic,
    /// Triangle between the nearest two pixels, whatever lies beside them: PyTorch's `interpolate`, OpenCV's `INTER_LINEAR`.
    TwoTaps,
}

impl Filter {
    /// How far it reaches when nothing shrinks.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear | Filter::TwoTaps => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear | Filter::TwoTaps => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Bicubic => 0.0,
        }
    }
}

/// What is where there is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// A grey byte.
    Fill(u8),
    /// The picture's border, repeated.
    Edge,
}

/// How one side of a picture is resized, and what of the result is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Length of the picture, pixels.
    pub source: usize,
    /// The part of it that is resized, in pixels; need not be whole ones.
    pub part: [f64; 2],
    /// Length that this part gets.
    pub resized: usize,
    /// Which pixel of that is the first of the result; negative where the result begins outside.
    pub first: isize,
    /// Length of the result.
    pub out: usize,
}

impl Axis {
    /// The whole side, as it is.
    pub fn whole(source: usize) -> Self {
        Axis::resized(source, source)
    }

    /// The whole side at another length.
    pub fn resized(source: usize, out: usize) -> Self {
        Axis { source, part: [0.0, source as f64], resized: out, first: 0, out }
    }

    /// Pixels of the picture for one of the result.
    pub fn ratio(&self) -> f64 {
        (self.part[1] - self.part[0]) / self.resized as f64
    }

    /// Where in the picture a place of the result lies, both counted from the left (or upper) end.
    pub fn to_picture(&self, at: f64) -> f64 {
        self.part[0] + (at + self.first as f64) * self.ratio()
    }

    /// Whether each pixel of the result is the picture's with the same index.
    pub fn is_identity(&self) -> bool {
        *self == Axis::whole(self.source)
    }

    /// For each pixel of the result its first source pixel and its weights in units of 2⁻²², rounded as in
    /// Pillow: `[out, 1 + taps]`.
    fn table(&self, filter: Filter, outside: Outside) -> Result<Tensor, String> {
        let [from, to] = self.part;
        if !(0.0 <= from && from < to && to <= self.source as f64) || self.resized == 0 || self.out == 0 {
            return Err(format!("a part of the picture resized to at least one pixel, found {self:?}"));
        }
        // As in Pillow's `precompute_coeffs`.
        let scale = self.ratio();
        let stretch = if filter == Filter::TwoTaps { 1.0 } else { scale.max(1.0) };
        let support = filter.support() * stretch;
        let mut rows: Vec<(u32, Vec<i32>)> = Vec::with_capacity(self.out);
        for i in 0..self.out {
            let at = self.first + i as isize;
            let at = match outside {
                Outside::Fill(_) if at < 0 || at >= self.resized as isize => {
                    rows.push((u32::MAX, vec![]));
                    continue;
                }
                _ => at.clamp(0, self.resized as isize - 1) as f64,
            };
            let centre = from + (at + 0.5) * scale;
            let low = (centre - support + 0.5).max(0.0) as usize;
            let high = ((centre + support + 0.5) as usize).min(self.source);
            let weights: Vec<f64> =
                (low..high).map(|s| filter.at((s as f64 - centre + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: f64| (w / sum * f64::from(1 << 22) + 0.5f64.copysign(w)) as i32;
            rows.push((low as u32, weights.into_iter().map(fixed).collect()));
        }
        // Zeros at both ends need no reading.
        for (first, weights) in &mut rows {
            let zeros = weights.iter().take_while(|w| **w == 0).count();
            weights.drain(..zeros);
            *first = first.saturating_add(zeros as u32);
            while weights.last() == Some(&0) {
                weights.pop();
            }
        }
        let taps = rows.iter().map(|(_, w)| w.len()).max().unwrap_or(0).max(1);
        let mut table = Vec::with_capacity(self.out * (1 + taps));
        for (first, weights) in rows {
            table.push(first);
            table.extend(weights.iter().map(|&w| w as u32));
            table.resize(table.len().next_multiple_of(1 + taps), 0);
        }
        Ok(Tensor::from_u32([self.out, 1 + taps], &table))
    }
}

/// Resizes and normalises. Inputs: pictures `[n, h, w]` of words with red in the lowest byte; a table of rows,
/// and one of columns unless these stay as they are: u32 `[out, 1 + taps]`, first pixel and weights in units of 2⁻²².
#[derive(Clone, Debug)]
pub struct PictureToTensor {
    /// A channel is `x / 255 · scale + shift`; one channel (luma) or three.
    pub normalise: Vec<(f32, f32)>,
    /// Grey byte where there is no picture.
    pub fill: u8,
    pub dtype: DType,
}

/// Length of the result and taps of a table.
fn table_size(desc: &TensorDesc) -> Result<[usize; 2], String> {
    match (&desc.shape[..], desc.dtype) {
        (&[out, columns], DType::U32) if columns >= 2 => Ok([out, columns - 1]),
        _ => Err(format!("tables must be u32[out, 1 + taps], found {desc}")),
    }
}

impl Operator for PictureToTensor {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=3)?;
        let (&[n, _, width], DType::U32) = (&inputs[0].shape[..], inputs[0].dtype) else {
            return Err(format!("pictures must be u32[n, h, w], found {}", inputs[0]));
        };
        if !matches!(self.normalise.len(), 1 | 3) {
            return Err(format!("one or three channels, found {}", self.normalise.len()));
        }
        let [height_out, _] = table_size(inputs[1])?;
        let width_out = match inputs.get(2) {
            Some(columns) => table_size(columns)?[0],
            None => width,
        };
        let desc = TensorDesc::new([n, height_out, width_out, self.normalise.len()], self.dtype);
        float("result", &desc)?;
        Ok(desc)
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let taps = |i: usize| inputs.get(i).map_or(0, |t| t.shape.last() as u64 - 1);
        let across = inputs[0].shape[..2].iter().product::<usize>() * output.shape[2];
        6 * (across as u64 * taps(2) + output.shape[..3].iter().product::<usize>() as u64 * taps(1))
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let [n, height, width] = [0, 1, 2].map(|d| cx.desc(0).shape[d]);
        let width_out = output.shape[2];
        let fill = (u32::from(self.fill) * 0x01_01_01) | 0xff00_0000;
        let mut src = cx.input(0);
        if cx.inputs() == 3 {
            let count = n * height * width_out;
            let across = cx.scratch(4 * count);
            let taps = cx.desc(2).shape.last() - 1;
            cx.dispatch(
                Kernel::new("picture_columns"),
                &[("src", src), ("table", cx.input(2)), ("dst", across)],
                &[
                    ("count", count.into()),
                    ("width", width.into()),
                    ("width_out", width_out.into()),
                    ("taps", taps.into()),
                    ("fill", fill.into()),
                ],
                Grid::Threads(count),
            );
            src = across;
        }
        let pixels = output.shape[..3].iter().product::<usize>();
        let taps = cx.desc(1).shape.last() - 1;
        let of = |c: usize| self.normalise[c.min(self.normalise.len() - 1)];
        cx.dispatch(
            Kernel::new("picture_to_tensor")
                .constant("CHANNELS", format!("{}u", self.normalise.len()))
                .alias("Elem", elem(output)),
            &[("src", src), ("table", cx.input(1)), ("dst", cx.output())],
            &[
                ("pixels_out", pixels.into()),
                ("height", height.into()),
                ("width", width_out.into()),
                ("height_out", output.shape[1].into()),
                ("taps", taps.into()),
                ("fill", fill.into()),
                ("scale0", of(0).0.into()),
                ("scale1", of(1).0.into()),
                ("scale2", of(2).0.into()),
                ("shift0", of(0).1.into()),
                ("shift1", of(1).1.into()),
                ("shift2", of(2).1.into()),
            ],
            Grid::Threads(pixels),
        );
    }
}

impl Graph {
    /// `pictures` `[n, h, w]` (u32, red in the lowest byte) resized to `[height, width]` with an antialiased
    /// triangle filter: `[n, height, width, c]`, `x / 255 · scale + shift` for the `(scale, shift)` of each of
    /// three channels, or of luma (BT.601) if there is one.
    pub fn picture_to_tensor(
        &mut self,
        pictures: ValueId,
        [height, width]: [usize; 2],
        normalise: &[(f32, f32)],
        dtype: DType,
    ) -> Result<ValueId> {
        let [rows, columns] = match self.shape(pictures)[..] {
            [_, h, w] => [Axis::resized(h, height), Axis::resized(w, width)],
            // The op's own check names the shape.
            _ => [Axis::whole(1), Axis::whole(1)],
        };
        self.picture_resample(pictures, [&rows, &columns], Filter::Bilinear, Outside::Edge, normalise, dtype)
    }

    /// As [`picture_to_tensor`](Self::picture_to_tensor), with rows and columns as given. Bit for bit the bytes that
    /// Pillow's `resize` makes, rounded after each pass, then normalised. The horizontal pass is the first; Pillow 13
    /// begins with the vertical one where far more rows than columns go, and then differs by one here and there.
    pub fn picture_resample(
        &mut self,
        pictures: ValueId,
        [rows, columns]: [&Axis; 2],
        filter: Filter,
        outside: Outside,
        normalise: &[(f32, f32)],
        dtype: DType,
    ) -> Result<ValueId> {
        let fail = |message| Error::Graph { op: "PictureToTensor", node: "picture".to_owned(), message };
        let sizes = [rows.source, columns.source];
        if let [_, h, w] = self.shape(pictures)[..]
            && [h, w] != sizes
        {
            return Err(fail(format!("pictures are {h} × {w}, rows and columns are of {sizes:?}")));
        }
        let table = rows.table(filter, outside).map_err(fail)?;
        let mut inputs = vec![pictures, self.weight("rows", table)];
        if !columns.is_identity() {
            let table = columns.table(filter, outside).map_err(fail)?;
            inputs.push(self.weight("columns", table));
        }
        let fill = match outside {
            Outside::Fill(byte) => byte,
            Outside::Edge => 0,
        };
        self.push(PictureToTensor { normalise: normalise.to_vec(), fill, dtype }, &inputs)
    }
}
