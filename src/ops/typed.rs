//! Typed: element-wise functions of numbers with types of their own: conversions, comparisons,
//! logic, choices and integer arithmetic. Booleans are u32, 0 or 1.

use super::elementwise::broadcast;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, MAX_RANK, TensorDesc};

/// What is computed of the inputs `a`, `b` and `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `a` in the type of the result; towards zero for integers, `a ≠ 0` for booleans.
    Cast,
    /// The bits of `a` under another type of as many.
    Bits,
    /// Of the integer `a` the lowest so many bits, their highest the sign if there is one.
    Wrap {
        bits: u32,
        signed: bool,
    },
    Not,
    And,
    Or,
    Xor,
    BitNot,
    Equal,
    Less,
    LessOrEqual,
    /// `b` where `a` is true, else `c`.
    Where,
    Add,
    Sub,
    Mul,
    /// Towards zero for integers.
    Div,
    /// Of floats, to the nearest number, as IEEE 754 has it; `Div` may be off in the last places.
    Quotient,
    Min,
    Max,
    /// With the sign of the divisor; integers.
    Modulo,
    /// With the sign of the dividend.
    Remainder,
    /// Exact for integers.
    Power,
    Neg,
    Abs,
    Sign,
    IsNan,
    IsInfinite {
        positive: bool,
        negative: bool,
    },
}

impl Function {
    fn inputs(self) -> usize {
        use Function::*;
        match self {
            Cast | Bits | Wrap { .. } | Not | BitNot | Neg | Abs | Sign | IsNan | IsInfinite { .. } => 1,
            Where => 3,
            _ => 2,
        }
    }

    /// Whether the result is a boolean.
    fn decides(self) -> bool {
        use Function::*;
        matches!(self, Not | Equal | Less | LessOrEqual | IsNan | IsInfinite { .. })
    }

    /// WGSL of the result; floats are f32, whatever they are stored as.
    fn wgsl(self, input: DType, output: DType) -> String {
        use Function::*;
        let truth = |condition: &str| format!("Out(select(0u, 1u, {condition}))");
        let float = input.is_float();
        let divisor = if input == DType::U32 { "max(b, 1u)" } else { "divisor(a, b)" };
        match self {
            Cast if output == DType::U32 && input != DType::U32 => {
                // NaN is true, which `!=` of WGSL may not say.
                truth(if float { "!(a == 0.0)" } else { "a != 0" })
            }
            Cast => "Out(a)".to_owned(),
            Bits => "bitcast<Out>(a)".to_owned(),
            Wrap { bits, signed: true } => format!("Out((a << {0}u) >> {0}u)", 32 - bits),
            Wrap { bits, signed: false } => format!("Out(a & {})", (1u64 << bits) - 1),
            Not => truth("a == 0u"),
            And => "Out(a & b)".to_owned(),
            Or => "Out(a | b)".to_owned(),
            Xor => "Out(a ^ b)".to_owned(),
            BitNot => "Out(~a)".to_owned(),
            Equal => truth("a == b"),
            Less => truth("a < b"),
            LessOrEqual => truth("a <= b"),
            Where => "Out(select(c, b, a != 0u))".to_owned(),
            Add => "Out(a + b)".to_owned(),
            Sub => "Out(a - b)".to_owned(),
            Mul => "Out(a * b)".to_owned(),
            Div if float => "Out(a / b)".to_owned(),
            Div => format!("Out(a / {divisor})"),
            Quotient => "Out(quotient(a, b))".to_owned(),
            Min => "Out(min(a, b))".to_owned(),
            Max => "Out(max(a, b))".to_owned(),
            Modulo => format!("integer_modulo(a, {divisor})"),
            Remainder if float => "Out(a % b)".to_owned(),
            Remainder => format!("Out(a % {divisor})"),
            Power => "Out(integer_power(a, b))".to_owned(),
            Neg => "Out(-a)".to_owned(),
            Abs => "Out(abs(a))".to_owned(),
            Sign => "Out(sign(a))".to_owned(),
            IsNan => truth("is_nan(a)"),
            IsInfinite { positive, negative } => truth(&format!(
                "({positive} && bitcast<u32>(a) == 0x7f800000u) || ({negative} && bitcast<u32>(a) == 0xff800000u)"
            )),
        }
    }
}

/// `function` of inputs that broadcast as in NumPy.
#[derive(Clone, Debug)]
pub struct Typed {
    pub function: Function,
    pub dtype: DType,
}

