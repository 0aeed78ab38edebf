//! Quantize: numbers as integers on a grid (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference").

use super::lines::run;
use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, Shape, TensorDesc};

/// What has a scale (the distance of the grid's points) and a zero point of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// The whole tensor: one number.
    Tensor,
    /// Each index of this axis: as many numbers.
    Axis(usize),
    /// Each line of so many elements along this axis: the tensor's shape with that axis so many times shorter.
    Block { axis: usize, size: usize },
}

/// `clamp(round(x / scale) + zero, low, high)`, halves to the even integer, in i32. The quotient is that of IEEE 754.
/// Inputs: x (f32, f16 or i32), scale (f32), zero (i32, may be left out). The result is i32.
#[derive(Clone, Debug)]
pub struct Quantize {
    pub per: Per,
    pub low: i32,
    pub high: i32,
    /// `x · scale` instead of the quotient, as where a sum of products is brought to another scale.
    pub times: bool,
    /// The number that the integer stands for, f32, instead of the integer: `x` rounded to the grid.
    pub back: bool,
}

impl Per {
    pub(super) fn check(self, x: &Shape, parameters: &[&TensorDesc]) -> Result<(), String> {
        let fits = |p: &Shape| match self {
            Per::Tensor => p.elements() == 1,
            Per::Axis(axis) => axis < x.len() && p.elements() == x[axis],
            Per::Block { axis, size } => {
                size > 0 && p.len() == x.len() && {
                    let wanted = |d: usize| if d == axis { x[d].div_ceil(size) } else { x[d] };
                    axis < x.len() && (0..x.len()).all(|d| p[d] == wanted(d))
                }
            }
        };
        for (p, (what, dtype)) in
            parameters.iter().zip([("scale", DType::F32), ("zero point", DType::I32)])
        {
            if p.dtype != dtype || !fits(&p.shape) {
                return Err(format!("{what} must be {dtype} {self:?} of {x}, found {p}"));
            }
        }
        Ok(())
    }

    /// How the place of a scale follows from that of an element.
    fn params(self, x: &Shape) -> [(&'static str, Param); 6] {
        let (inner, axis, block, [outer_step, axis_step, inner_step]) = match self {
            Per::Tensor => (x.elements(), 1, 1, [0, 0, 0]),
            Per::Axis(a) => (x[a + 1..].iter().product(), x[a], 1, [0, 1, 0]),
            Per::Block { axis: a, size } => {
                let inner: usize = x[a + 1..].iter().product();
                (inner, x[a], size, [x[a].div_ceil(size) * inner, inner, 1])
            }
        };
        [
            ("inner", inner.into()),
            ("axis", axis.into()),
            ("block", block.into()),
            ("outer_step", outer_step.into()),
            ("axis_step", axis_step.into()),
            ("inner_step", inner_step.into()),
        ]
    }
}

/// Launches `kernel` over the elements; without a zero point there is none to read.
pub(super) fn dispatch(mut kernel: Kernel, per: Per, extra: &[(&'static str, Param)], cx: &mut Lower) {
    let mut buffers = vec![("src", cx.input(0)), ("scale", cx.input(1)), ("dst", cx.output())];
    match cx.inputs() {
        3 => buffers.push(("zero", cx.input(2))),
        _ => kernel = kernel.function("zero_at", "fn zero_at(k: u32) -> i32 {\n    return 0;\n}"),
    }
    if per == Per::Tensor {
        kernel = kernel.function("place", "fn place(i: u32) -> u32 {\n    return 0u;\n}");
    }
    let shape = &cx.output_desc().shape;
    let run = run(cx.target(), shape.elements(), 4);
    let count = shape.elements() / run;
    let kernel = kernel.constant("RUN", format!("{run}u"));
    let mut params = vec![("count", count.into())];
    params.extend(per.params(shape));
    params.extend(extra.iter().cloned());
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(count));
}

impl Operator for Quantize {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=3)?;
        if inputs[0].dtype != DType::I32 {
            float("input", inputs[0])?;
        }
        if self.low > self.high || self.low < -(1 << 17) || self.high > 1 << 17 {
            return Err(format!("a range within ±2^17 is wanted, found {} to {}", self.low, self.high));
        }
        self.per.check(&inputs[0].shape, &inputs[1..])?;
        let dtype = if self.back { DType::F32 } else { DType::I32 };
        Ok(TensorDesc::new(inputs[0].shape.clone(), dtype))
    }

    fn detail(&self) -> String {
        format!("{:?} to {}..={}", self.per, self.low, self.high)
    }

    fn lower(&self, cx: &mut Lower) {
        let mut kernel =
            Kernel::new("quantize").constant("TIMES", self.times).alias("Elem", cx.desc(0).dtype.wgsl());
        if self.back {
            let number = "fn result(q: i32, k: u32) -> Out {\n    return f32(q - zero_at(k)) * scale[k];\n}";
            kernel = kernel.alias("Out", "f32").function("result", number);
        }
        let range = [("low", Param::I32(self.low)), ("high", Param::I32(self.high))];
        dispatch(kernel, self.per, &range, cx);
    }
}

impl Graph {
    /// `x` as integers on a grid: see [`Quantize`].
    pub fn quantize(
        &mut self,
        x: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
        options: Quantize,
    ) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
        self.push(options, &inputs)
    }
}
