//! Rows of a weight are a window into its file: nothing has to be computed.

use super::split_weights::Stored;
use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::strided::Strided;

/// A slice of a weight along its first axis becomes a weight itself, such as the two halves of a gated layer.
pub fn slice_weights(graph: &Graph) -> Result<Graph> {
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Strided(Strided::Slice(ranges)), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let (from, to) = (graph.shape(old[0]), &value.desc.shape);
        let rows = ranges.iter().all(|range| range.step == 1) && !to.is_empty() && from[1..] == to[1..];
        match Stored::of(graph, old[0]).filter(|file| rows && !file.turned) {
            None => new.keep(value, inputs),
            Some(file) => {
                let start = ranges[0].start;
                let part = file.part(new, start..start + to[0])?;
                new.reshape(part, to.clone())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::input;
    use super::*;
    use crate::ops::strided::Range;
    use crate::tensor::Tensor;

    fn sliced(ranges: &[Range]) -> Graph {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 5]);
        let values: Vec<f32> = (0..30).map(|i| i as f32).collect();
        let w = g.weight("w", Tensor::from_f32([6, 5], &values));
        let half = g.slice(w, ranges).unwrap();
        let y = g
            .matmul(x, half, crate::ops::matmul::Matmul { transpose_b: true, ..Default::default() })
            .unwrap();
        g.output("y", y);
        super::super::prune::prune(&slice_weights(&g).unwrap()).unwrap()
    }

    fn weights(graph: &Graph) -> Vec<Vec<f32>> {
        let weight = |source: &Source| match source {
            Source::Weight(tensor) => Some(tensor.to_f32()),
            _ => None,
        };
        graph.values().filter_map(|(_, value)| weight(&value.source)).collect()
    }

    #[test]
    fn rows_are_read_where_they_are() {
        let rows = Range { start: 2, stop: Some(5), step: 1 };
        let graph = sliced(&[rows, Range::all()]);
        assert_eq!(weights(&graph), [(10..25).map(|i| i as f32).collect::<Vec<_>>()]);
    }

    #[test]
    fn what_is_no_window_is_computed() {
        let [even, back] =
            [2, -1].map(|step| Range { start: if step < 0 { 5 } else { 0 }, stop: None, step });
        for rows in [even, back] {
            assert_eq!(weights(&sliced(&[rows, Range::all()]))[0].len(), 30);
        }
    }
}
