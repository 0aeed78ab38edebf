//! Weights too large for one binding become several: the first fully connected layer of AlexNet or
//! VGG takes 144 or 392 MiB, where many devices bind no more than 128.

use crate::error::Result;
use crate::graph::{Graph, Source, Value, ValueId};
use crate::ops::Op;
use crate::ops::conv2d::Conv2d;
use crate::ops::quantized::BlockFormat;
use crate::ops::strided::{Range, Strided};
use crate::target::Target;
use crate::tensor::{DType, Tensor};

/// Parts are whole multiples of this many channels, so that they fill the kernels' tiles.
const STEP: usize = 64;

/// A convolution (or fully connected layer) whose weight is larger than the device binds is
/// computed in parts: of its output channels, joined, where the file has a row for each; of its
/// input channels, summed, where it has a column for each, as ONNX's `MatMul`.
pub fn split_weights(graph: &Graph, target: &Target) -> Result<Graph> {
    // Kernels read a weight in whole tiles, which may take a little more than the file's.
    let limit = target.max_binding.min(target.max_buffer) / 16 * 15;
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Conv2d(conv), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        if graph.desc(old[1]).bytes() <= limit || conv.options.groups != 1 || old.len() > 3 {
            return new.keep(value, inputs);
        }
        let Some(file) = Stored::of(graph, old[1]) else {
            return new.keep(value, inputs);
        };
        let row = graph.desc(old[1]).bytes() / file.tensor.desc.shape[0] as u64;
        let step = (limit / row) as usize / STEP * STEP;
        match (step, file.turned) {
            (0, _) => new.keep(value, inputs),
            (_, false) => by_output(new, value, conv, inputs, &file, step),
            (_, true) => by_input(new, value, conv, inputs, &file, step),
        }
    })
}

/// A weight as it lies in the file, and what was done to it.
pub(super) struct Stored<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    /// What it is unpacked to.
    dtype: DType,
    /// Rows and columns of the matrix changed places.
    pub(super) turned: bool,
    format: Option<BlockFormat>,
}

impl<'a> Stored<'a> {
    pub(super) fn of(graph: &'a Graph, weight: ValueId) -> Option<Self> {
        let (mut id, mut turned) = (weight, false);
        let dtype = graph.desc(weight).dtype;
        loop {
            let value = graph.value(id);
            match &value.source {
                Source::Weight(tensor) => {
                    let rows = graph.shape(weight).get(usize::from(turned))?;
                    let whole = tensor.desc.shape.first() == Some(rows);
                    let format = graph.block_format(weight);
                    return whole.then_some(Stored { name: &value.name, tensor, dtype, turned, format });
                }
                Source::Op { op: Op::Reshape(_) | Op::Unpack(_) | Op::Quantized(_), inputs } => {
                    id = inputs[0]
                }
                Source::Op { op: Op::Strided(Strided::Transpose(axes)), inputs } if axes[..] == [1, 0] => {
                    (id, turned) = (inputs[0], !turned);
                }
                _ => return None,
            }
        }
    }

    pub(super) fn part(&self, g: &mut Graph, rows: std::ops::Range<usize>) -> Result<ValueId> {
        let part = g.weight(self.name, self.tensor.rows(rows));
        let part = g.unpacked(part, self.dtype)?;
        match self.format {
            Some(format) => g.quantized(part, format),
            None => Ok(part),
        }
    }
}

fn parts(count: usize, step: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..count).step_by(step).map(move |start| start..count.min(start + step))
}

fn channels(g: &mut Graph, x: ValueId, part: &std::ops::Range<usize>) -> Result<ValueId> {
    let mut ranges = vec![Range::all(); g.shape(x).len()];
    if let Some(last) = ranges.last_mut() {
        *last = Range { start: part.start, stop: Some(part.end), step: 1 };
    }
    g.slice(x, &ranges)
}

