//! Matrix products and attention.

use super::approx::{Approx, Sum, U, exp_error};
use super::{Element, Task};
use crate::ops::attention::Attention;
use crate::ops::matmul::Matmul;
use crate::tensor::DType;

pub fn matmul<'v>(op: &Matmul, task: &Task<'_, 'v>) -> Element<'v> {
    let (a, b, op) = (task.inputs[0], task.inputs[1], *op);
    let shape = task.output.shape.to_vec();
    let [m, n] = [shape[shape.len() - 2], shape[shape.len() - 1]];
    let batch = shape[..shape.len() - 2].to_vec();
    let inner = |shape: &[usize], transposed: bool| shape[shape.len() - if transposed { 2 } else { 1 }];
    let k = inner(task.shape(0), op.transpose_a);
    let (sa, sb) = (task.shape(0), task.shape(1));
    // The matrix of an operand that a matrix of the result is made with.
    let matrix = move |own: &[usize], mut at: usize| {
        let own = &own[..own.len() - 2];
        let (mut place, mut stride) = (0, 1);
        for d in (0..batch.len()).rev() {
            let coordinate = at % batch[d];
            at /= batch[d];
            if let Some(j) = (d + own.len()).checked_sub(batch.len()) {
                place += if own[j] == 1 { 0 } else { coordinate * stride };
                stride *= own[j];
            }
        }
        place
    };
    Box::new(move |i| {
        let (j, row) = (i % n, i / n % m);
        let (pa, pb) = (matrix(sa, i / (m * n)) * m * k, matrix(sb, i / (m * n)) * k * n);
        let mut sum = Sum::default();
        for l in 0..k {
            let x = a.at(pa + if op.transpose_a { l * m + row } else { row * k + l });
            let y = b.at(pb + if op.transpose_b { j * k + l } else { l * n + j });
            sum.add(x * y);
        }
        sum.finish()
    })
}

pub fn attention<'v>(op: &Attention, task: &Task<'_, 'v>) -> Element<'v> {
    let (q, k, v) = (task.inputs[0], task.inputs[1], task.inputs[2]);
    let mask = task.inputs.get(3).copied();
    let [_, lq, c] = [0, 1, 2].map(|d| task.output.shape[d]);
    let lk = task.shape(1)[1];
    let (width, first) = (op.joined.parts().map(|parts| parts * c), op.joined.part().map(|part| part * c));
    // Of a channel of the result, in the tensors of queries, keys and values.
    let place =
        move |which: usize, token: usize, channel: usize| token * width[which] + first[which] + channel;
    let (heads, causal) = (op.heads, op.causal);
    let d = c / heads;
    let scale = op.scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from);
    // Cooperative matrices are multiplied by weights of f16. Each is off by half a unit in the last place at most, at random.
    let of_weights = if task.output.dtype == DType::F16 { 4.0 * 2f64.powi(-11) } else { 0.0 };
    Box::new(move |i| {
        let (channel, row, sample) = (i % c, i / c % lq, i / c / lq);
        let head = channel / d;
        let visible = if causal { lk.min(row + 1) } else { lk };
        let query = place(0, sample * lq + row, head * d);
        let scores: Vec<Approx> = (0..visible)
            .map(|j| {
                let mut sum = Sum::default();
                let key = place(1, sample * lk + j, head * d);
                for t in 0..d {
                    sum.add(q.at(query + t) * k.at(key + t));
                }
                let mut score = sum.finish();
                score = Approx {
                    value: score.value * scale,
                    error: (score.error + 4.0 * U * score.value.abs()) * scale.abs(),
                };
                if let Some(mask) = mask {
                    let of = &mask.desc.shape;
                    let (s, h) = (if of[0] == 1 { 0 } else { sample }, if of[1] == 1 { 0 } else { head });
                    let bias = mask.at(((s * of[1] + h) * lq + row) * lk + j);
                    score = score.add(Approx::exact(bias));
                    if bias == f64::NEG_INFINITY {
                        score.error = 0.0;
                    }
                }
                score
            })
            .collect();
        let most = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.value));
        if most == f64::NEG_INFINITY {
            return Approx::exact(0.0);
        }
        let (mut total, mut doubt, mut squares) = (0.0, 0.0, 0.0);
        let mut sum = Sum::default();
        let mut off = 0.0;
        for (j, score) in scores.iter().enumerate() {
            let p = (score.value - most).exp();
            if p == 0.0 {
                continue;
            }
            // Of the score, of exp, and of the rescaling when a larger score turns up.
            let error = score.error + 4.0 * exp_error(score.value - most);
            let term = p * v.at(place(2, sample * lk + j, channel));
            total += p;
            doubt += p * error;
            off += term.abs() * error;
            squares += term * term;
            sum.add(term);
        }
        let sum = sum.finish();
        let value = sum.value / total;
        Approx {
            value,
            error: (sum.error + off + of_weights * squares.sqrt()) / total
                + value.abs() * (doubt / total + super::approx::growth(visible) + 8.0 * U),
        }
    })
}
