//! What a tensor is, before there is any memory for it.

use std::fmt;
use std::sync::Arc;

/// Element type. `F16` and `BF16` weights are stored as in the file and
/// unpacked on the GPU; activations are `F32` or, on devices that have it, `F16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    F16,
    BF16,
    U32,
    I32,
}

impl DType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// The WGSL type that kernels see.
    pub fn wgsl(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U32 => "u32",
            DType::I32 => "i32",
            DType::BF16 => "u32",
        }
    }

    pub fn is_float(self) -> bool {
        !matches!(self, DType::U32 | DType::I32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U32 => "u32",
            DType::I32 => "i32",
        })
    }
}

/// Shape, row-major, outermost first. Feature maps are `[n, h, w, c]`.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Shape(Vec<usize>);

/// Most dimensions that a tensor may have.
pub const MAX_RANK: usize = 6;

impl Shape {
    /// The product of the dimensions, or the largest number there is where that is larger still.
    pub fn elements(&self) -> usize {
        match self.0.contains(&0) {
            true => 0,
            false => self.0.iter().fold(1, |n, &d| n.saturating_mul(d)),
        }
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.0.len()];
        for i in (0..self.0.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1] * self.0[i + 1];
        }
        strides
    }

    /// Size of the innermost dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape(dims)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Shape and element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct TensorDesc {
    pub shape: Shape,
    pub dtype: DType,
}

impl TensorDesc {
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        TensorDesc { shape: shape.into(), dtype }
    }

    /// Size in bytes, unpadded.
    pub fn bytes(&self) -> u64 {
        self.shape.elements().saturating_mul(self.dtype.bytes()) as u64
    }
}

impl fmt::Display for TensorDesc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape.0)
    }
}

/// Bytes of a tensor on the host: owned, or a window into a mapped file.
#[derive(Clone)]
pub enum Bytes {
    Owned(Arc<[u8]>),
    Static(&'static [u8]),
    /// A slice of memory that others read too.
    Shared(bytes::Bytes),
    Mapped {
        map: Arc<memmap2::Mmap>,
        range: std::ops::Range<usize>,
    },
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Bytes {
    /// A window into these; nothing is copied.
    fn slice(&self, part: std::ops::Range<usize>) -> Bytes {
        match self {
            Bytes::Owned(b) => Bytes::Shared(bytes::Bytes::from_owner(b.clone()).slice(part)),
            Bytes::Static(b) => Bytes::Static(&b[part]),
            Bytes::Shared(b) => Bytes::Shared(b.slice(part)),
            Bytes::Mapped { map, range } => {
                Bytes::Mapped { map: map.clone(), range: range.start + part.start..range.start + part.end }
            }
        }
    }

    /// Tells the system that these will be read soon, so that it fetches them from the disk meanwhile.
    pub(crate) fn soon(&self, part: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped { map, range } = self {
            // Only a hint: what fails costs time later and nothing else.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start + part.start, part.len());
        }
        #[cfg(not(unix))]
        let _ = part;
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Owned(b) => b,
            Bytes::Static(b) => b,
            Bytes::Shared(b) => b,
            Bytes::Mapped { map, range } => &map[range.clone()],
        }
    }
}

/// A tensor with its values on the host.
#[derive(Clone)]
pub struct Tensor {
    pub desc: TensorDesc,
    pub bytes: Bytes,
}

impl Tensor {
    /// A tensor of `f32` values.
    ///
    /// # Panics
    /// If `values` does not have as many elements as `shape`.
    pub fn from_f32(shape: impl Into<Shape>, values: &[f32]) -> Self {
        Self::from_slice(shape, DType::F32, values)
    }

    /// A tensor of `u32` values. Panics as [`Tensor::from_f32`].
    pub fn from_u32(shape: impl Into<Shape>, values: &[u32]) -> Self {
        Self::from_slice(shape, DType::U32, values)
    }

    /// A tensor of `i32` values. Panics as [`Tensor::from_f32`].
    pub fn from_i32(shape: impl Into<Shape>, values: &[i32]) -> Self {
        Self::from_slice(shape, DType::I32, values)
    }

    fn from_slice<T: bytemuck::Pod>(shape: impl Into<Shape>, dtype: DType, values: &[T]) -> Self {
        let desc = TensorDesc::new(shape, dtype);
        assert_eq!(desc.shape.elements(), values.len(), "{desc} given {} values", values.len());
        Tensor { desc, bytes: Bytes::Owned(bytemuck::cast_slice(values).into()) }
    }

    /// Part of the first axis; nothing is copied.
    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> Tensor {
        let mut shape = self.desc.shape.to_vec();
        let row = self.bytes.len() / shape[0];
        shape[0] = rows.len();
        Tensor {
            desc: TensorDesc::new(shape, self.desc.dtype),
            bytes: self.bytes.slice(rows.start * row..rows.end * row),
        }
    }

    /// Lines of `[1, h, w, c]`; nothing is copied.
    pub(crate) fn lines(&self, lines: std::ops::Range<usize>) -> Tensor {
        let [one, h, w, c] = self.desc.shape[..] else { unreachable!("lines are of feature maps") };
        let map = Tensor { desc: TensorDesc::new([h, w, c], self.desc.dtype), bytes: self.bytes.clone() };
        let mut part = map.rows(lines.clone());
        part.desc.shape = [one, lines.len(), w, c].into();
        part
    }

    /// The same values rounded to another float type.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        let values = self.to_f32();
        let bytes: Vec<u8> = match dtype {
            DType::F32 => bytemuck::cast_slice(&values).to_vec(),
            DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            DType::U32 => values.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
            DType::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        };
        Tensor { desc: TensorDesc::new(self.desc.shape.clone(), dtype), bytes: Bytes::Owned(bytes.into()) }
    }

    /// Values as `f32`, whatever the float type. Integers are converted.
    pub fn to_f32(&self) -> Vec<f32> {
        let b: &[u8] = &self.bytes;
        let halves =
            |f: fn(u16) -> f32| b.chunks_exact(2).map(|c| f(u16::from_le_bytes([c[0], c[1]]))).collect();
        let words = |f: fn(u32) -> f32| {
            b.chunks_exact(4).map(|c| f(u32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect()
        };
        match self.desc.dtype {
            DType::F32 => words(f32::from_bits),
            DType::F16 => halves(|h| half::f16::from_bits(h).to_f32()),
            DType::BF16 => halves(|h| half::bf16::from_bits(h).to_f32()),
            DType::U32 => words(|u| u as f32),
            DType::I32 => words(|u| u as i32 as f32),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({})", self.desc)
    }
}
