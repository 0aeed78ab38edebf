//! Graphs, an operation at a time: operands of the shapes that it wants, and now and then others.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::expr::{Binary, Expr, Unary};
use aquatint::ops::pool::{PoolKind, PoolOptions};
use aquatint::ops::typed::Function;
use aquatint::{DType, Graph, Result, Shape, Tensor, ValueId};

use super::draw::Draw;
use super::operations;

/// Sizes round the edges of tiles and quads.
const SIZES: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 32, 33, 64, 65];
const HUGE: [usize; 8] = [255, 4096, 65535, 1 << 16, 1 << 24, 1 << 31, 1 << 33, usize::MAX];
/// Elements of a tensor that has values.
const STORED: usize = 1 << 14;

pub struct Builder {
    pub graph: Graph,
    pub values: Vec<ValueId>,
    f16: bool,
    names: usize,
    states: Vec<ValueId>,
    smooth: bool,
}

impl Builder {
    /// With one input.
    pub fn new(draw: &mut Draw, f16: bool) -> Self {
        let (graph, values, states) = (Graph::new(), Vec::new(), Vec::new());
        let mut builder = Builder { graph, values, f16, names: 0, states, smooth: true };
        let dtype = builder.float(draw);
        let shape = builder.shape(draw);
        let x = builder.leaf(draw, shape, dtype);
        builder.values.push(x);
        builder
    }

    /// Whether small changes of what it reads make small changes of what it gives.
    pub fn is_smooth(&self) -> bool {
        self.smooth
    }

    /// Says that a jump is among the functions.
    pub fn jumps(&mut self) {
        self.smooth = false;
    }

    /// The type of activations: f32 in most graphs.
    pub fn float(&self, draw: &mut Draw) -> DType {
        if draw.one_in(4) && self.f16 { DType::F16 } else { DType::F32 }
    }

    /// A feature map in most cases.
    pub fn shape(&self, draw: &mut Draw) -> Shape {
        let rank = draw.of(&[4, 4, 4, 4, 2, 3, 1, 5, 6, 0]);
        let mut shape: Vec<usize> = (0..rank).map(|_| draw.of(&SIZES)).collect();
        if let Some(samples) = shape.first_mut().filter(|_| rank == 4) {
            *samples = (*samples).min(3);
        }
        if draw.one_in(40) && rank > 0 {
            let axis = draw.below(rank);
            shape[axis] = draw.of(&HUGE);
        }
        shape.into()
    }

    pub fn size(&self, draw: &mut Draw) -> usize {
        draw.of(&SIZES)
    }

    /// One of the last values.
    pub fn pick(&self, draw: &mut Draw) -> ValueId {
        let last = self.values.len() - 1;
        self.values[last - draw.below(8).min(last)]
    }

    /// One of the last values of this rank, if there is one.
    pub fn ranked(&self, draw: &mut Draw, rank: usize) -> ValueId {
        let fits = |id: &&ValueId| self.graph.shape(**id).len() == rank;
        let fitting: Vec<ValueId> = self.values.iter().rev().filter(fits).take(4).copied().collect();
        if fitting.is_empty() { self.pick(draw) } else { fitting[draw.below(fitting.len())] }
    }

    pub fn dtype(&self, id: ValueId) -> DType {
        self.graph.desc(id).dtype
    }

    /// What the caller gives: a weight in most cases, where it is small enough to have values.
    pub fn leaf(&mut self, draw: &mut Draw, shape: impl Into<Shape>, dtype: DType) -> ValueId {
        let mut shape = shape.into();
        if draw.one_in(60) && !shape.is_empty() {
            let mut wrong = shape.to_vec();
            let axis = draw.below(wrong.len());
            wrong[axis] = draw.of(&[0, 1, 6, 11]);
            shape = wrong.into();
        }
        self.names += 1;
        let name = format!("{}", self.names);
        let kind = draw.below(5);
        if kind == 0 || shape.elements() > STORED {
            return self.graph.input(&name, shape, dtype);
        }
        let tensor = tensor(draw, shape, dtype);
        if kind == 1 {
            let state = self.graph.state(&name, tensor);
            self.states.push(state);
            return state;
        }
        self.graph.weight(&name, tensor)
    }

    pub fn maybe(&mut self, draw: &mut Draw, shape: impl Into<Shape>, dtype: DType) -> Option<ValueId> {
        let there = draw.flag();
        there.then(|| self.leaf(draw, shape, dtype))
    }

    /// Appends one.
    pub fn operation(&mut self, draw: &mut Draw) -> Result<()> {
        let made = operations::append(self, draw)?;
        self.values.extend(made);
        Ok(())
    }

    /// A formula of up to three numbers.
    pub fn expression(&mut self, draw: &mut Draw, inputs: usize, depth: usize) -> Expr {
        match draw.below(if depth == 0 { 2 } else { 6 }) {
            0 => Expr::Input(draw.below(inputs)),
            1 => Expr::Const(draw.number()),
            2 | 3 => {
                let f = self.function(draw);
                Expr::unary(f, self.expression(draw, inputs, depth - 1))
            }
            _ => {
                let f = binary(draw);
                let a = self.expression(draw, inputs, depth - 1);
                Expr::binary(f, a, self.expression(draw, inputs, depth - 1))
            }
        }
    }

