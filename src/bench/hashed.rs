//! Numbers out of names: weights and inputs that are the same on every machine and in every language, without a file.
//!
//! `scripts/references/architectures.py` makes the same ones; what networks give for them, PyTorch has computed.

use crate::tensor::{DType, Shape, Tensor};

/// `count` numbers from -1 to 1: FNV-1a of the name, then a 32-bit mix of the index.
pub fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(2_166_136_261_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let number = |i: usize| {
        let mut v = (i as u32).wrapping_mul(0x9E37_79B9).wrapping_add(seed);
        v = (v ^ (v >> 16)).wrapping_mul(0x7FEB_352D);
        v = (v ^ (v >> 15)).wrapping_mul(0x846C_A68B);
        v ^= v >> 16;
        (v >> 8) as f32 * 2f32.powi(-23) - 1.0
    };
    (0..count).map(number).collect()
}

/// An f32 input.
pub fn input(name: &str, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let values = numbers(name, shape.elements());
    Tensor::from_f32(shape, &values)
}

/// A weight times `gain`: matrices and kernels as He et al. 2015 draw them, uniform; scales and statistics about their
/// usual values.
pub fn weight(name: &str, shape: &Shape, gain: f32) -> Tensor {
    let mut values = numbers(name, shape.elements());
    let fan_in: usize = shape.iter().skip(1).product();
    let is_matrix = shape.len() >= 2 && shape[0].min(fan_in) > 1 && !name.ends_with("layer_scale");
    let is_scale = ["running_var", "weight", "layer_scale", "gamma"].iter().any(|end| name.ends_with(end));
    let (scale, shift) = match (is_matrix, is_scale) {
        (true, _) => ((6.0 / fan_in as f32).sqrt(), 0.0),
        (false, true) => (0.25, 1.0),
        (false, false) => (0.1, 0.0),
    };
    values.iter_mut().for_each(|v| *v = (*v * scale + shift) * gain);
    let tensor = Tensor::from_f32(shape.clone(), &values);
    debug_assert_eq!(tensor.desc.dtype, DType::F32);
    tensor
}
