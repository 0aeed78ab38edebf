//! A feature map that is computed in parts: group norms look at all of it, so their statistics are found first.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::norm::{Norm, Over};
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::ops::{Elementwise, Op};
use crate::tensor::{DType, Tensor};

/// Number of group norms in a graph.
pub(crate) fn group_norms(graph: &Graph) -> usize {
    graph.values().filter(|(_, value)| groups_of(&value.source).is_some()).count()
}

fn groups_of(source: &Source) -> Option<(&Norm, usize)> {
    match source {
        Source::Op { op: Op::Norm(norm), .. } => match norm.over {
            Over::Groups(groups) => Some((norm, groups)),
            _ => None,
        },
        _ => None,
    }
}

/// The graph of a part, some whole lines of a map `[1, h, w, c]`, in which the first `known` group norms are given the
/// statistics of all parts: inputs `statistics0`, … `[3, groups]` of how many numbers, their mean, and the sum of the
/// squares of what they differ from it.
///
/// Where there is one norm more, the graph ends there and gathers its statistics in the state `statistics`, run by run
/// (Chan, Golub and LeVeque 1979), over the lines for which the input `inside` `[lines]` is 1, not 0; a map of more or
/// fewer lines at this norm stands for the same part. Where there is none, the graph is as it was.
pub(crate) fn norms_in_parts(graph: &Graph, known: usize, lines: usize) -> Result<Graph> {
    let mut new = Graph::new();
    let mut map: Vec<ValueId> = Vec::new();
    let mut norms = 0;
    for (_, value) in graph.values() {
        let inputs: Vec<ValueId> = match &value.source {
            Source::Op { inputs, .. } => inputs.iter().map(|i| map[i.index()]).collect(),
            _ => Vec::new(),
        };
        map.push(match groups_of(&value.source) {
            Some((norm, groups)) if norms < known => {
                let name = format!("statistics{norms}");
                norms += 1;
                new.scoped(&value.name, |g| given(g, norm, groups, &inputs, &name))?
            }
            Some((_, groups)) => {
                new.scoped(&value.name, |g| gathered(g, inputs[0], groups, lines))?;
                return Ok(new);
            }
            None => new.keep(value, &inputs)?,
        });
    }
    for (name, id) in graph.outputs() {
        new.output(name, map[id.index()]);
    }
    Ok(new)
}

fn input(i: usize) -> Expr {
    Expr::input(i)
}

fn mul(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Mul, a, b)
}

fn sub(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Sub, a, b)
}

fn row(g: &mut Graph, statistics: ValueId, row: usize) -> Result<ValueId> {
    g.slice(statistics, &[Range { start: row, stop: Some(row + 1), step: 1 }, Range::all()])
}

/// A number for each group, `[1, groups]`, as one for each channel, `[1, 1, 1, c]`.
fn of_channels(g: &mut Graph, x: ValueId, channels: usize) -> Result<ValueId> {
    let groups = g.shape(x).last();
    let x = g.reshape(x, [groups, 1])?;
    let x = g.broadcast_to(x, [groups, channels / groups])?;
    g.reshape(x, [1, 1, 1, channels])
}

/// The norm of the first of `inputs` with given statistics.
fn given(g: &mut Graph, norm: &Norm, groups: usize, inputs: &[ValueId], name: &str) -> Result<ValueId> {
    let x = inputs[0];
    let channels = g.shape(x).last();
    let statistics = g.input(name, [3, groups], DType::F32);
    let (count, mean, squares) = (row(g, statistics, 0)?, row(g, statistics, 1)?, row(g, statistics, 2)?);
    let variance = Expr::binary(Binary::Div, input(0), input(1));
    let deviation = Expr::unary(Unary::Sqrt, Expr::binary(Binary::Add, variance, Expr::Const(norm.eps)));
    let scale = Expr::binary(Binary::Div, Expr::Const(1.0), deviation);
    let scale = g.elementwise(scale, &[squares, count])?;
    let (mean, mut scale) = (of_channels(g, mean, channels)?, of_channels(g, scale, channels)?);
    let mut rest = inputs[1..].iter();
    if norm.weight {
        let weight = rest.next().copied().expect("checked by the norm");
        scale = g.mul(scale, weight)?;
    }
    let scaled = mul(sub(input(0), input(1)), input(2));
    match rest.next() {
        Some(&bias) => g.elementwise(Expr::binary(Binary::Add, scaled, input(3)), &[x, mean, scale, bias]),
        None => g.elementwise(scaled, &[x, mean, scale]),
    }
}

