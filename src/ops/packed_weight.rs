//! PackedWeight: a convolution's weight that the host brings into the kernel's order on its way to the device.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use half::slice::HalfFloatSliceExt as _;

use super::conv_weight::ConvWeight;
use super::{Operator, arity};
use crate::graph::{Graph, Source};
use crate::lower::Lower;
use crate::reference::{self, Values};
use crate::tensor::{DType, Shape, Tensor, TensorDesc};

/// [`ConvWeight::Tiles`] and [`ConvWeight::Winograd`] of f32, done by the host while it copies: for software adapters, whose
/// kernels run on the same cores but take several times as long to move numbers about.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[c_out, c_in, kh, kw]` of any floating-point type.
    weight: Tensor,
    /// What each output channel is multiplied by first.
    scale: Option<Scale>,
    packing: ConvWeight,
}

/// A number for each output channel, computed by the host when it first packs: until then nobody looks into tensors.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// Makes them of tensors of the file, as its last value.
    graph: Graph,
    numbers: Arc<OnceLock<Vec<f32>>>,
}

impl Scale {
    pub fn new(graph: Graph) -> Self {
        Scale { graph, numbers: Arc::default() }
    }

    /// The tensors of the file that they come of.
    pub fn from(&self) -> impl Iterator<Item = &Tensor> {
        self.graph.values().filter_map(|(_, value)| match &value.source {
            Source::Weight(tensor) => Some(tensor),
            _ => None,
        })
    }

    /// What is done with these.
    pub fn formula(&self) -> String {
        format!("{:?}", self.graph)
    }

    pub fn numbers(&self) -> &[f32] {
        self.numbers.get_or_init(|| {
            let mut made: Vec<Values> = Vec::new();
            for (_, value) in self.graph.values() {
                made.push(match &value.source {
                    Source::Weight(tensor) => Values::of(tensor),
                    Source::Op { op, inputs } => {
                        let inputs: Vec<&Values> = inputs.iter().map(|id| &made[id.index()]).collect();
                        let element = reference::element(op, &inputs, &value.desc);
                        let numbers = (0..value.desc.shape.elements()).map(|i| element(i).value).collect();
                        Values::exact(value.desc.clone(), numbers)
                    }
                    Source::Input | Source::State(_) => unreachable!("made of weights alone"),
                });
            }
            let numbers = made.last().map(Values::to_vec).unwrap_or_default();
            numbers.into_iter().map(|number| number as f32).collect()
        })
    }
}

impl Operator for PackedWeight {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 0..=0)?;
        self.packing.infer(&[&TensorDesc::new(self.weight.desc.shape.clone(), DType::F32)])
    }

    /// Its buffer is uploaded.
    fn lower(&self, _: &mut Lower) {}
}

impl PackedWeight {
    /// Whether the host knows this order.
    pub(crate) fn knows(packing: &ConvWeight) -> bool {
        matches!(packing, ConvWeight::Tiles { .. } | ConvWeight::Winograd { .. })
    }

    /// `weight` seen as `shape`, `[c_out, c_in, kh, kw]`, in an order that the host knows.
    pub(crate) fn new(weight: &Tensor, shape: &Shape, packing: ConvWeight) -> Self {
        debug_assert!(Self::knows(&packing), "{packing:?}");
        let desc = TensorDesc::new(shape.clone(), weight.desc.dtype);
        PackedWeight { weight: Tensor { desc, bytes: weight.bytes.clone() }, scale: None, packing }
    }

    /// The same of a weight whose output channels are multiplied by these numbers.
    pub(crate) fn scaled(self, scale: Scale) -> Self {
        PackedWeight { scale: Some(scale), ..self }
    }

    /// The weight as it is in the file.
    pub(crate) fn stored(&self) -> &Tensor {
        &self.weight
    }

    /// What its output channels are multiplied by.
    pub(crate) fn scale(&self) -> Option<&Scale> {
        self.scale.as_ref()
    }

    /// The order that it is brought into.
    pub(crate) fn packing(&self) -> ConvWeight {
        self.packing
    }

    /// Numbers in a row of the result.
    pub(crate) fn row(&self) -> usize {
        match self.packing {
            ConvWeight::Tiles { taps, quads } => taps * 16 * quads,
            ConvWeight::Winograd { quads, .. } => 16 * quads,
            _ => unreachable!("as given to `new`"),
        }
    }

    /// Where what is made of `row` ends, and the number of what that is made of: rows of one number are best packed by one
    /// [`Packer`], which reads it once.
    pub(crate) fn piece(&self, row: usize) -> (usize, usize) {
        let quads_in = self.quads_in();
        let (common, quad) = (row / quads_in, row % quads_in);
        let piece = quad / self.quads_piece();
        let end = common * quads_in + ((piece + 1) * self.quads_piece()).min(quads_in);
        (end, self.column(common) * quads_in.div_ceil(self.quads_piece()) + piece)
    }

