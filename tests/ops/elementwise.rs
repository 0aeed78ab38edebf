use aquatint::ops::expr::{Binary, Expr, Unary};

use crate::harness::{Array, Case, Rng};

/// erf by its Taylor series in f64, exact to 1e-13 for |x| ≤ 4.
fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn reference(f: Unary, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => x.signum(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Square => x * x,
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => erf(x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Softplus => x.exp().ln_1p(),
        Unary::Relu => x.max(0.0),
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Unary::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Unary::QuickGelu => x * sigmoid(1.702 * x),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Mish => x * x.exp().ln_1p().tanh(),
        Unary::LeakyRelu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * x
            }
        }
        Unary::Clamp(low, high) => x.clamp(low.into(), high.into()),
        Unary::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * x.exp_m1()
            }
        }
    }
}

#[test]
fn every_unary_function() {
    let anywhere = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Square,
        Unary::Exp,
        Unary::Sin,
        Unary::Cos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Tanh,
        Unary::Erf,
        Unary::Sigmoid,
        Unary::Softplus,
        Unary::Relu,
        Unary::Silu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::QuickGelu,
        Unary::HardSwish,
        Unary::HardSigmoid,
        Unary::Mish,
        Unary::LeakyRelu(0.1),
        Unary::Elu(0.7),
        Unary::Clamp(-0.5, 0.8),
    ];
    let positive = [Unary::Sqrt, Unary::Rsqrt, Unary::Reciprocal, Unary::Log];
    let within_one = [Unary::Tan, Unary::Asin, Unary::Acos, Unary::Atanh];
    let mut rng = Rng::new("unary");
    for (functions, low, high) in [
        (&anywhere[..], -4.0, 4.0),
        (&positive[..], 0.1, 4.0),
        (&within_one[..], -0.95, 0.95),
        (&[Unary::Acosh][..], 1.1, 4.0),
    ] {
        for &f in functions {
            // An odd count takes the scalar kernel, a multiple of four the vector one.
            for shape in [[3, 37], [4, 64]] {
                let x = rng.array_in(&shape, low, high);
                Case::new(format!("{f:?} {shape:?}"))
                    .input(&x)
                    .check(|g, v| g.unary(f, v[0]), |a| a[0].map(|x| reference(f, x)));
            }
        }
    }
}

#[test]
fn activations_do_not_overflow() {
    let x = Array { shape: vec![6], data: vec![-60000.0, -200.0, -90.0, 90.0, 200.0, 60000.0] };
    for f in [
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Mish,
        Unary::Softplus,
        Unary::Relu,
    ] {
        let limit = |x: f64| match f {
            Unary::Tanh => x.signum(),
            Unary::Sigmoid => f64::from(u8::from(x > 0.0)),
            _ => x.max(0.0),
        };
        Case::new(format!("{f:?} of large numbers"))
            .input(&x)
            .check(|g, v| g.unary(f, v[0]), |a| a[0].map(limit));
    }
}

/// Element of `a` for an index of the broadcast result.
fn broadcast(a: &Array, index: &[usize]) -> f64 {
    let skip = index.len() - a.shape.len();
    let own: Vec<usize> =
        a.shape.iter().zip(&index[skip..]).map(|(&n, &i)| if n == 1 { 0 } else { i }).collect();
    a.at(&own)
}

#[test]
fn binary_functions_broadcast() {
    let mut rng = Rng::new("binary");
    let shapes: [(&[usize], &[usize], &[usize]); 9] = [
        (&[2, 3, 5, 4], &[2, 3, 5, 4], &[2, 3, 5, 4]),
        (&[2, 3, 5, 8], &[8], &[2, 3, 5, 8]),
        (&[2, 3, 5, 7], &[7], &[2, 3, 5, 7]),
        (&[2, 3, 5, 8], &[2, 1, 1, 8], &[2, 3, 5, 8]),
        (&[2, 3, 5, 8], &[2, 3, 5, 1], &[2, 3, 5, 8]),
        (&[2, 3, 1, 6], &[1, 5, 1], &[2, 3, 5, 6]),
        (&[1], &[3, 3], &[3, 3]),
        (&[4, 1], &[1, 9], &[4, 9]),
        (&[3, 1, 2, 1, 5, 1], &[1, 4, 1, 3, 1, 2], &[3, 4, 2, 3, 5, 2]),
    ];
    for (a_shape, b_shape, shape) in shapes {
        for f in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max] {
            let a = rng.array(a_shape);
            let b = rng.array_in(b_shape, 0.5, 2.0);
            let compute = |x: f64, y: f64| match f {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::Mul => x * y,
                Binary::Div => x / y,
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
                Binary::Pow => unreachable!(),
            };
            Case::new(format!("{f:?} {a_shape:?} {b_shape:?}")).input(&a).input(&b).check(
                |g, v| g.binary(f, v[0], v[1]),
                |a| Array::from_fn(shape, |i| compute(broadcast(&a[0], i), broadcast(&a[1], i))),
            );
        }
    }
}

