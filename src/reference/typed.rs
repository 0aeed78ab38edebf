//! Functions of elements.

use super::approx::{Approx, U, expression};
use super::{Element, Task, Values};
use crate::ops::elementwise::Elementwise;
use crate::ops::typed::{Function, Typed};
use crate::tensor::DType;

/// The element of an input that an element of the result is made of, as NumPy broadcasts.
fn broadcast<'v>(x: &'v Values, output: &[usize]) -> Box<dyn Fn(usize) -> usize + Sync + 'v> {
    let own = &x.desc.shape;
    if own.elements() == output.iter().product::<usize>() {
        return Box::new(|i| i);
    }
    let (strides, output) = (own.strides(), output.to_vec());
    Box::new(move |mut i| {
        let mut at = 0;
        for d in (0..output.len()).rev() {
            let k = i % output[d];
            i /= output[d];
            if let Some(j) = (d + own.len()).checked_sub(output.len()) {
                at += if own[j] == 1 { 0 } else { k * strides[j] };
            }
        }
        at
    })
}

pub fn elementwise<'v>(op: &'v Elementwise, task: &Task<'_, 'v>) -> Element<'v> {
    let inputs: Vec<_> = task.inputs.iter().map(|&x| (x, broadcast(x, &task.output.shape))).collect();
    let dtype = task.output.dtype;
    Box::new(move |i| {
        let input = |k: usize| {
            let (x, place) = &inputs[k];
            let value = x.at(place(i));
            // Words become f32 first.
            Approx::exact(if x.desc.dtype == DType::U32 { f64::from(value as f32) } else { value })
        };
        let y = expression(&op.expr, &input);
        match dtype {
            DType::U32 => y.truncated(0.0, f64::from(u32::MAX)),
            _ => y,
        }
    })
}

pub fn typed<'v>(op: &'v Typed, task: &Task<'_, 'v>) -> Element<'v> {
    let inputs: Vec<_> = task.inputs.iter().map(|&x| (x, broadcast(x, &task.output.shape))).collect();
    let (from, to) = (task.inputs[0].desc.dtype, task.output.dtype);
    Box::new(move |i| {
        let at = |k: usize| inputs.get(k).map_or(0.0, |(x, place)| x.at(place(i)));
        match from.is_float() {
            true => floats(op.function, [at(0), at(1), at(2)], to),
            false => integers(op.function, [at(0), at(1), at(2)], from, to),
        }
    })
}

fn truth(condition: bool) -> Approx {
    Approx::exact(f64::from(u8::from(condition)))
}

fn floats(function: Function, [a, b, _]: [f64; 3], to: DType) -> Approx {
    use Function::*;
    match function {
        Cast if to == DType::U32 => truth(a != 0.0),
        Cast if to == DType::I32 => match a.is_nan() || a.abs() >= 2_147_483_648.0 {
            true => Approx::undecided(0.0),
            false => Approx::exact(a.trunc()),
        },
        Cast => Approx::exact(a),
        Bits => {
            let bits = (a as f32).to_bits();
            Approx::exact(if to == DType::I32 {
                f64::from(bits as i32)
            } else if to == DType::U32 {
                f64::from(bits)
            } else {
                a
            })
        }
        Equal => truth(a == b),
        Less => truth(a < b),
        LessOrEqual => truth(a <= b),
        Add => Approx::rounded(a + b, 0.5),
        Sub => Approx::rounded(a - b, 0.5),
        Mul => Approx::rounded(a * b, 0.5),
        Div => Approx::rounded(a / b, 3.0),
        Quotient => Approx::rounded(a / b, 0.5),
        Min => Approx::exact(a.min(b)),
        Max => Approx::exact(a.max(b)),
        // WGSL: a − b · trunc(a / b), with the error of the quotient.
        Remainder => {
            let near = (a / b - (a / b).round()).abs() <= 8.0 * U * (a / b).abs();
            let value = a % b;
            if near { Approx::undecided(value) } else { Approx { value, error: 8.0 * U * a.abs() } }
        }
        Neg => Approx::exact(-a),
        Abs => Approx::exact(a.abs()),
        Sign => Approx::exact(if a == 0.0 { 0.0 } else { a.signum() }),
        IsNan => truth(a.is_nan()),
        IsInfinite { positive, negative } => {
            truth((positive && a == f64::INFINITY) || (negative && a == f64::NEG_INFINITY))
        }
        Wrap { .. } | Not | And | Or | Xor | BitNot | Where | Modulo | Power => {
            unreachable!("not of floats, as infer has it")
        }
    }
}

fn integers(function: Function, [a, b, c]: [f64; 3], from: DType, to: DType) -> Approx {
    use Function::*;
    let (x, y) = (a as i64, b as i64);
    // Sums and products wrap; those of 64 bits hold all that lies under.
    let wrapped =
        |v: i64| Approx::exact(if from == DType::I32 { f64::from(v as i32) } else { f64::from(v as u32) });
    match function {
        Cast if to == DType::U32 && from != DType::U32 => truth(x != 0),
        Cast => Approx::exact(match to {
            DType::I32 => f64::from(x as i32),
            DType::U32 => f64::from(x as u32),
            _ => a,
        }),
        Bits => Approx::exact(match to {
            DType::I32 => f64::from(x as u32 as i32),
            DType::U32 => f64::from(x as u32),
            _ => f64::from(f32::from_bits(x as u32)),
        }),
        Wrap { bits, signed: true } => Approx::exact(f64::from(((x as i32) << (32 - bits)) >> (32 - bits))),
        Wrap { bits, signed: false } => Approx::exact((x & ((1i64 << bits) - 1)) as f64),
        Not => truth(x == 0),
        And => wrapped(x & y),
        Or => wrapped(x | y),
        Xor => wrapped(x ^ y),
        BitNot => wrapped(!x),
        Equal => truth(x == y),
        Less => truth(x < y),
        LessOrEqual => truth(x <= y),
        Where => Approx::exact(if x != 0 { b } else { c }),
        Add => wrapped(x + y),
        Sub => wrapped(x - y),
        Mul => wrapped(x.wrapping_mul(y)),
        Div => wrapped(if y == 0 { x } else { x / y }),
        Min => wrapped(x.min(y)),
        Max => wrapped(x.max(y)),
        Modulo => wrapped(if y == 0 {
            0
        } else {
            x.rem_euclid(y.abs()) + if y < 0 && x.rem_euclid(y.abs()) != 0 { y } else { 0 }
        }),
        Remainder => wrapped(if y == 0 { 0 } else { x % y }),
        Power => wrapped(match y {
            0.. => (x as i32).wrapping_pow(y as u32).into(),
            _ if x == 1 => 1,
            _ if x == -1 => {
                if y % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        }),
        Neg => wrapped(-x),
        Abs => wrapped(x.abs()),
        Sign => wrapped(x.signum()),
        Quotient | IsNan | IsInfinite { .. } => unreachable!("of floats, as infer has it"),
    }
}
