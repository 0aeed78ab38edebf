//! 2-D convolution.

mod candidates;
mod costs;
mod depthwise;
mod direct;
mod matrices;
mod method;
mod product;
mod shared;
mod tiles;
pub(crate) mod winograd;

pub use matrices::Blocks;
pub(crate) use method::AtPoints;
pub(super) use method::even_part;
pub use method::Method;
pub use shared::Shared;
pub use winograd::{Products, Squares};

use super::epilogue::{Epilogue, Step};
use super::{Operator, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Lower, Slot};
use crate::tensor::{DType, TensorDesc};

/// Stride, padding, dilation and groups of a convolution, each pair as `[y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    pub stride: [usize; 2],
    /// Zeros added at the top, left, bottom and right.
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions {
            stride: [1; 2],
            padding: [0; 4],
            dilation: [1; 2],
            groups: 1,
        }
    }
}

impl Conv2dOptions {
    /// The same padding on all four sides.
    pub fn padded(padding: usize) -> Self {
        Conv2dOptions {
            padding: [padding; 4],
            ..Self::default()
        }
    }

    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride; 2];
        self
    }

    pub fn dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation; 2];
        self
    }

    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

/// Cross-correlation of `[n, h, w, c_in]` with `[c_out, c_in / groups, kh, kw]`,
/// as PyTorch's `Conv2d`, then the epilogue. Inputs: source, weight, the epilogue's tensors.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub options: Conv2dOptions,
    pub kernel: [usize; 2],
    pub c_in: usize,
    pub c_out: usize,
    /// Products that make one result: what the work is counted by, whatever a pass makes of it.
    pub products: usize,
    /// The source is first enlarged by this factor, each pixel repeated.
    pub upsample: usize,
    pub epilogue: Epilogue,
    /// `None` until the passes choose; then the weight is in the method's order.
    pub method: Option<Method>,
}

impl Operator for Conv2d {
    fn detail(&self) -> String {
        let [h, w] = self.kernel;
        let mut text = format!("{h}×{w}");
        match self.options.stride {
            [1, 1] => {}
            [y, x] if y == x => text += &format!(", stride {y}"),
            [y, x] => text += &format!(", stride {y}×{x}"),
        }
        if self.options.groups > 1 {
            text += &format!(", {} groups", self.options.groups);
        }
        text
    }

    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        let [source, weight, extras @ ..] = inputs else {
            return Err(format!("wants a source and a weight, found {} inputs", inputs.len()));
        };
        let [n, h, w, c] = nhwc("source", source)?;
        let (h, w) = (h * self.upsample, w * self.upsample);
        float("source", source)?;
        let o = &self.options;
        if o.stride.contains(&0) || o.dilation.contains(&0) || o.groups == 0 || self.kernel.contains(&0) {
            return Err(format!("stride, dilation, groups and kernel must be positive, found {o:?}"));
        }
        if self.kernel.iter().chain(&o.stride).chain(&o.dilation).chain(&o.padding).any(|&n| n > 1 << 15) {
            let [kh, kw] = self.kernel;
            return Err(format!("kernel, stride, dilation and padding must be at most 32768, found {kh}×{kw}, {o:?}"));
        }
        let whole = matches!(self.method, Some(Method::Texels(_))) && c == self.c_in.next_multiple_of(4);
        if c != self.c_in && !whole {
            return Err(format!("weight wants {} channels, source has {c}", self.c_in));
        }
        if !self.c_in.is_multiple_of(o.groups) || !self.c_out.is_multiple_of(o.groups) {
            return Err(format!(
                "{} groups divide neither {} input nor {} output channels evenly",
                o.groups, self.c_in, self.c_out
            ));
        }
        let wanted = if matches!(self.method, Some(Method::Blocks { .. })) { DType::U32 } else { source.dtype };
        if weight.dtype != wanted {
            return Err(format!("source is {}, weight is {}", source.dtype, weight.dtype));
        }
        let size = |i: usize, size: usize, before: usize, after: usize| {
            let reach = o.dilation[i] * (self.kernel[i] - 1) + 1;
            let padded = size + before + after;
            match padded >= reach {
                true => Ok((padded - reach) / o.stride[i] + 1),
                false => Err(format!("kernel reaches over {reach}, padded source has {padded}")),
            }
        };
        let [top, left, bottom, right] = o.padding;
        let shape = [n, size(0, h, top, bottom)?, size(1, w, left, right)?, self.c_out];
        let output = TensorDesc::new(shape, source.dtype);
        self.epilogue.check(extras, &output)?;
        Ok(output)
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        2 * (output.shape.elements() * self.products) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        match self.method {
            Some(Method::Rows(tile)) => tiles::lower_rows(self, tile, cx),
            Some(Method::Texels(tile)) => tiles::lower_texels(self, tile, cx),
            Some(Method::Blocks { tile, format, texels }) => {
                tiles::lower_blocks(self, tile, format, texels, cx);
            }
            Some(Method::Winograd { squares, products }) => winograd::lower(self, squares, products, cx),
            Some(Method::Shared(tile)) => shared::lower(self, tile, cx),
            Some(Method::Matrices(blocks)) => matrices::lower(self, blocks, cx),
            Some(Method::Depthwise) => depthwise::lower(self, cx),
            Some(Method::Direct) => direct::lower(self, cx),
            None => unreachable!("the pass `choose` gives every convolution a method"),
        }
    }
}