    pub fn function(&mut self, draw: &mut Draw) -> Unary {
        use Unary::*;
        let all = [
            Relu,
            Silu,
            Gelu,
            GeluTanh,
            QuickGelu,
            HardSwish,
            HardSigmoid,
            Mish,
            Sigmoid,
            Tanh,
            Softplus,
            Neg,
            Abs,
            Square,
            Exp,
            Sqrt,
            Rsqrt,
            Reciprocal,
            Log,
            Sin,
            Cos,
            Tan,
            Asin,
            Acos,
            Atan,
            Sinh,
            Cosh,
            Asinh,
            Acosh,
            Atanh,
            Erf,
            Sign,
            Floor,
            Ceil,
            Round,
        ];
        let f = match draw.below(all.len() + 3) {
            known if known < all.len() => all[known],
            known if known == all.len() => LeakyRelu(draw.number()),
            known if known == all.len() + 1 => Elu(draw.number()),
            _ => Clamp(draw.number(), draw.number()),
        };
        if matches!(f, Sign | Floor | Ceil | Round) {
            self.jumps();
        }
        f
    }

    /// Outputs, and what states become; none if nothing was computed.
    pub fn finish(&mut self, draw: &mut Draw) -> Option<Graph> {
        let mut graph = self.graph.clone();
        let last = *self.values.last()?;
        graph.output("last", last);
        for i in 0..draw.below(3) {
            let id = self.pick(draw);
            graph.output(&format!("more {i}"), id);
        }
        for &state in &self.states {
            let fitting = self.values.iter().rev().find(|id| graph.desc(**id) == graph.desc(state));
            if let Some(&value) = fitting {
                // What is no result of an operation is refused.
                let _ = graph.update(state, value);
            }
        }
        Some(graph)
    }
}

pub fn binary(draw: &mut Draw) -> Binary {
    use Binary::*;
    draw.of(&[Add, Mul, Sub, Div, Min, Max, Pow])
}

pub fn pool(draw: &mut Draw) -> PoolKind {
    draw.of(&[PoolKind::Max, PoolKind::Mean { include_pad: false }, PoolKind::Mean { include_pad: true }])
}

/// A number that options have: small, seldom absurd.
pub fn option(draw: &mut Draw, small: &[usize]) -> usize {
    if draw.one_in(100) { draw.of(&[0, 31, 1 << 15, 1 << 20, usize::MAX]) } else { draw.of(small) }
}

pub fn convolution(draw: &mut Draw, padding: usize) -> Conv2dOptions {
    let mut pads = [option(draw, &[padding, 0, 1, 2]); 4];
    if draw.one_in(8) {
        pads[draw.below(4)] = draw.below(4);
    }
    Conv2dOptions {
        stride: [option(draw, &[1, 1, 1, 2, 3]), 1].map(|s| if draw.one_in(8) { 2 } else { s }),
        padding: pads,
        dilation: [option(draw, &[1, 1, 1, 2, 3]); 2],
        groups: 1,
    }
}

pub fn windows(draw: &mut Draw) -> PoolOptions {
    let kernel = [option(draw, &[2, 3, 1, 5]), option(draw, &[2, 3, 1])];
    PoolOptions {
        kernel,
        stride: [option(draw, &[1, 2, 3]); 2],
        padding: [option(draw, &[0, 1, 2]); 4],
        dilation: [option(draw, &[1, 1, 1, 2]); 2],
        ceil: draw.flag(),
    }
}

pub fn typed(draw: &mut Draw) -> Function {
    use Function::*;
    let wrap = Wrap { bits: draw.of(&[8, 16, 1, 31, 32]), signed: draw.flag() };
    let infinite = IsInfinite { positive: draw.flag(), negative: draw.flag() };
    draw.of(&[
        Cast,
        Bits,
        wrap,
        Not,
        And,
        Or,
        Xor,
        BitNot,
        Equal,
        Less,
        LessOrEqual,
        Where,
        Add,
        Sub,
        Mul,
        Div,
        Quotient,
        Min,
        Max,
        Modulo,
        Remainder,
        Power,
        Neg,
        Abs,
        Sign,
        IsNan,
        infinite,
    ])
}

/// Values that depend on the shape and a byte: small numbers for indices, within ±1 for others.
fn tensor(draw: &mut Draw, shape: Shape, dtype: DType) -> Tensor {
    let n = shape.elements();
    let seed = u32::from(draw.byte());
    let hash = |i: usize| (i as u32 ^ seed << 16).wrapping_mul(0x9E37_79B1) >> 7;
    match dtype {
        DType::U32 => Tensor::from_u32(shape, &(0..n).map(|i| hash(i) % 9).collect::<Vec<_>>()),
        DType::I32 => Tensor::from_i32(shape, &(0..n).map(|i| (hash(i) % 19) as i32 - 9).collect::<Vec<_>>()),
        float => {
            let mut values: Vec<f32> = (0..n).map(|i| (hash(i) % 2001) as f32 / 1000.0 - 1.0).collect();
            if let Some(first) = values.first_mut().filter(|_| seed > 250) {
                *first = draw.number();
            }
            Tensor::from_f32(shape, &values).to_dtype(float)
        }
    }
}
