//! A tensor seen as lines along one of its dimensions: what softmax and the reductions share.

use crate::tensor::{DType, Shape};

/// `[outer, size, inner]` of a shape whose dimensions `first..end` are one line.
pub fn split(shape: &Shape, first: usize, end: usize) -> [usize; 3] {
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    [product(&shape[..first]), product(&shape[first..end]), product(&shape[end..])]
}

/// Kernel types for `inner` neighbouring numbers: the alias `V`, the storage type
/// and how many numbers it holds.
pub fn packed(inner: usize, dtype: DType) -> (&'static str, &'static str, usize) {
    match (inner.is_multiple_of(4), dtype) {
        (true, DType::F16) => ("vec4<f32>", "vec4<f16>", 4),
        (true, _) => ("vec4<f32>", "vec4<f32>", 4),
        (false, dtype) => ("f32", dtype.wgsl(), 1),
    }
}

/// Storage type of four neighbouring numbers.
pub fn quad(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "vec4<f16>",
        _ => "vec4<f32>",
    }
}