impl Conv2d {
    /// Buffers by the names that all kernels give them.
    fn buffers(&self, cx: &Lower) -> Vec<(&'static str, Slot)> {
        let extras = ["extra0", "extra1", "extra2"].into_iter().enumerate().take(self.epilogue.tensors());
        [("src", cx.input(0)), ("weight", cx.input(1)), ("dst", cx.output())]
            .into_iter()
            .chain(extras.map(|(i, name)| (name, cx.input(2 + i))))
            .collect()
    }
}

impl Graph {
    /// Convolution of `x` `[n, h, w, c_in]` with `weight` `[c_out, c_in / groups, kh, kw]`
    /// and an optional `bias` `[c_out]`; the result is `[n, h', w', c_out]`.
    pub fn conv2d(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        options: Conv2dOptions,
    ) -> Result<ValueId> {
        let [c_out, c_in, kh, kw] = self.shape(weight)[..] else {
            return Err(crate::Error::Graph {
                op: "Conv2d",
                node: self.value(weight).name.clone(),
                message: format!("weight must be [c_out, c_in, kh, kw], found {}", self.shape(weight)),
            });
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        let steps = bias.map(|_| Step::AddChannel).into_iter().collect();
        self.push(
            Conv2d {
                options,
                kernel: [kh, kw],
                c_in: c_in.saturating_mul(options.groups),
                c_out,
                products: [kh, kw, c_in].into_iter().fold(1, usize::saturating_mul),
                upsample: 1,
                epilogue: Epilogue { steps },
                method: None,
            },
            &inputs,
        )
    }

    /// Fully connected layer as PyTorch's `Linear`: `x` `[..., k]`, `weight` `[m, k]`,
    /// `bias` `[m]`; the result is `[..., m]`. A 1×1 convolution over a column of rows.
    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        let Some(k) = shape.split_last().map(|(&k, _)| k).filter(|&k| k > 0) else {
            return Err(crate::Error::Graph {
                op: "Linear",
                node: self.value(x).name.clone(),
                message: format!("input must be [..., k], found {shape}"),
            });
        };
        let [m, weight_k] = self.shape(weight)[..] else {
            return Err(crate::Error::Graph {
                op: "Linear",
                node: self.value(weight).name.clone(),
                message: format!("weight must be [out, in], found {}", self.shape(weight)),
            });
        };
        // As pictures of a pixel a row: how many rows a sample has decides how its sums are cut.
        let samples = if shape.len() > 2 { shape[0].max(1) } else { shape.elements() / k };
        let rows = self.reshape(x, [samples, shape.elements() / k / samples.max(1), 1, k])?;
        let weight = self.reshape(weight, [m, weight_k, 1, 1])?;
        let y = self.conv2d(rows, weight, bias, Conv2dOptions::default())?;
        let mut result = shape.to_vec();
        *result.last_mut().expect("rank is at least one") = m;
        self.reshape(y, result)
    }
}