    /// Rows of the result, of any pieces: for what looks at an answer, and tests.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn pack(&self, rows: Range<usize>) -> Vec<f32> {
        let mut packer = Packer::new(self);
        let mut packed = Vec::with_capacity(rows.len() * self.row());
        let mut at = rows.start;
        while at < rows.end {
            let end = self.piece(at).0.min(rows.end);
            packed.extend_from_slice(packer.pack(at..end).as_flattened());
            at = end;
        }
        packed
    }

    /// Quads of input channels, which are neighbouring rows.
    fn quads_in(&self) -> usize {
        self.weight.desc.shape[1].div_ceil(4)
    }

    /// Of them, how many make a piece.
    fn quads_piece(&self) -> usize {
        (PIECE / (4 * self.row())).max(1)
    }

    /// Which output channels rows are of that have `common` in common.
    fn column(&self, common: usize) -> usize {
        let [c_out, _, kh, kw] = self.weight.desc.shape[..] else { unreachable!("as given to `new`") };
        match self.packing {
            ConvWeight::Tiles { taps, .. } => common / (kw / taps * kh),
            ConvWeight::Winograd { quads, .. } => common % c_out.div_ceil(4 * quads),
            _ => unreachable!("as given to `new`"),
        }
    }
}

/// Bytes of a piece of the result: with what it is made of it fits the second-level cache of a core.
const PIECE: usize = 1 << 16;

/// Packs pieces of a weight, of which those that are made of the same numbers should follow each other.
pub(crate) struct Packer<'a> {
    of: &'a PackedWeight,
    scale: Option<&'a [f32]>,
    /// The column and the input channels that were read.
    held: Option<(usize, Range<usize>)>,
    /// For each quad of output channels of the column: `[inputs, kh, kw]`, four channels side by side.
    quads: Vec<[f32; 4]>,
    lines: [Vec<f32>; 4],
    packed: Vec<[f32; 4]>,
}

impl<'a> Packer<'a> {
    pub fn new(of: &'a PackedWeight) -> Self {
        let scale = of.scale.as_ref().map(Scale::numbers);
        let (quads, packed) = (Vec::new(), Vec::new());
        Packer { of, scale, held: None, quads, lines: Default::default(), packed }
    }

    /// Rows of the result, all of one [piece](PackedWeight::piece).
    pub fn pack(&mut self, rows: Range<usize>) -> &[[f32; 4]] {
        let [_, c_in, kh, kw] = self.of.weight.desc.shape[..] else { unreachable!("as given to `new`") };
        let (area, row, quads_in) = (kh * kw, self.of.row() / 4, self.of.quads_in());
        let (common, quad) = (rows.start / quads_in, rows.start % quads_in);
        let inputs = 4 * quad..(4 * (quad + rows.len())).min(c_in);
        self.hold(self.of.column(common), inputs.clone());
        let of_quad = inputs.len() * area;
        self.packed.clear();
        self.packed.resize(rows.len() * row, [0.0; 4]);
        match self.of.packing {
            ConvWeight::Tiles { taps, quads } => {
                let steps = kw / taps;
                let first = common / steps % kh * kw + common % steps * taps;
                for (q, of) in self.quads.chunks_exact(of_quad).enumerate() {
                    for (input, of) in of.chunks_exact(area).enumerate() {
                        let to = &mut self.packed[input / 4 * row + input % 4 * quads + q..];
                        for (i, tap) in of[first..first + taps].iter().enumerate() {
                            to[i * 4 * quads] = *tap;
                        }
                    }
                }
            }
            ConvWeight::Winograd { squares, quads } => {
                let points = squares.points();
                let point = common / self.of.weight.desc.shape[0].div_ceil(4 * quads);
                let [v, u] = [point / points, point % points].map(|at| squares.evaluate(at));
                for (q, of) in self.quads.chunks_exact(of_quad).enumerate() {
                    for (to, of) in self.packed[q..].iter_mut().step_by(quads).zip(of.as_chunks::<9>().0) {
                        for (c, to) in to.iter_mut().enumerate() {
                            let line = |i: usize| v[0] * of[i][c] + v[1] * of[i + 3][c] + v[2] * of[i + 6][c];
                            *to = u[0] * line(0) + u[1] * line(1) + u[2] * line(2);
                        }
                    }
                }
            }
            _ => unreachable!("as given to `new`"),
        }
        &self.packed
    }

