//! Tensors whose values are known while a graph is imported: weights, and the shape
//! arithmetic of exporters, which is worked out here and never reaches the device.

use std::sync::Arc;

use super::elem::Elem;
use super::proto;
use crate::tensor::{Bytes, DType, Tensor, TensorDesc};

/// From so many elements on, 8-bit integers are weights, which stay as they lie in the file.
const PACKED: usize = 1 << 10;

/// A tensor on the host.
#[derive(Clone, Debug)]
pub struct Host {
    pub elem: Elem,
    pub shape: Vec<usize>,
    pub data: Data,
}

/// Values, which many nodes may read: a copy of these shares them.
#[derive(Clone, Debug)]
pub enum Data {
    /// Integers and booleans.
    Ints(Arc<Vec<i64>>),
    /// Floating-point numbers, each rounded to its type.
    Floats(Arc<Vec<f64>>),
    /// f32, f16 or bf16 as they lie in the file, and many int8 or uint8.
    Raw(Bytes),
}

impl Host {
    pub fn ints(elem: Elem, shape: Vec<usize>, values: Vec<i64>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Host { elem, shape, data: Data::Ints(values.into()) }
    }

    /// Numbers, rounded to `elem`.
    pub fn floats(elem: Elem, shape: Vec<usize>, mut values: Vec<f64>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        for v in &mut values {
            *v = round(elem, *v);
        }
        Host { elem, shape, data: Data::Floats(values.into()) }
    }

    /// A tensor without elements.
    pub fn empty(elem: Elem, shape: Vec<usize>) -> Self {
        match elem.is_float() {
            true => Host::floats(elem, shape, Vec::new()),
            false => Host::ints(elem, shape, Vec::new()),
        }
    }

    /// A tensor of a file; values that lie elsewhere are given as `external`.
    pub fn from_proto(tensor: &proto::Tensor, external: Option<Bytes>) -> Result<Self, String> {
        let elem = Elem::from_code(tensor.data_type)?;
        let dim = |&d: &i64| usize::try_from(d).map_err(|_| format!("dimension {d} is negative"));
        let shape: Vec<usize> = tensor.dims.iter().map(dim).collect::<Result<_, _>>()?;
        let count = elements_below(&shape, 1 << 36)
            .ok_or_else(|| format!("shape {:?} is absurdly large", tensor.dims))?;
        let raw = external.or_else(|| match tensor.raw_data.is_empty() {
            true => None,
            false => Some(Bytes::Shared(tensor.raw_data.clone())),
        });
        let size = |found: usize, unit: &str| match found == count {
            true => Ok(()),
            false => Err(format!("shape {shape:?} wants {count} {unit}, found {found}")),
        };
        let data = match raw {
            Some(bytes) => {
                if bytes.len() != count * elem.bytes() {
                    let wanted = count * elem.bytes();
                    return Err(format!("{elem}{shape:?} wants {wanted} bytes, found {}", bytes.len()));
                }
                decode(elem, bytes)
            }
            None if elem.is_float() => {
                let values: Vec<f64> = match elem {
                    Elem::F32 => tensor.float_data.iter().map(|&v| f64::from(v)).collect(),
                    Elem::F64 => tensor.double_data.clone(),
                    Elem::F16 => {
                        let bits = tensor.int32_data.iter();
                        bits.map(|&v| half::f16::from_bits(v as u16).to_f64()).collect()
                    }
                    _ => {
                        let bits = tensor.int32_data.iter();
                        bits.map(|&v| half::bf16::from_bits(v as u16).to_f64()).collect()
                    }
                };
                size(values.len(), "numbers")?;
                Data::Floats(values.into())
            }
            None => {
                let values: Vec<i64> = match elem {
                    Elem::I64 => tensor.int64_data.clone(),
                    Elem::U32 | Elem::U64 => tensor.uint64_data.iter().map(|&v| v as i64).collect(),
                    _ => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
                };
                size(values.len(), "integers")?;
                Data::Ints(values.into())
            }
        };
        Ok(Host { elem, shape, data })
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Integers and booleans as they are; `None` for floating-point tensors and 8-bit weights.
    pub fn as_ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Ints(values) => Some(values),
            _ => None,
        }
    }

    /// All values as numbers.
    pub fn to_floats(&self) -> Vec<f64> {
        match &self.data {
            Data::Ints(values) => values.iter().map(|&v| v as f64).collect(),
            Data::Floats(values) => values.to_vec(),
            Data::Raw(bytes) => match self.raw_tensor() {
                Some(tensor) => tensor.to_f32().into_iter().map(f64::from).collect(),
                None => self.bytes(bytes).map(f64::from).collect(),
            },
        }
    }

    /// The same values under another shape of as many elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        Host { shape, ..self.clone() }
    }

    /// 8-bit integers one by one.
    fn bytes(&self, bytes: &[u8]) -> impl Iterator<Item = i32> {
        let signed = self.elem == Elem::I8;
        bytes.iter().map(move |&v| if signed { i32::from(v as i8) } else { i32::from(v) })
    }

    /// 8-bit weights as words of four, the lowest byte first, and whether they have a sign.
    pub fn packed(&self) -> Option<(Tensor, bool)> {
        let Data::Raw(bytes) = &self.data else { return None };
        if !matches!(self.elem, Elem::I8 | Elem::U8) {
            return None;
        }
        let words = bytes.len().div_ceil(4);
        let whole = match bytes.len() % 4 {
            0 => bytes.clone(),
            _ => {
                let mut padded = bytes.to_vec();
                padded.resize(4 * words, 0);
                Bytes::Owned(padded.into())
            }
        };
        Some((Tensor { desc: TensorDesc::new([words], DType::U32), bytes: whole }, self.elem == Elem::I8))
    }

    fn raw_tensor(&self) -> Option<Tensor> {
        let Data::Raw(bytes) = &self.data else { return None };
        let dtype = match self.elem {
            Elem::F32 => DType::F32,
            Elem::F16 => DType::F16,
            Elem::BF16 => DType::BF16,
            _ => return None,
        };
        Some(Tensor { desc: TensorDesc::new(self.shape.clone(), dtype), bytes: bytes.clone() })
    }

    /// As a weight of a graph: f32, f16 or bf16 as in the file, else the device's type.
    ///
    /// # Errors
    /// Integers that 32 bits do not hold.
    pub fn to_tensor(&self) -> Result<Tensor, String> {
        if let Some(tensor) = self.raw_tensor() {
            return Ok(tensor);
        }
        match (&self.data, self.elem.dtype()) {
            (Data::Raw(bytes), _) => {
                Ok(Tensor::from_i32(self.shape.clone(), &self.bytes(bytes).collect::<Vec<_>>()))
            }
            (Data::Ints(values), DType::U32) => {
                let values: Vec<u32> = values.iter().map(|&v| u32::from(v != 0)).collect();
                Ok(Tensor::from_u32(self.shape.clone(), &values))
            }
            (Data::Ints(values), _) => {
                let narrow = |v: &i64| i32::try_from(*v).map_err(|_| format!("{v} does not fit 32 bits"));
                let values = values.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
                Ok(Tensor::from_i32(self.shape.clone(), &values))
            }
            _ => {
                let values: Vec<f32> = self.to_floats().into_iter().map(|v| v as f32).collect();
                Ok(Tensor::from_f32(self.shape.clone(), &values))
            }
        }
    }
}

