//! Scalar expressions: what an element-wise kernel or an epilogue computes for each element.

use std::fmt::Write;

/// Functions of one number. Each is a function of `shaders/lib/math.wgsl` or a WGSL builtin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Floor,
    Ceil,
    /// To the nearest integer, halves to even.
    Round,
    Sqrt,
    Rsqrt,
    Square,
    Reciprocal,
    Exp,
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
    Tanh,
    Erf,
    Sigmoid,
    Softplus,
    Relu,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `x/2 · (1 + erf(x/√2))`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`, CLIP's.
    QuickGelu,
    /// `x · clamp(x/6 + 1/2, 0, 1)`.
    HardSwish,
    /// `clamp(x/6 + 1/2, 0, 1)`.
    HardSigmoid,
    Mish,
    /// `x` where positive, else `alpha · x`.
    LeakyRelu(f32),
    /// `x` where positive, else `alpha · (exp(x) − 1)`.
    Elu(f32),
    /// `min(max(x, low), high)`.
    Clamp(f32, f32),
}

/// Functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
}

/// An expression over the inputs of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// The element of the operation's input with this index.
    Input(usize),
    Const(f32),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
}

impl Expr {
    pub fn input(i: usize) -> Self {
        Expr::Input(i)
    }

    pub fn unary(f: Unary, x: Expr) -> Self {
        Expr::Unary(f, Box::new(x))
    }

    pub fn binary(f: Binary, a: Expr, b: Expr) -> Self {
        Expr::Binary(f, Box::new(a), Box::new(b))
    }

    /// `min(max(x, low), high)`.
    pub fn clamp(x: Expr, low: f32, high: f32) -> Self {
        let x = Expr::binary(Binary::Max, x, Expr::Const(low));
        Expr::binary(Binary::Min, x, Expr::Const(high))
    }

    pub fn max(self, other: impl Into<Expr>) -> Self {
        Expr::binary(Binary::Max, self, other.into())
    }

    pub fn min(self, other: impl Into<Expr>) -> Self {
        Expr::binary(Binary::Min, self, other.into())
    }

    /// WGSL over values of the alias `V` named by `input`.
    pub fn wgsl(&self, input: &dyn Fn(usize) -> String) -> String {
        self.written(input, false)
    }

    /// The same. What is made of constants alone is left to the device: a compiler refuses it where it is no number.
    fn written(&self, input: &dyn Fn(usize) -> String, constant: bool) -> String {
        let constant = constant || !matches!(self, Expr::Const(_)) && self.inputs() == 0;
        match self {
            Expr::Input(i) => input(*i),
            Expr::Const(c) if constant => format!("V(bitcast<f32>({}u))", c.to_bits()),
            Expr::Const(c) => format!("V({})", literal(*c)),
            Expr::Unary(f, x) => f.wgsl(&x.written(input, constant)),
            Expr::Binary(f, a, b) => f.wgsl(&a.written(input, constant), &b.written(input, constant)),
        }
    }

    /// Number of inputs that are read: the largest index and one.
    pub fn inputs(&self) -> usize {
        match self {
            Expr::Input(i) => i + 1,
            Expr::Const(_) => 0,
            Expr::Unary(_, x) => x.inputs(),
            Expr::Binary(_, a, b) => a.inputs().max(b.inputs()),
        }
    }

    /// The same expression with functions that have names called by them: `x · sigmoid(x)` is
    /// SiLU, `x · hard_sigmoid(x)` hard swish, a minimum of a maximum a clamp.
    pub fn named(&self) -> Expr {
        match self {
            Expr::Input(_) | Expr::Const(_) => self.clone(),
            Expr::Unary(f, x) => Expr::unary(*f, x.named()),
            Expr::Binary(f, a, b) => {
                let (a, b) = (a.named(), b.named());
                match (f, &a, &b) {
                    (Binary::Mul, x, Expr::Unary(Unary::Sigmoid, y))
                    | (Binary::Mul, Expr::Unary(Unary::Sigmoid, y), x)
                        if **y == *x =>
                    {
                        Expr::unary(Unary::Silu, x.clone())
                    }
                    (Binary::Mul, x, Expr::Unary(Unary::HardSigmoid, y))
                    | (Binary::Mul, Expr::Unary(Unary::HardSigmoid, y), x)
                        if **y == *x =>
                    {
                        Expr::unary(Unary::HardSwish, x.clone())
                    }
                    (Binary::Min, Expr::Binary(Binary::Max, x, low), Expr::Const(high)) => match **low {
                        Expr::Const(low) if low <= *high => {
                            Expr::unary(Unary::Clamp(low, *high), (**x).clone())
                        }
                        _ => Expr::binary(*f, a, b),
                    },
                    _ => Expr::binary(*f, a, b),
                }
            }
        }
    }

    /// Number of arithmetic operations for an element.
    pub fn operations(&self) -> u64 {
        match self {
            Expr::Input(_) | Expr::Const(_) => 0,
            Expr::Unary(_, x) => 1 + x.operations(),
            Expr::Binary(_, a, b) => 1 + a.operations() + b.operations(),
        }
    }

    /// The expression with each input replaced.
    pub fn substitute(&self, replace: &dyn Fn(usize) -> Expr) -> Expr {
        match self {
            Expr::Input(i) => replace(*i),
            Expr::Const(c) => Expr::Const(*c),
            Expr::Unary(f, x) => Expr::unary(*f, x.substitute(replace)),
            Expr::Binary(f, a, b) => Expr::binary(*f, a.substitute(replace), b.substitute(replace)),
        }
    }
}

impl From<f32> for Expr {
    fn from(c: f32) -> Self {
        Expr::Const(c)
    }
}

/// Formulas as they are written.
macro_rules! operators {
    ($($name:ident $method:ident),*) => {$(
        impl<T: Into<Expr>> std::ops::$name<T> for Expr {
            type Output = Expr;

            fn $method(self, other: T) -> Expr {
                Expr::binary(Binary::$name, self, other.into())
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);

/// A constant that WGSL reads back bit for bit, infinities included.
fn literal(c: f32) -> String {
    let mut text = String::new();
    let result = match c.is_finite() {
        true => write!(text, "{c:?}f"),
        false => write!(text, "bitcast<f32>({}u)", c.to_bits()),
    };
    result.expect("writing to a string");
    text
}

/// A formula over the inputs `a`, `b`, `c` …
impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expr::Input(i) => write!(f, "{}", char::from(b'a' + (*i).min(25) as u8)),
            Expr::Const(c) => write!(f, "{c}"),
            Expr::Unary(function, x) => f.write_str(&function.wgsl(&x.to_string())),
            Expr::Binary(function, a, b) => f.write_str(&function.wgsl(&a.to_string(), &b.to_string())),
        }
    }
}

impl Unary {
    pub fn wgsl(self, x: &str) -> String {
        let call = match self {
            Unary::Neg => return format!("(-{x})"),
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Floor => "floor",
            Unary::Ceil => "ceil",
            Unary::Round => "round",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "inverseSqrt",
            Unary::Exp => "exp",
            Unary::Log => "ln",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Tan => "tan",
            Unary::Asin => "arcsine",
            Unary::Acos => "arccosine",
            Unary::Atan => "arctangent",
            Unary::Sinh => "hyperbolic_sine",
            Unary::Cosh => "cosh",
            Unary::Asinh => "area_sine",
            Unary::Acosh => "area_cosine",
            Unary::Atanh => "area_tangent",
            Unary::Square => "square",
            Unary::Reciprocal => "reciprocal",
            Unary::Tanh => "tanh_safe",
            Unary::Erf => "erf",
            Unary::Sigmoid => "sigmoid",
            Unary::Softplus => "softplus",
            Unary::Relu => "relu",
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::GeluTanh => "gelu_tanh",
            Unary::QuickGelu => "quick_gelu",
            Unary::HardSwish => "hard_swish",
            Unary::HardSigmoid => "hard_sigmoid",
            Unary::Mish => "mish",
            Unary::LeakyRelu(alpha) => return format!("leaky_relu({x}, {})", literal(alpha)),
            Unary::Elu(alpha) => return format!("elu({x}, {})", literal(alpha)),
            Unary::Clamp(low, high) if low <= high => {
                return format!("clamp({x}, V({}), V({}))", literal(low), literal(high));
            }
            // WGSL has no such clamp.
            Unary::Clamp(low, high) => {
                return format!("min(max({x}, V({})), V({}))", literal(low), literal(high));
            }
        };
        format!("{call}({x})")
    }
}

impl Binary {
    fn wgsl(self, a: &str, b: &str) -> String {
        match self {
            Binary::Add => format!("({a} + {b})"),
            Binary::Sub => format!("({a} - {b})"),
            Binary::Mul => format!("({a} * {b})"),
            Binary::Div => format!("({a} / {b})"),
            Binary::Min => format!("min({a}, {b})"),
            Binary::Max => format!("max({a}, {b})"),
            Binary::Pow => format!("power({a}, {b})"),
        }
    }
}
