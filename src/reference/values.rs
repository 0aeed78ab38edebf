//! The tensors of the reference.

use crate::tensor::{DType, Tensor, TensorDesc};

/// A tensor whose elements are read as f64.
#[derive(Clone, Debug)]
pub struct Values {
    pub desc: TensorDesc,
    numbers: Numbers,
}

/// As they are stored, so that large tensors stay as small as they are.
#[derive(Clone, Debug)]
enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U32(Vec<u32>),
    I32(Vec<i32>),
}

impl Values {
    /// A tensor as it is stored.
    pub fn of(tensor: &Tensor) -> Values {
        let words = || tensor.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let numbers = match tensor.desc.dtype {
            DType::F32 | DType::F16 | DType::BF16 => Numbers::F32(tensor.to_f32()),
            DType::U32 => Numbers::U32(words().collect()),
            DType::I32 => Numbers::I32(words().map(|w| w as i32).collect()),
        };
        Values { desc: tensor.desc.clone(), numbers }
    }

    /// Numbers that are rounded to no type.
    pub(crate) fn exact(desc: TensorDesc, numbers: Vec<f64>) -> Values {
        debug_assert_eq!(desc.shape.elements(), numbers.len());
        Values { desc, numbers: Numbers::F64(numbers) }
    }

    /// The element with this flat index.
    pub fn at(&self, i: usize) -> f64 {
        match &self.numbers {
            Numbers::F32(n) => f64::from(n[i]),
            Numbers::F64(n) => n[i],
            Numbers::U32(n) => f64::from(n[i]),
            Numbers::I32(n) => f64::from(n[i]),
        }
    }

    /// An element that is a word, an index or a truth value.
    pub(crate) fn word(&self, i: usize) -> u32 {
        match &self.numbers {
            Numbers::U32(n) => n[i],
            _ => self.at(i) as u32,
        }
    }

    pub fn elements(&self) -> usize {
        self.desc.shape.elements()
    }

    /// All elements.
    pub fn to_vec(&self) -> Vec<f64> {
        (0..self.elements()).map(|i| self.at(i)).collect()
    }
}
