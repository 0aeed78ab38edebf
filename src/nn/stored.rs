//! Layers of the size that the file has them in: widths, kernels and groups are read from the
//! shapes of the weights, so that narrow and wide variants of an architecture need no table.

use super::Source;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Unary;

impl Source<'_> {
    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// Shape of `NAME.weight`, which must have `N` dimensions.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], and [`Error::WrongTensor`] for another number of dimensions.
    pub fn stored<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let name = format!("{name}.weight");
        let expected = format!("of {N} dimensions");
        let file = self.weights.file().to_owned();
        let Some(shape) = self.weights.shape(&name) else {
            return Err(Error::MissingTensor { file, name, expected });
        };
        match shape[..].try_into() {
            Ok(dims) if !shape.contains(&0) => Ok(dims),
            _ => Err(Error::WrongTensor { file, name, expected, found: format!("shape {shape}") }),
        }
    }

    /// The convolution `NAME.weight`, with `NAME.bias` if there is one; padded so that a
    /// stride of one keeps the size. Its groups follow from the channels of `x`.
    pub fn stored_conv(&self, g: &mut Graph, name: &str, x: ValueId, stride: usize) -> Result<ValueId> {
        let [_, _, kh, kw] = self.stored(name)?;
        let (y, x_pad) = (kh / 2, kw / 2);
        self.stored_conv_padded(g, name, x, stride, [y, x_pad, y, x_pad])
    }

    /// The same with its padding given: top, left, bottom, right.
    pub fn stored_conv_padded(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        stride: usize,
        padding: [usize; 4],
    ) -> Result<ValueId> {
        let shape: [usize; 4] = self.stored(name)?;
        let weight = self.get(g, &format!("{name}.weight"), &shape)?;
        let bias = self.stored_vector(g, &format!("{name}.bias"), shape[0])?;
        let groups = (g.shape(x).last() / shape[1]).max(1);
        let options = Conv2dOptions { stride: [stride; 2], padding, dilation: [1; 2], groups };
        g.scoped(name, |g| g.conv2d(x, weight, bias, options))
    }

    /// A vector `[length]`, if the file has it.
    pub fn stored_vector(&self, g: &mut Graph, name: &str, length: usize) -> Result<Option<ValueId>> {
        match self.has(name) {
            true => self.get(g, name, &[length]).map(Some),
            false => Ok(None),
        }
    }

    /// The batch norm `NAME` with its running statistics.
    pub fn batch_norm(&self, g: &mut Graph, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
        let c = g.shape(x).last();
        let mut vector = |part: &str| self.get(g, &format!("{name}.{part}"), &[c]);
        let [weight, bias] = [vector("weight")?, vector("bias")?];
        let [mean, variance] = [vector("running_mean")?, vector("running_var")?];
        g.scoped(name, |g| g.batch_norm(x, weight, bias, mean, variance, eps))
    }

    /// The layer norm `NAME` over the last dimension.
    pub fn layer_norm(&self, g: &mut Graph, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
        let c = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[c])?;
        let bias = self.get(g, &format!("{name}.bias"), &[c])?;
        g.scoped(name, |g| g.layer_norm(x, Some(weight), Some(bias), eps))
    }

    /// The RMS norm `NAME` over the last dimension.
    pub fn rms_norm(&self, g: &mut Graph, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
        let c = g.shape(x).last();
        let weight = self.get(g, &format!("{name}.weight"), &[c])?;
        g.scoped(name, |g| g.rms_norm(x, Some(weight), eps))
    }

    /// The fully connected layer `NAME.weight`, with `NAME.bias` if there is one.
    pub fn stored_linear(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let shape: [usize; 2] = self.stored(name)?;
        let weight = self.get(g, &format!("{name}.weight"), &shape)?;
        let bias = self.stored_vector(g, &format!("{name}.bias"), shape[0])?;
        g.scoped(name, |g| g.linear(x, weight, bias))
    }

    /// Convolution, batch norm and activation: the brick of most networks.
    pub fn conv_norm(
        &self,
        g: &mut Graph,
        [conv, norm]: [&str; 2],
        x: ValueId,
        stride: usize,
        eps: f32,
        activation: Option<Unary>,
    ) -> Result<ValueId> {
        let h = self.stored_conv(g, conv, x, stride)?;
        let h = self.batch_norm(g, norm, h, eps)?;
        match activation {
            Some(f) => g.scoped(norm, |g| g.unary(f, h)),
            None => Ok(h),
        }
    }

    /// Squeeze and excitation (Hu et al. 2018): `x` scaled by what two 1×1 convolutions make of its mean.
    pub fn squeeze_excitation(
        &self,
        g: &mut Graph,
        [reduce, expand]: [&str; 2],
        x: ValueId,
        activation: Unary,
        gate: Unary,
    ) -> Result<ValueId> {
        use crate::ops::pool::PoolKind;
        let mean = g.scoped(reduce, |g| g.global_pool(x, PoolKind::Mean { include_pad: false }))?;
        let h = self.stored_conv(g, reduce, mean, 1)?;
        let h = g.scoped(reduce, |g| g.unary(activation, h))?;
        let h = self.stored_conv(g, expand, h, 1)?;
        let h = g.scoped(expand, |g| g.unary(gate, h))?;
        g.scoped(expand, |g| g.mul(x, h))
    }
}

/// The mean of each channel, `[n, c]`.
pub fn mean_of_pixels(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    use crate::ops::pool::PoolKind;
    let mean = g.global_pool(x, PoolKind::Mean { include_pad: false })?;
    let (n, c) = (g.shape(mean)[0], g.shape(mean).last());
    g.reshape(mean, [n, c])
}