/// Adds the statistics of the lines inside of a part to the state.
fn gathered(g: &mut Graph, x: ValueId, groups: usize, lines: usize) -> Result<()> {
    let [_, height, width, channels] = g.shape(x)[..] else { unreachable!("parts are of feature maps") };
    let inside = g.input("inside", [lines], DType::F32);
    let inside = match height / lines {
        0 => g.slice(inside, &[Range { start: 0, stop: None, step: (lines / height) as isize }])?,
        more => {
            let inside = g.reshape(inside, [lines, 1])?;
            g.broadcast_to(inside, [lines, more])?
        }
    };
    let inside = g.reshape(inside, [1, height, 1, 1])?;
    let sum = |g: &mut Graph, x: ValueId| {
        // Lines first: more threads, and shorter sums.
        let x = g.reduce(x, Reduction::Sum, &[2], true)?;
        let x = g.reduce(x, Reduction::Sum, &[1], true)?;
        let x = g.reshape(x, [groups, channels / groups])?;
        let x = g.reduce(x, Reduction::Sum, &[1], true)?;
        g.reshape(x, [1, groups])
    };
    let f32 = |g: &mut Graph, expr: Expr, inputs: &[ValueId]| {
        g.push(Elementwise { expr, dtype: Some(DType::F32) }, inputs)
    };
    let found = g.reduce(inside, Reduction::Sum, &[1], true)?;
    let found = g.reshape(found, [1, 1])?;
    let found = g.affine(found, (width * channels / groups) as f32, 0.0)?;
    let chosen = f32(g, mul(input(0), input(1)), &[x, inside])?;
    let total = sum(g, chosen)?;
    let mean = g.binary(Binary::Div, total, found)?;
    let centre = of_channels(g, mean, channels)?;
    let difference = mul(sub(input(0), input(1)), input(2));
    let squares = f32(g, mul(difference.clone(), difference), &[x, centre, inside])?;
    let squares = sum(g, squares)?;

    let zeros = vec![0.0; 3 * groups];
    let state = g.state("statistics", Tensor::from_f32([3, groups], &zeros));
    let before = row(g, state, 0)?;
    let (old_mean, old_squares) = (row(g, state, 1)?, row(g, state, 2)?);
    let count = g.add(before, found)?;
    let share = g.binary(Binary::Div, found, count)?;
    let delta = g.binary(Binary::Sub, mean, old_mean)?;
    let step = g.mul(delta, share)?;
    let next_mean = g.add(old_mean, step)?;
    // Σ (x − mean)² of both together: their own, and what their means lie apart.
    let apart = mul(mul(input(0), input(1)), input(2));
    let apart = g.elementwise(apart, &[delta, step, before])?;
    let squares = g.add(squares, old_squares)?;
    let squares = g.add(squares, apart)?;
    let next = g.concat(&[count, next_mean, squares], 0)?;
    g.update(state, next)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, operations, weight};
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;

    fn two_norms() -> Graph {
        let mut g = Graph::new();
        let x = input(&mut g, &[1, 8, 6, 8]);
        let [w, v] = [weight(&mut g, &[8, 8, 3, 3]), weight(&mut g, &[8])];
        let h = g.group_norm(x, 2, Some(v), Some(v), 1e-5).unwrap();
        let h = g.conv2d(h, w, None, Conv2dOptions::padded(1).stride(2)).unwrap();
        let y = g.group_norm(h, 4, None, None, 1e-5).unwrap();
        g.output("y", y);
        g
    }

    fn inputs(g: &Graph) -> Vec<&str> {
        let is_input = |value: &&crate::graph::Value| matches!(value.source, Source::Input);
        g.values().map(|(_, value)| value).filter(is_input).map(|value| value.name.as_str()).collect()
    }

    #[test]
    fn each_norm_ends_a_graph_that_is_given_those_before() {
        let g = two_norms();
        assert_eq!(group_norms(&g), 2);
        for known in 0..2 {
            let part = norms_in_parts(&g, known, 8).unwrap();
            assert!(part.outputs().is_empty() && part.updates().len() == 1);
            assert_eq!(group_norms(&part), 0);
            assert_eq!(operations(&part).iter().filter(|op| **op == "Conv2d").count(), known);
            assert_eq!(
                inputs(&part),
                if known == 0 { ["x", "inside"].as_slice() } else { &["x", "statistics0", "inside"] }
            );
            let groups = if known == 0 { 2 } else { 4 };
            assert_eq!(part.shape(part.updates()[0].0)[..], [3, groups]);
        }
    }

    #[test]
    fn the_last_is_given_all() {
        let g = two_norms();
        let part = norms_in_parts(&g, 2, 8).unwrap();
        assert_eq!(inputs(&part), ["x", "statistics0", "statistics1"]);
        assert_eq!(group_norms(&part), 0);
        assert_eq!(part.shape(part.outputs()[0].1), g.shape(g.outputs()[0].1));
    }
}
