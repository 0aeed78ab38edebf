//! Timestep embedding: a number as sines and cosines of many frequencies.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, TensorDesc};

/// Most numbers of an embedding.
pub const MAX_DIM: usize = 512;

/// As diffusers' `get_timestep_embedding`. Input: `[rows, k]`, f32, of which the first column is read.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    pub dim: usize,
    /// Cosines before sines (`flip_sin_to_cos`).
    pub cos_first: bool,
    /// Frequency `j` of `half` is `scale · max_period^(−j / (half − shift))` (`downscale_freq_shift`).
    pub shift: f64,
    pub scale: f64,
    pub max_period: f64,
    pub dtype: DType,
}

impl TimestepEmbedding {
    /// With diffusers' defaults for everything else.
    pub fn new(dim: usize, cos_first: bool, shift: f64) -> Self {
        TimestepEmbedding { dim, cos_first, shift, scale: 1.0, max_period: 10_000.0, dtype: DType::F32 }
    }

    /// Radians per unit of time.
    pub fn frequencies(&self) -> Vec<f32> {
        let half = self.dim / 2;
        let frequency = |j: usize| self.scale * self.max_period.powf(-(j as f64) / (half as f64 - self.shift));
        (0..half).map(|j| frequency(j) as f32).collect()
    }
}

impl Operator for TimestepEmbedding {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let [rows, _] = inputs[0].shape[..] else {
            return Err(format!("timesteps must be [rows, k], found {}", inputs[0].shape));
        };
        if inputs[0].dtype != DType::F32 {
            return Err(format!("timesteps must be f32, found {}", inputs[0].dtype));
        }
        if !(2..=MAX_DIM).contains(&self.dim) || (self.dim / 2) as f64 <= self.shift {
            return Err(format!("width must be 2 to {MAX_DIM} and above twice the shift, found {}", self.dim));
        }
        if !self.dtype.is_float() || self.dtype == DType::BF16 {
            return Err(format!("result must be f32 or f16, found {}", self.dtype));
        }
        Ok(TensorDesc::new([rows, self.dim], self.dtype))
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        24 * output.shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let count = cx.output_desc().shape.elements();
        let bits: Vec<u32> = self.frequencies().into_iter().map(f32::to_bits).collect();
        cx.dispatch(
            Kernel::new("timestep_embedding").alias("Elem", elem(cx.output_desc())),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("stride", cx.desc(0).shape.last().into()),
                ("dim", self.dim.into()),
                ("cos_first", u32::from(self.cos_first).into()),
                ("frequencies", Param::Array(bits)),
            ],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// Sinusoidal embedding `[rows, dim]` of the first column of `timesteps` `[rows, k]`, f32.
    pub fn timestep_embedding(&mut self, timesteps: ValueId, embedding: TimestepEmbedding) -> Result<ValueId> {
        self.push(embedding, &[timesteps])
    }
}
