use aquatint::ops::typed::Function;
use aquatint::{DType, Graph, Network, Tensor};

use crate::harness::{Rng, examined, gpu};

const TYPES: [DType; 3] = [DType::F32, DType::I32, DType::U32];

fn draw(rng: &mut Rng, shape: &[usize], dtype: DType) -> (Tensor, Vec<f64>) {
    let count = shape.iter().product();
    let whole: Vec<i32> = (0..count)
        .map(|_| match rng.below(8) {
            0 => [i32::MAX, i32::MIN, 16_777_217, -16_777_219][rng.below(4)],
            _ => rng.below(13) as i32 - 6,
        })
        .collect();
    match dtype {
        DType::I32 => (Tensor::from_i32(shape, &whole), whole.iter().map(|&v| f64::from(v)).collect()),
        DType::U32 => {
            let truth: Vec<u32> = whole.iter().map(|&v| u32::from(v > 0)).collect();
            (Tensor::from_u32(shape, &truth), truth.iter().map(|&v| f64::from(v)).collect())
        }
        _ => {
            let values: Vec<f32> = whole.iter().map(|&v| v as f32 * 0.25).collect();
            (Tensor::from_f32(shape, &values), values.iter().map(|&v| f64::from(v)).collect())
        }
    }
}

fn run(function: Function, inputs: &[Tensor]) -> Option<Vec<f64>> {
    let gpu = gpu()?;
    let mut graph = Graph::new();
    let ids: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| graph.input(&format!("input{i}"), t.desc.shape.clone(), t.desc.dtype))
        .collect();
    let y = graph.typed(function, &ids).unwrap();
    graph.output("y", y);
    let network = Network::new(gpu, &graph).unwrap();
    network.poison().unwrap();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
    let given: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
    let y = network.run(&given).unwrap().remove(0);
    examined(gpu, "typed", &graph, &given);
    let words = y.bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
    Some(match y.desc.dtype {
        DType::I32 => words.map(|w| f64::from(w as i32)).collect(),
        DType::U32 => words.map(f64::from).collect(),
        _ => words.map(|w| f64::from(f32::from_bits(w))).collect(),
    })
}

/// Integers beyond 2^24, which f32 would round, wrap and compare as integers do.
#[test]
fn two_integers() {
    let mut rng = Rng::new("typed integers");
    type Reference = fn(i32, i32) -> i32;
    let cases: [(Function, Reference); 11] = [
        (Function::Add, i32::wrapping_add),
        (Function::Sub, i32::wrapping_sub),
        (Function::Mul, i32::wrapping_mul),
        (Function::Div, |a, b| if b == 0 { a } else { a.wrapping_div(b) }),
        (Function::Remainder, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
        (Function::Modulo, |a, b| match (i64::from(a), i64::from(b)) {
            (_, 0) => 0,
            (a, b) => (a - b * (a as f64 / b as f64).floor() as i64) as i32,
        }),
        (Function::Min, std::cmp::min),
        (Function::Max, std::cmp::max),
        (Function::And, |a, b| a & b),
        (Function::Less, |a, b| i32::from(a < b)),
        (Function::Equal, |a, b| i32::from(a == b)),
    ];
    for (function, reference) in cases {
        let (a, x) = draw(&mut rng, &[3, 5, 7], DType::I32);
        let (b, y) = draw(&mut rng, &[3, 1, 7], DType::I32);
        let Some(found) = run(function, &[a, b]) else { return };
        for (i, found) in found.into_iter().enumerate() {
            let j = i / 35 * 7 + i % 7;
            let expected = f64::from(reference(x[i] as i32, y[j] as i32));
            assert_eq!(found, expected, "{function:?} of {} and {}", x[i], y[j]);
        }
    }
}

#[test]
fn rests_of_division_take_the_sign_of_one_side() {
    let signs = [-7, -6, -1, 0, 1, 6, 7];
    let a: Vec<i32> = signs.iter().flat_map(|&a| [a; 4]).collect();
    let b: Vec<i32> = signs.iter().flat_map(|_| [3, -3, 5, -5]).collect();
    let inputs = [Tensor::from_i32([28], &a), Tensor::from_i32([28], &b)];
    let Some(floor) = run(Function::Modulo, &inputs) else { return };
    let towards_zero = run(Function::Remainder, &inputs).unwrap();
    for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
        let modulo = f64::from(a) - f64::from(b) * (f64::from(a) / f64::from(b)).floor();
        assert_eq!((floor[i], towards_zero[i]), (modulo, f64::from(a % b)), "{a} and {b}");
    }
}

#[test]
fn conversions() {
    let mut rng = Rng::new("typed conversions");
    for from in TYPES {
        let (x, values) = draw(&mut rng, &[41], from);
        for to in TYPES.into_iter().filter(|&to| to != from) {
            let Some(gpu) = gpu() else { return };
            let mut graph = Graph::new();
            let id = graph.input("x", [41], from);
            let y = graph.convert(id, to).unwrap();
            graph.output("y", y);
            let network = Network::new(gpu, &graph).unwrap();
            network.poison().unwrap();
            let found = network.run(&[("x", &x)]).unwrap().remove(0);
            for (i, (found, &x)) in found.to_f32().into_iter().zip(&values).enumerate() {
                let expected = match to {
                    DType::U32 => f32::from(u8::from(x != 0.0)),
                    DType::I32 => x.trunc().clamp(-2147483648.0, 2147483647.0) as i32 as f32,
                    _ => x as f32,
                };
                // Numbers that i32 cannot hold have no defined conversion.
                if x.abs() < 2e9 {
                    assert_eq!(found, expected, "element {i}, {x} from {from} to {to}");
                }
            }
        }
    }
}

#[test]
fn choices_broadcast_and_numbers_that_are_none() {
    let mut rng = Rng::new("typed choices");
    let (condition, c) = draw(&mut rng, &[4, 1, 3], DType::U32);
    let (yes, a) = draw(&mut rng, &[5, 3], DType::I32);
    let (no, b) = draw(&mut rng, &[1], DType::I32);
    let Some(found) = run(Function::Where, &[condition, yes, no]) else { return };
    for (i, found) in found.into_iter().enumerate() {
        let expected = if c[i / 15 * 3 + i % 3] != 0.0 { a[i % 15] } else { b[0] };
        assert_eq!(found, expected, "element {i}");
    }
    let odd = [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0];
    let odd = Tensor::from_f32([5], &odd);
    let both = Function::IsInfinite { positive: true, negative: true };
    let negative = Function::IsInfinite { positive: false, negative: true };
    assert_eq!(run(Function::IsNan, std::slice::from_ref(&odd)).unwrap(), [0.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(run(both, std::slice::from_ref(&odd)).unwrap(), [0.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(run(negative, &[odd]).unwrap(), [0.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn types_that_do_not_fit_are_refused() {
    let mut graph = Graph::new();
    let x = graph.input("x", [3], DType::F32);
    let i = graph.input("i", [3], DType::I32);
    assert!(graph.typed(Function::Add, &[x, i]).is_err());
    assert!(graph.typed(Function::Not, &[x]).is_err());
    assert!(graph.typed(Function::Where, &[i, x, x]).is_err());
    assert!(graph.relu(i).is_err());
}