/// The number of elements of a shape, if it is at most so many. A shape with a zero in it has none, but the product of
/// its other dimensions must keep to the limit too, so that any of them can be multiplied.
pub fn elements_below(shape: &[usize], most: usize) -> Option<usize> {
    let product = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    (product <= most).then_some(if shape.contains(&0) { 0 } else { product })
}

/// `v` as a number of type `elem`.
pub fn round(elem: Elem, v: f64) -> f64 {
    match elem {
        Elem::F32 => f64::from(v as f32),
        Elem::F16 => half::f16::from_f64(v).to_f64(),
        Elem::BF16 => half::bf16::from_f64(v).to_f64(),
        _ => v,
    }
}

fn decode(elem: Elem, bytes: Bytes) -> Data {
    fn each<const N: usize>(b: &[u8], f: impl Fn([u8; N]) -> i64) -> Data {
        let values: Vec<i64> = b.chunks_exact(N).map(|c| f(c.try_into().expect("chunks of N"))).collect();
        Data::Ints(values.into())
    }
    let b: &[u8] = &bytes;
    match elem {
        // Weights keep their bytes; what cannot be bound as it lies is copied.
        Elem::F32 | Elem::F16 | Elem::BF16 => Data::Raw(bytes),
        Elem::I8 | Elem::U8 if b.len() > PACKED => Data::Raw(bytes),
        Elem::F64 => {
            let each = b.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().expect("eight bytes")));
            Data::Floats(each.collect::<Vec<f64>>().into())
        }
        Elem::I8 => each(b, |[v]| i64::from(v as i8)),
        Elem::U8 | Elem::Bool => each(b, |[v]| i64::from(v)),
        Elem::I16 => each(b, |v: [u8; 2]| i64::from(i16::from_le_bytes(v))),
        Elem::U16 => each(b, |v: [u8; 2]| i64::from(u16::from_le_bytes(v))),
        Elem::I32 => each(b, |v: [u8; 4]| i64::from(i32::from_le_bytes(v))),
        Elem::U32 => each(b, |v: [u8; 4]| i64::from(u32::from_le_bytes(v))),
        Elem::I64 => each(b, i64::from_le_bytes),
        Elem::U64 => each(b, |v: [u8; 8]| u64::from_le_bytes(v) as i64),
    }
}
