//! Layers as functions over a graph and named weights, as the files of PyTorch name them.

mod adapted;
mod attention;
mod finite;
mod fir;
mod resnet;
mod sampling;
mod stored;
mod time;
mod transformer;

pub use attention::attention_block;
pub use finite::count_not_finite;
pub use fir::{fir_downsample, fir_upsample};
pub use resnet::{Resample, ResamplingOptions, ResnetOptions, resampling_resnet_block, resnet_block};
pub use sampling::{downsample, upsample, upsample_to};
pub use stored::mean_of_pixels;
pub use time::{fourier_embedding, time_embedding};
pub use transformer::{Perturbed, TransformerOptions, spatial_transformer};

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;
use crate::tensor::DType;
use crate::weights::Weights;

/// Where layers find their weights, and the type that they compute with.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub weights: &'a Weights,
    pub dtype: DType,
}

impl Source<'_> {
    /// The weight `name` with its shape checked, and with what adapters add to it.
    pub fn get(&self, g: &mut Graph, name: &str, shape: &[usize]) -> Result<ValueId> {
        let weight = g.weight(name, self.weights.tensor(name, shape)?);
        let weight = match self.weights.deltas(name) {
            [] => g.unpacked(weight, self.dtype)?,
            deltas => adapted::adapted(g, name, weight, deltas, self.dtype)?,
        };
        match self.weights.blocks() {
            Some(format) if shape.len() >= 2 => g.quantized(weight, format),
            _ => Ok(weight),
        }
    }

    /// A convolution with a square kernel and `NAME.weight`, `NAME.bias`.
    pub fn conv(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        c_out: usize,
        kernel: usize,
        options: Conv2dOptions,
    ) -> Result<ValueId> {
        let c_in = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[c_out, c_in, kernel, kernel])?;
        let bias = self.get(g, &format!("{name}.bias"), &[c_out])?;
        g.scoped(name, |g| g.conv2d(x, weight, Some(bias), options))
    }

    /// A fully connected layer with `NAME.weight`, `NAME.bias`.
    pub fn linear(&self, g: &mut Graph, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
        let width = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[out, width])?;
        let bias = self.get(g, &format!("{name}.bias"), &[out])?;
        g.scoped(name, |g| g.linear(x, weight, Some(bias)))
    }

    /// A fully connected layer with `NAME.weight` alone.
    pub fn matrix(&self, g: &mut Graph, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
        let width = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[out, width])?;
        g.scoped(name, |g| g.linear(x, weight, None))
    }

    /// A group norm with `NAME.weight`, `NAME.bias`.
    pub fn group_norm(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        groups: usize,
        eps: f32,
    ) -> Result<ValueId> {
        let c = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[c])?;
        let bias = self.get(g, &format!("{name}.bias"), &[c])?;
        g.scoped(name, |g| g.group_norm(x, groups, Some(weight), Some(bias), eps))
    }
}