    /// Reads the weight of these channels, unless it is there; of channels that are not there it is zero.
    fn hold(&mut self, column: usize, inputs: Range<usize>) {
        let wanted = Some((column, inputs.clone()));
        if self.held == wanted {
            return;
        }
        self.held = wanted;
        self.quads.clear();
        let [c_out, c_in, kh, kw] = self.of.weight.desc.shape[..] else { unreachable!("as given to `new`") };
        let count = inputs.len() * kh * kw;
        let quads = match self.of.packing {
            ConvWeight::Tiles { quads, .. } | ConvWeight::Winograd { quads, .. } => quads,
            _ => unreachable!("as given to `new`"),
        };
        for first in (column * quads..(column + 1) * quads).map(|quad| 4 * quad) {
            for (channel, line) in (first..).zip(&mut self.lines) {
                line.clear();
                if channel < c_out {
                    let start = (channel * c_in + inputs.start) * kh * kw;
                    read(&self.of.weight, start..start + count, line);
                    if let Some(scale) = self.scale {
                        line.iter_mut().for_each(|number| *number *= scale[channel]);
                    }
                }
                line.resize(count, 0.0);
            }
            let [a, b, c, d] = &self.lines;
            let quads = a.iter().zip(b).zip(c.iter().zip(d)).map(|((a, b), (c, d))| [*a, *b, *c, *d]);
            self.quads.extend(quads);
        }
    }
}

/// Adds elements of a tensor to a line.
fn read(tensor: &Tensor, elements: Range<usize>, line: &mut Vec<f32>) {
    let size = tensor.desc.dtype.bytes();
    let bytes = &tensor.bytes[elements.start * size..elements.end * size];
    match tensor.desc.dtype {
        // Whole lines at once, for which processors have instructions; most files have numbers at even places.
        DType::F16 => match bytemuck::try_cast_slice::<u8, half::f16>(bytes) {
            Ok(halves) => {
                line.resize(halves.len(), 0.0);
                halves.convert_to_f32_slice(line);
            }
            Err(_) => line.extend(bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
        },
        DType::BF16 => {
            line.extend(bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()));
        }
        _ => line.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;
    use crate::ops::conv2d::winograd::Squares;

    /// Numbers that all differ, none of them a multiple of another.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 10_007) as f32 / 10_007.0 - 0.47).collect()
    }

    #[test]
    fn every_row_is_what_the_order_says() {
        let tiles = |taps, quads| ConvWeight::Tiles { taps, quads };
        let winograd = |squares, quads| ConvWeight::Winograd { squares, quads };
        // The last of each has more rows of a kind than a piece.
        let cases = [
            (tiles(1, 8), [35, 7, 1, 1]),
            (tiles(3, 2), [9, 5, 2, 3]),
            (tiles(2, 3), [12, 8, 3, 4]),
            (tiles(1, 16), [65, 600, 1, 1]),
            (winograd(Squares::Two, 2), [9, 8, 3, 3]),
            (winograd(Squares::Four, 3), [26, 12, 3, 3]),
            (winograd(Squares::Four, 16), [70, 300, 3, 3]),
        ];
        for ((packing, shape), dtype) in
            cases.into_iter().zip([DType::F32, DType::F16, DType::BF16].into_iter().cycle())
        {
            let weight = Tensor::from_f32(shape, &numbers(shape.iter().product())).to_dtype(dtype);
            let plain = PackedWeight::new(&weight, &weight.desc.shape, packing);
            let mut scale = Graph::new();
            let [x, y] = ["x", "y"].map(|name| scale.weight(name, Tensor::from_f32([shape[0]], &numbers(shape[0]))));
            let z = scale.mul(x, y).unwrap();
            scale.affine(z, 0.5, 0.3).unwrap();
            for packed in [plain.clone(), plain.scaled(Scale::new(scale))] {
                let desc = packed.infer(&[]).unwrap();
                let rows = desc.shape[0];
                let op = Op::from(packed.clone());
                let places: Vec<usize> = (0..desc.shape.elements()).collect();
                let right = reference::evaluate_at(&op, &[], &desc, &places);
                let found = packed.pack(0..rows);
                assert_eq!(found.len(), right.len());
                for (i, (found, right)) in found.iter().zip(&right).enumerate() {
                    let off = (f64::from(*found) - right.value).abs();
                    assert!(off <= right.error, "{packing:?} {shape:?} {dtype}: {i} is {found}, not {right:?}");
                }
                // Some rows are what they are among all.
                for part in [0..1, rows / 3..rows / 3 + 2, rows / 2..rows] {
                    let part = part.start..part.end.min(rows);
                    assert_eq!(packed.pack(part.clone()), found[part.start * packed.row()..part.end * packed.row()]);
                }
                // Pieces follow each other to the end.
                let mut at = 0;
                while at < rows {
                    let (end, _) = packed.piece(at);
                    assert!(end > at && end <= rows, "{packing:?}: a piece from {at} to {end} of {rows}");
                    at = end;
                }
            }
        }
    }
}