/// Each part gives some of the channels.
fn by_output(
    g: &mut Graph,
    value: &Value,
    conv: &Conv2d,
    inputs: &[ValueId],
    file: &Stored,
    step: usize,
) -> Result<ValueId> {
    let mut results = Vec::new();
    for part in parts(conv.c_out, step) {
        let weight = file.part(g, part.clone())?;
        let weight = g.reshape(weight, [part.len(), conv.c_in, conv.kernel[0], conv.kernel[1]])?;
        let mut inputs = inputs.to_vec();
        inputs[1] = weight;
        if let Some(bias) = inputs.get_mut(2) {
            *bias = channels(g, *bias, &part)?;
        }
        let conv = Conv2d { c_out: part.len(), ..conv.clone() };
        results.push(g.push_named(value.name.clone(), conv.into(), &inputs)?);
    }
    g.concat(&results, 3)
}

/// Each part gives a summand of all channels.
fn by_input(
    g: &mut Graph,
    value: &Value,
    conv: &Conv2d,
    inputs: &[ValueId],
    file: &Stored,
    step: usize,
) -> Result<ValueId> {
    let mut sum = None;
    for part in parts(conv.c_in, step) {
        let weight = file.part(g, part.clone())?;
        let weight = g.transpose(weight, &[1, 0])?;
        let weight = g.reshape(weight, [conv.c_out, part.len(), 1, 1])?;
        let x = channels(g, inputs[0], &part)?;
        let mut conv = Conv2d { c_in: part.len(), products: part.len(), ..conv.clone() };
        let mut all = vec![x, weight];
        match sum {
            None => all.extend(inputs.get(2)),
            Some(_) => conv.epilogue.steps.clear(),
        }
        let y = g.push_named(value.name.clone(), conv.into(), &all)?;
        sum = Some(match sum {
            None => y,
            Some(before) => g.add(y, before)?,
        });
    }
    Ok(sum.expect("there are channels"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, operations};
    use super::*;
    use crate::tensor::Tensor;

    fn target() -> Target {
        Target { max_binding: 1 << 16, ..Target::typical() }
    }

    fn matrix(g: &mut Graph, rows: usize, columns: usize) -> ValueId {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.37).sin()).collect();
        g.weight("w", Tensor::from_f32([rows, columns], &values))
    }

    /// Bytes of the largest weight that something reads.
    fn largest(graph: &Graph) -> u64 {
        let used = super::super::prune::prune(graph).unwrap();
        let weights = used.values().filter(|(_, v)| matches!(v.source, Source::Weight(_)));
        weights.map(|(_, v)| v.desc.bytes()).max().unwrap()
    }

    #[test]
    fn rows_are_shared_out() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 100]);
        let w = matrix(&mut g, 300, 100);
        let bias = g.weight("b", Tensor::from_f32([300], &[0.5; 300]));
        let y = g.linear(x, w, Some(bias)).unwrap();
        g.output("y", y);
        let split = split_weights(&g, &target()).unwrap();
        assert_eq!(operations(&split), ["Conv2d", "Conv2d", "Conv2d", "Concat"]);
        assert!(largest(&split) <= 1 << 16);
        assert_eq!(
            (g.flops(), g.parameters()),
            (split.flops(), super::super::prune::prune(&split).unwrap().parameters())
        );
    }

    #[test]
    fn columns_are_summed() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 300]);
        let w = matrix(&mut g, 300, 100);
        let w = g.transpose(w, &[1, 0]).unwrap();
        let y = g.linear(x, w, None).unwrap();
        g.output("y", y);
        let split = split_weights(&g, &target()).unwrap();
        assert_eq!(operations(&split).iter().filter(|o| **o == "Conv2d").count(), 3);
        assert!(largest(&split) <= 1 << 16);
    }

    #[test]
    fn what_fits_stays() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 100]);
        let w = matrix(&mut g, 64, 100);
        let y = g.linear(x, w, None).unwrap();
        g.output("y", y);
        assert_eq!(operations(&split_weights(&g, &target()).unwrap()), ["Conv2d"]);
    }
}
