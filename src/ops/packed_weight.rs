//! PackedWeight: a convolution's weight that the host brings into the kernel's order on its way to the device.

use std::ops::Range;

use half::slice::HalfFloatSliceExt as _;

use super::conv_weight::ConvWeight;
use super::{Operator, arity};
use crate::lower::Lower;
use crate::tensor::{DType, Shape, Tensor, TensorDesc};

/// [`ConvWeight::Tiles`] and [`ConvWeight::Winograd`] of f32, done by the host while it copies: for software adapters, whose
/// kernels run on the same cores but take several times as long to move numbers about.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[c_out, c_in, kh, kw]` of any floating-point type.
    weight: Tensor,
    packing: ConvWeight,
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
        PackedWeight { weight: Tensor { desc, bytes: weight.bytes.clone() }, packing }
    }

    /// The weight as it is in the file.
    pub(crate) fn stored(&self) -> &Tensor {
        &self.weight
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

    /// Rows of the result.
    pub(crate) fn pack(&self, rows: Range<usize>) -> Vec<f32> {
        let [c_out, c_in, kh, kw] = self.weight.desc.shape[..] else { unreachable!("as given to `new`") };
        let (area, row, quads_in) = (kh * kw, self.row(), c_in.div_ceil(4));
        let mut packed = vec![0.0; rows.len() * row];
        let mut line = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            // Rows that have all but the input channels in common.
            let (common, quad) = (at / quads_in, at % quads_in);
            let count = (quads_in - quad).min(rows.end - at);
            let inputs = 4 * quad..(4 * (quad + count)).min(c_in);
            let to = &mut packed[(at - rows.start) * row..][..count * row];
            let mut channels_of = |first: usize, channels: usize, write: &dyn Fn(&[f32], &mut [f32])| {
                for channel in 0..channels.min(c_out.saturating_sub(first)) {
                    let start = (first + channel) * c_in;
                    self.read((start + inputs.start) * area..(start + inputs.end) * area, &mut line);
                    for (input, taps) in line.chunks_exact(area).enumerate() {
                        write(taps, &mut to[input / 4 * row + input % 4 * channels + channel..]);
                    }
                }
            };
            match self.packing {
                ConvWeight::Tiles { taps, quads } => {
                    let (steps, channels) = (kw / taps, 4 * quads);
                    let first = common / steps % kh * kw + common % steps * taps;
                    channels_of(common / (steps * kh) * channels, channels, &|of, to| {
                        for (i, tap) in of[first..first + taps].iter().enumerate() {
                            to[i * 4 * channels] = *tap;
                        }
                    });
                }
                ConvWeight::Winograd { squares, quads } => {
                    let (channels, points) = (4 * quads, squares.points());
                    let tiles = c_out.div_ceil(channels);
                    let [v, u] = [common / tiles / points, common / tiles % points].map(|at| squares.evaluate(at));
                    channels_of(common % tiles * channels, channels, &|of, to| {
                        let line = |i: usize| v[0] * of[i] + v[1] * of[i + 3] + v[2] * of[i + 6];
                        to[0] = u[0] * line(0) + u[1] * line(1) + u[2] * line(2);
                    });
                }
                _ => unreachable!("as given to `new`"),
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
