//! PackedWeight: a convolution's weight that the host brings into the kernel's order on its way to the device.

use std::ops::Range;

use half::slice::HalfFloatSliceExt as _;

use super::conv_weight::ConvWeight;
use super::{Operator, arity};
use crate::lower::Lower;
use crate::tensor::{DType, Shape, Tensor, TensorDesc};

/// [`ConvWeight::Tiles`] of f32, done by the host while it copies: for software adapters, whose kernels run on the same
/// cores but take several times as long to move numbers about.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[c_out, c_in, kh, kw]` of any floating-point type.
    weight: Tensor,
    taps: usize,
    quads: usize,
}

impl Operator for PackedWeight {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 0..=0)?;
        let packing = ConvWeight::Tiles { taps: self.taps, quads: self.quads };
        packing.infer(&[&TensorDesc::new(self.weight.desc.shape.clone(), DType::F32)])
    }

    /// Its buffer is uploaded.
    fn lower(&self, _: &mut Lower) {}
}

impl PackedWeight {
    /// `weight` seen as `shape`, `[c_out, c_in, kh, kw]`.
    pub(crate) fn new(weight: &Tensor, shape: &Shape, taps: usize, quads: usize) -> Self {
        let desc = TensorDesc::new(shape.clone(), weight.desc.dtype);
        PackedWeight { weight: Tensor { desc, bytes: weight.bytes.clone() }, taps, quads }
    }

    /// The weight as it is in the file.
    pub(crate) fn stored(&self) -> &Tensor {
        &self.weight
    }

    /// Taps and quads of channels of a tile, as in [`ConvWeight::Tiles`].
    pub(crate) fn tiles(&self) -> (usize, usize) {
        (self.taps, self.quads)
    }

    /// Numbers in a row of the result.
    pub(crate) fn row(&self) -> usize {
        self.taps * 16 * self.quads
    }

    /// Rows of the result.
    pub(crate) fn pack(&self, rows: Range<usize>) -> Vec<f32> {
        let [c_out, c_in, kh, kw] = self.weight.desc.shape[..] else { unreachable!("as given to `new`") };
        let (area, steps, row, channels) = (kh * kw, kw / self.taps, self.row(), 4 * self.quads);
        let quads_in = c_in.div_ceil(4);
        let mut packed = vec![0.0; rows.len() * row];
        let mut line = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            // Rows that have all but the input channels in common.
            let (common, quad) = (at / quads_in, at % quads_in);
            let count = (quads_in - quad).min(rows.end - at);
            let tap = common / steps % kh * kw + common % steps * self.taps;
            let first = common / (steps * kh) * channels;
            let inputs = 4 * quad..(4 * (quad + count)).min(c_in);
            let to = &mut packed[(at - rows.start) * row..][..count * row];
            for channel in 0..channels.min(c_out.saturating_sub(first)) {
                let start = (first + channel) * c_in;
                self.read((start + inputs.start) * area..(start + inputs.end) * area, &mut line);
                for (input, of) in line.chunks_exact(area).enumerate() {
                    let to = &mut to[input / 4 * row + input % 4 * channels + channel..];
                    for (i, value) in of[tap..tap + self.taps].iter().enumerate() {
                        to[i * 4 * channels] = *value;
                    }
                }
            }
            at += count;
        }
        packed
    }

    /// Elements of the weight.
    fn read(&self, elements: Range<usize>, line: &mut Vec<f32>) {
        let size = self.weight.desc.dtype.bytes();
        let bytes = &self.weight.bytes[elements.start * size..elements.end * size];
        line.clear();
        match self.weight.desc.dtype {
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
}
