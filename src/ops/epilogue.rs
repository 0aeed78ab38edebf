//! What a convolution or matrix product does to each result before it is
//! written: bias, activation, residual, gate. Saves a pass over memory for each.

use std::fmt::Write;

use super::expr::Expr;
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// Most tensors that one epilogue can read.
pub const MAX_TENSORS: usize = 3;

/// One thing done to the result `[..., c]`. Tensors come from the operation's further inputs, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Adds a vector `[c]`: a bias.
    AddChannel,
    /// Adds a row of `[n, c]` to all pixels of a sample: a time embedding.
    AddSample,
    /// Adds a tensor of the result's shape: a residual connection.
    AddTensor,
    /// Multiplies with a tensor of the result's shape: a gate, or what it opens.
    MulTensor,
    /// Applies a function of one number.
    Apply(Expr),
}

impl Step {
    pub fn reads_tensor(&self) -> bool {
        !matches!(self, Step::Apply(_))
    }
}

/// The steps, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Epilogue {
    pub steps: Vec<Step>,
}

/// How a kernel holds its results.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// `vec4` in registers and in memory; the channel count is a multiple of four.
    Quads,
    /// `vec4` in registers, single elements in memory; the last quad may be cut short.
    QuadsOfScalars,
    /// Single elements.
    Scalars,
}

impl Epilogue {
    /// Number of tensors read.
    pub fn tensors(&self) -> usize {
        self.steps.iter().filter(|s| s.reads_tensor()).count()
    }

    /// Whether one more step of this kind fits.
    pub fn accepts(&self, step: &Step) -> bool {
        !step.reads_tensor() || self.tensors() < MAX_TENSORS
    }

    /// Checks the tensors that the steps read against the result.
    pub fn check(&self, tensors: &[&TensorDesc], output: &TensorDesc) -> Result<(), String> {
        let reading: Vec<&Step> = self.steps.iter().filter(|s| s.reads_tensor()).collect();
        if reading.len() != tensors.len() {
            return Err(format!("epilogue reads {} tensors, found {}", reading.len(), tensors.len()));
        }
        let (n, c) = (output.shape[0], output.shape.last());
        for (step, tensor) in reading.iter().zip(tensors) {
            if tensor.dtype != output.dtype {
                return Err(format!("result is {}, epilogue tensor is {}", output.dtype, tensor.dtype));
            }
            let fits = match step {
                Step::AddChannel => tensor.shape.elements() == c,
                Step::AddSample => tensor.shape.elements() == n * c && tensor.shape.last() == c,
                Step::AddTensor | Step::MulTensor => tensor.shape.elements() == output.shape.elements(),
                Step::Apply(_) => true,
            };
            if !fits {
                return Err(format!("result is {}, {step:?} is given {}", output.shape, tensor.shape));
            }
        }
        Ok(())
    }

    /// Splices the steps into a kernel as
    /// `fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V`, where `at`
    /// counts channels, or quads of channels when results are quads. The kernel
    /// declares `extra0` … and the parameters `c_out` and `quads_out`.
    pub fn splice(&self, kernel: Kernel, width: Width) -> Kernel {
        self.splice_from(kernel, width, 0, false)
    }

    /// The same, with what is one number for all pixels of a tile as `fn start(sample: u32, at: u32) -> V`,
    /// from which the kernel sums on: the vectors that come first, those of a sample
    /// only if a tile lies in one. With `residual`, tensors are read from the texture
    /// of that name.
    pub fn splice_tile(&self, kernel: Kernel, width: Width, one_sample: bool, residual: bool) -> Kernel {
        let starts = |step: &&Step| **step == Step::AddChannel || (one_sample && **step == Step::AddSample);
        let first = self.steps.iter().take_while(starts).count();
        let mut sum = String::new();
        for (tensor, step) in self.steps[..first].iter().enumerate() {
            let row = if *step == Step::AddChannel { "0u" } else { "sample" };
            let _ = write!(sum, " + {}", term(tensor, row, width));
        }
        let kernel = match first {
            0 => kernel,
            _ => kernel.function(
                "start",
                format!("fn start(sample: u32, at: u32) -> V {{\n    return V(0.0){sum};\n}}"),
            ),
        };
        self.splice_from(kernel, width, first, residual)
    }

    fn splice_from(&self, kernel: Kernel, width: Width, first: usize, residual: bool) -> Kernel {
        if self.steps.len() == first {
            return kernel;
        }
        let mut body = String::new();
        let mut tensor = self.steps[..first].iter().filter(|s| s.reads_tensor()).count();
        for step in &self.steps[first..] {
            let row = match step {
                Step::AddChannel => "0u",
                Step::AddSample => "sample",
                Step::AddTensor | Step::MulTensor => "pixel",
                Step::Apply(f) => {
                    let _ = writeln!(body, "    v = {};", f.wgsl(&|_| "v".to_owned()));
                    continue;
                }
            };
            let term = match step {
                Step::AddTensor | Step::MulTensor if residual => RESIDUAL_TEXEL.to_owned(),
                _ => term(tensor, row, width),
            };
            let operator = if *step == Step::MulTensor { '*' } else { '+' };
            let _ = writeln!(body, "    v {operator}= {term};");
            tensor += 1;
        }
        kernel.function(
            "epilogue",
            format!("fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {{\n    var v = value;\n{body}    return v;\n}}"),
        )
    }

    /// Which of the tensors has the result's shape, if exactly one has.
    pub fn residual(&self) -> Option<usize> {
        let reading = self.steps.iter().filter(|s| s.reads_tensor());
        let mut found = reading
            .enumerate()
            .filter(|(_, s)| matches!(s, Step::AddTensor | Step::MulTensor))
            .map(|(i, _)| i);
        found.next().filter(|_| found.next().is_none())
    }
}

const RESIDUAL_TEXEL: &str = "textureLoad(residual, texel(pixel * P.quads_out + at))";

/// Element or quad `at` of a row of the tensor with this number.
fn term(tensor: usize, row: &str, width: Width) -> String {
    match width {
        Width::Quads => format!("V(extra{tensor}[{row} * P.quads_out + at])"),
        Width::Scalars => format!("V(extra{tensor}[{row} * P.c_out + at])"),
        Width::QuadsOfScalars => {
            let lane = |i| format!("f32(extra{tensor}[{row} * P.c_out + min(at * 4u + {i}u, P.c_out - 1u)])");
            format!("V({})", [0, 1, 2, 3].map(lane).join(", "))
        }
    }
}