#[test]
fn large_tensors_have_several_units_for_each_thread() {
    let mut rng = Rng::new("large");
    // Quads and single numbers, more than 2^18 of both, which no workgroup's length divides.
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[5, 3, 37, 1892], &[5, 1, 1, 1892]),
        (&[262_147], &[1]),
        // Rows of all samples or of each, as many as threads go down or none of that, quads and single numbers.
        (&[3, 64, 33, 16], &[16]),
        (&[3, 64, 33, 16], &[3, 1, 1, 16]),
        (&[2, 47, 53, 7], &[7]),
        (&[2, 48, 53, 7], &[2, 1, 1, 7]),
        (&[2, 45, 64, 3], &[2, 45, 64, 1]),
        // One number for many neighbours: quads, none that threads divide evenly, single numbers.
        (&[96, 80, 3, 3], &[96, 1, 1, 1]),
        (&[601, 4, 5, 7], &[601, 1, 1, 1]),
        (&[77, 53, 3, 3], &[77, 1, 1, 1]),
    ];
    for (a_shape, b_shape) in shapes {
        let (a, b) = (rng.array(a_shape), rng.array(b_shape));
        Case::new(format!("{a_shape:?} and {b_shape:?}")).input(&a).input(&b).check(
            |g, v| g.binary(Binary::Sub, v[0], v[1]),
            |a| Array::from_fn(a_shape, |i| broadcast(&a[0], i) - broadcast(&a[1], i)),
        );
    }
}

#[test]
fn rows_of_several_lengths() {
    let mut rng = Rng::new("rows");
    let shape = [2, 40, 28, 12];
    let arrays: Vec<Array> =
        [&shape[..], &[12], &[2, 1, 1, 12], &[28, 12]].iter().map(|s| rng.array(s)).collect();
    let product = Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1));
    let sum = Expr::binary(Binary::Add, Expr::binary(Binary::Add, product, Expr::input(2)), Expr::input(3));
    let mut case = Case::new("rows").played();
    for array in &arrays {
        case = case.input(array);
    }
    case.check(
        |g, v| g.elementwise(sum.clone(), v),
        |a| {
            Array::from_fn(&shape, |i| {
                let x: Vec<f64> = a.iter().map(|a| broadcast(a, i)).collect();
                x[0] * x[1] + x[2] + x[3]
            })
        },
    );
}

#[test]
fn powers_of_negative_numbers() {
    let mut rng = Rng::new("pow");
    let x = rng.array_in(&[64], -3.0, 3.0);
    let y = rng.indices(&[64], 5);
    // pow is exp2(y · log2 x) on most devices: the logarithm's error times the exponent.
    Case::new("pow").input(&x).input(&y).tolerance(4e-5, 4e-3).check(
        |g, v| g.binary(Binary::Pow, v[0], v[1]),
        |a| Array::from_fn(&[64], |i| a[0].at(i).powf(a[1].at(i))),
    );
}

#[test]
fn a_chain_of_four_inputs_is_one_kernel() {
    let mut rng = Rng::new("chain");
    let arrays: Vec<Array> = [&[2, 6, 8][..], &[8], &[1], &[2, 1, 8]].iter().map(|s| rng.array(s)).collect();
    let sum =
        Expr::binary(Binary::Add, Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1)), Expr::input(3));
    let expr = Expr::unary(Unary::Silu, Expr::binary(Binary::Sub, sum, Expr::input(2)));
    let mut case = Case::new("chain");
    for array in &arrays {
        case = case.input(array);
    }
    case.check(
        |g, v| g.elementwise(expr.clone(), v),
        |a| {
            Array::from_fn(&[2, 6, 8], |i| {
                let x: Vec<f64> = a.iter().map(|a| broadcast(a, i)).collect();
                reference(Unary::Silu, x[0] * x[1] + x[3] - x[2])
            })
        },
    );
}
