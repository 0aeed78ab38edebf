//! Weights with what adapters add to them. All of it depends on weights alone, so it is done once, on the device, when
//! the network is loaded.

use crate::delta::{Change, Delta, Factors};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::matmul::Matmul;
use crate::tensor::{DType, Tensor};

/// `weight + Σ scale · change`, summed in f32 whatever the types of the files, then as `dtype`.
pub fn adapted(
    g: &mut Graph,
    name: &str,
    weight: ValueId,
    deltas: &[Delta],
    dtype: DType,
) -> Result<ValueId> {
    let name = format!("{name}.adapter");
    let shape = g.shape(weight).clone();
    let mut sum = g.unpacked(weight, DType::F32)?;
    for delta in deltas {
        sum = g.scoped(&name, |g| {
            let change = change(g, &name, &delta.change)?;
            let change = g.reshape(change, shape.clone())?;
            // A number beside the weights, not in the kernel: another strength needs no other kernel.
            let scale = g.weight(&format!("{name}.scale"), Tensor::from_f32([1], &[delta.scale]));
            let change = g.mul(change, scale)?;
            g.add(change, sum)
        })?;
    }
    g.cast(sum, dtype)
}

/// The change as a matrix.
fn change(g: &mut Graph, name: &str, change: &Change) -> Result<ValueId> {
    match change {
        Change::Plain(factors) => matrix(g, name, factors),
        Change::Hadamard([a, b]) => {
            let (a, b) = (matrix(g, name, a)?, matrix(g, name, b)?);
            g.mul(a, b)
        }
        Change::Kronecker([a, b]) => {
            let ([rows, columns], [inner_rows, inner_columns]) = (a.size(), b.size());
            let (a, b) = (matrix(g, name, a)?, matrix(g, name, b)?);
            let a = g.reshape(a, [rows, 1, columns, 1])?;
            let b = g.reshape(b, [1, inner_rows, 1, inner_columns])?;
            let product = g.mul(a, b)?;
            g.reshape(product, [rows * inner_rows, columns * inner_columns])
        }
    }
}

fn matrix(g: &mut Graph, name: &str, factors: &Factors) -> Result<ValueId> {
    let [rows, columns] = factors.size();
    // Each tensor as a matrix, whose rows are those of its first axis.
    let get = |g: &mut Graph, part: &str, tensor: &Tensor| {
        let first = tensor.desc.shape.first().copied().unwrap_or(1);
        let weight = g.weight(&format!("{name}.{part}"), tensor.clone());
        let weight = g.unpacked(weight, DType::F32)?;
        g.reshape(weight, [first, tensor.desc.shape.elements() / first])
    };
    match factors {
        Factors::Whole(whole) => get(g, "whole", whole),
        Factors::Product { up, down } => {
            let (up, down) = (get(g, "up", up)?, get(g, "down", down)?);
            g.matmul(up, down, Matmul::default())
        }
        Factors::Tucker { up, core, down, turned } => {
            let [_, b, kernel @ ..] = &core.desc.shape[..] else {
                unreachable!("a core has two axes or more")
            };
            let (b, kernel) = (*b, kernel.iter().product::<usize>());
            let (up, core, down) = (get(g, "up", up)?, get(g, "core", core)?, get(g, "down", down)?);
            // [c_out, b · kernel] → [c_out, kernel, b] → [c_out, kernel, c_in] → [c_out, c_in, kernel]
            let h = g.matmul(up, core, Matmul { transpose_a: *turned, ..Matmul::default() })?;
            let h = g.reshape(h, [rows, b, kernel])?;
            let h = g.transpose(h, &[0, 2, 1])?;
            let h = g.reshape(h, [rows * kernel, b])?;
            let h = g.matmul(h, down, Matmul::default())?;
            let h = g.reshape(h, [rows, kernel, columns / kernel])?;
            let h = g.transpose(h, &[0, 2, 1])?;
            g.reshape(h, [rows, columns])
        }
    }
}