impl Operator for Typed {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        use Function::*;
        let count = self.function.inputs();
        arity(inputs, count..=count)?;
        if inputs.iter().any(|d| d.dtype == DType::BF16) || self.dtype == DType::BF16 {
            return Err("bf16 must be unpacked first".to_owned());
        }
        let mut shape = inputs[0].shape.clone();
        for input in &inputs[1..] {
            shape = broadcast(&shape, &input.shape)?;
        }
        let first = inputs[0].dtype;
        let fits = match self.function {
            Cast => true,
            Bits => first.bytes() == 4 && self.dtype.bytes() == 4,
            Not => first == DType::U32,
            Where => first == DType::U32 && inputs[1].dtype == inputs[2].dtype && self.dtype == inputs[1].dtype,
            IsNan | IsInfinite { .. } | Quotient => first.is_float(),
            And | Or | Xor | BitNot => !first.is_float(),
            Modulo | Power | Wrap { .. } => first == DType::I32,
            Neg | Abs | Sign => first != DType::U32,
            _ => true,
        };
        let alike = self.function == Where || inputs.iter().all(|d| d.dtype == first);
        let result = match self.function {
            Cast | Bits | Where => true,
            f if f.decides() => self.dtype == DType::U32,
            _ => self.dtype == first,
        };
        match fits && alike && result {
            true => Ok(TensorDesc::new(shape, self.dtype)),
            false => {
                let types: Vec<String> = inputs.iter().map(|d| d.dtype.to_string()).collect();
                Err(format!("{:?} does not make {} of {}", self.function, self.dtype, types.join(", ")))
            }
        }
    }

    fn detail(&self) -> String {
        format!("{:?} {}", self.function, self.dtype)
    }

    fn lower(&self, cx: &mut Lower) {
        const SRC: [&str; 3] = ["src0", "src1", "src2"];
        const ALIAS: [&str; 3] = ["A", "B", "C"];
        let output = cx.output_desc().clone();
        let rank = output.shape.len();
        let mut kernel = Kernel::new("typed").alias("Out", output.dtype.wgsl());
        let mut buffers = vec![("dst", cx.output())];
        let mut strides = vec![0u32; 3 * 8];
        let mut body = String::new();
        for i in 0..cx.inputs() {
            let desc = cx.desc(i).clone();
            kernel = kernel.alias(ALIAS[i], desc.dtype.wgsl());
            buffers.push((SRC[i], cx.input(i)));
            let at = match desc.shape.elements() {
                1 => "0".to_owned(),
                n if n == output.shape.elements() => "i".to_owned(),
                _ => format!("strided(i, {i}u)"),
            };
            let own = desc.shape.strides();
            let skip = rank - desc.shape.len();
            for (d, &n) in desc.shape.iter().enumerate().filter(|(_, n)| **n != 1) {
                debug_assert_eq!(n, output.shape[skip + d]);
                strides[i * 8 + rank - 1 - skip - d] = own[d] as u32;
            }
            let element = format!("{}[{at}]", SRC[i]);
            let element = if desc.dtype.is_float() { format!("f32({element})") } else { element };
            body.push_str(&format!("    let {} = {element};\n", ["a", "b", "c"][i]));
        }
        let result = self.function.wgsl(cx.desc(0).dtype, output.dtype);
        kernel =
            kernel.function("element", format!("fn element(i: u32) -> Out {{\n{body}    return {result};\n}}"));
        let mut shape = vec![1u32; 8];
        for (to, from) in shape.iter_mut().zip(output.shape.iter().rev()) {
            *to = *from as u32;
        }
        let count = output.shape.elements();
        cx.dispatch(
            kernel.constant("RANK", format!("{rank}u")),
            &buffers,
            &[
                ("count", count.into()),
                ("shape", Param::Array(shape)),
                ("strides", Param::Array(strides)),
            ],
            Grid::Threads(count),
        );
    }
}

const _: () = assert!(MAX_RANK <= 8, "the kernel's shape parameters hold eight dimensions");

impl Graph {
    /// `function` of `inputs`, element by element; the result has the type of the (last) operand, or is a boolean.
    pub fn typed(&mut self, function: Function, inputs: &[ValueId]) -> Result<ValueId> {
        let dtype = match (function.decides(), inputs.last()) {
            (false, Some(&last)) => self.desc(last).dtype,
            _ => DType::U32,
        };
        self.push(Typed { function, dtype }, inputs)
    }

    /// `x` converted to another type: towards zero for integers; `x ≠ 0` for u32, which is a boolean here.
    pub fn convert(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        match self.desc(x).dtype == dtype {
            true => Ok(x),
            false => self.push(Typed { function: Function::Cast, dtype }, &[x]),
        }
    }

    /// `yes` where the boolean `condition` is true, else `no`; all broadcast.
    pub fn choose(&mut self, condition: ValueId, yes: ValueId, no: ValueId) -> Result<ValueId> {
        self.typed(Function::Where, &[condition, yes, no])
    }
}
