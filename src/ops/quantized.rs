//! Quantized: a weight that is kept in blocks of small integers.

use super::{Operator, arity, float};
use crate::error::{Error, Result};
use crate::graph::{Graph, Source, ValueId};
use crate::lower::Lower;
use crate::ops::Op;
use crate::ops::strided::Strided;
use crate::tensor::TensorDesc;

/// ggml's formats of weights: blocks of 32 numbers that are neighbours along the input axis, each with a scale in f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum BlockFormat {
    /// `q8_0`: integers from −127 to 127 times the scale, 8.5 bits a number.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// `q4_0`: integers from −8 to 7 times the scale, stored from 0 to 15, 4.5 bits a number.
    #[serde(rename = "q4_0")]
    Q4_0,
}

/// Numbers of a block.
pub const BLOCK: usize = 32;

impl BlockFormat {
    /// Words of 32 bits for the numbers of a block.
    pub fn words(self) -> usize {
        match self {
            BlockFormat::Q8_0 => 8,
            BlockFormat::Q4_0 => 4,
        }
    }
}

impl std::str::FromStr for BlockFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "q8_0" => Ok(BlockFormat::Q8_0),
            "q4_0" => Ok(BlockFormat::Q4_0),
            _ => Err(Error::Unknown {
                what: "format of weights",
                found: text.to_owned(),
                expected: "q8_0, q4_0".to_owned(),
            }),
        }
    }
}

/// Says of a weight that convolutions and fully connected layers are to keep it in blocks, where it is large enough
/// to be worth it: [`super::ConvWeight::Blocks`]. For all else it is the weight as it was.
#[derive(Clone, Debug)]
pub struct Quantized {
    pub format: BlockFormat,
}

impl Operator for Quantized {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("weight", inputs[0])?;
        Ok(inputs[0].clone())
    }

    fn lower(&self, _: &mut Lower) {}

    fn is_view(&self) -> bool {
        true
    }

    fn detail(&self) -> String {
        format!("{:?}", self.format).to_lowercase()
    }
}

impl Graph {
    /// The weight, to be kept in blocks by the convolutions and fully connected layers that read it, whole or in
    /// slices of its rows.
    pub fn quantized(&mut self, weight: ValueId, format: BlockFormat) -> Result<ValueId> {
        self.push(Quantized { format }, &[weight])
    }

    /// The blocks in which a weight is to be kept.
    pub(crate) fn block_format(&self, mut weight: ValueId) -> Option<BlockFormat> {
        loop {
            match &self.value(weight).source {
                Source::Op { op: Op::Quantized(quantized), .. } => return Some(quantized.format),
                Source::Op { op: Op::Reshape(_) | Op::Strided(Strided::Slice(_)), inputs } => {
                    weight = inputs[0];
                }
                _ => return None,
            }
        }
    }
}
