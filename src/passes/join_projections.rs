//! Queries, keys and values that attention takes from one tensor are one product, not three.

use super::prune::prune;
use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::attention::{Attention, Joined};
use crate::ops::conv2d::{Conv2d, Conv2dOptions};
use crate::ops::epilogue::Step;
use crate::target::{DeviceClass, Target};

/// Fully connected layers that read the same tensor and that attention alone reads become one, with their weights one under the
/// other: a GPU starts fewer kernels, of which each has more to do. A software adapter gains nothing by it (docs/rejected.md).
pub fn join_projections(graph: &Graph, target: &Target) -> Result<Graph> {
    let (uses, constant) = (graph.uses(), graph.constants());
    let limit = target.max_binding.min(target.max_buffer) / 16 * 15;
    let joined = graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Attention(attention), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let once = |i: usize| uses[old[i].index()] == 1;
        let found: Vec<Option<Projection>> = (0..3)
            .map(|i| {
                Projection::of(graph, &constant, old[i]).filter(|p| once(i) && uses[p.product.index()] == 1)
            })
            .collect();
        let alike = |a: usize, b: usize| matches!((&found[a], &found[b]), (Some(a), Some(b)) if a.joins(b));
        let (first, joined) = match () {
            () if target.class == DeviceClass::Cpu || attention.joined != Joined::Apart || !alike(1, 2) => {
                return new.keep(value, inputs);
            }
            () if alike(0, 1) => (0, Joined::All),
            () => (1, Joined::KeysValues),
        };
        let found: Vec<&Projection> = found[first..].iter().flatten().collect();
        let bytes: u64 = found.iter().map(|p| graph.desc(p.weight).bytes()).sum();
        if bytes > limit {
            return new.keep(value, inputs);
        }
        let together = join(new, &found, &inputs[first..3])?;
        let mut inputs = inputs.to_vec();
        inputs[first..3].fill(together);
        new.push_named(value.name.clone(), Attention { joined, ..attention.clone() }.into(), &inputs)
    })?;
    prune(&joined)
}

/// A fully connected layer of a graph.
struct Projection<'a> {
    conv: &'a Conv2d,
    name: &'a str,
    product: ValueId,
    /// What it reads, before that became rows.
    source: ValueId,
    weight: ValueId,
}

impl<'a> Projection<'a> {
    fn of(graph: &'a Graph, constant: &[bool], id: ValueId) -> Option<Self> {
        let Source::Op { op: Op::Reshape(_), inputs } = &graph.value(id).source else { return None };
        let product = inputs[0];
        let value = graph.value(product);
        let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { return None };
        let [rows, weight, bias @ ..] = &inputs[..] else { return None };
        let plain = conv.kernel == [1, 1]
            && conv.options == Conv2dOptions::default()
            && conv.upsample == 1
            && matches!(conv.epilogue.steps[..], [] | [Step::AddChannel])
            && graph.block_format(*weight).is_none()
            && constant[weight.index()]
            && bias.iter().all(|b| constant[b.index()]);
        let source = match &graph.value(*rows).source {
            Source::Op { op: Op::Reshape(_), inputs } => inputs[0],
            _ => *rows,
        };
        plain.then_some(Projection { conv, name: &value.name, product, source, weight: *weight })
    }

    fn joins(&self, other: &Self) -> bool {
        let shape = |p: &Self| (p.conv.c_in, p.conv.c_out, p.conv.products);
        self.source == other.source
            && shape(self) == shape(other)
            && self.conv.epilogue == other.conv.epilogue
            && self.product != other.product
    }
}

/// One product for all of these layers, whose results are given as `[n, tokens, channels]`: the same with all their channels.
fn join(g: &mut Graph, layers: &[&Projection], results: &[ValueId]) -> Result<ValueId> {
    let inputs: Vec<Vec<ValueId>> =
        results.iter().map(|&result| inputs_of(g, inputs_of(g, result)[0])).collect();
    let mut all = vec![inputs[0][0]];
    for i in 1..inputs[0].len() {
        let parts: Vec<ValueId> = inputs.iter().map(|inputs| inputs[i]).collect();
        all.push(g.concat(&parts, 0)?);
    }
    let conv = Conv2d { c_out: layers.iter().map(|layer| layer.conv.c_out).sum(), ..layers[0].conv.clone() };
    let channels = conv.c_out;
    let last = |name: &'_ str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let others: String = layers[1..].iter().map(|layer| format!("+{}", last(layer.name))).collect();
    let product = g.push_named(format!("{}{others}", layers[0].name), conv.into(), &all)?;
    let [n, tokens, _] = g.shape(results[0])[..] else {
        unreachable!("attention takes [n, tokens, channels]")
    };
    g.reshape(product, [n, tokens, channels])
}

fn inputs_of(graph: &Graph, id: ValueId) -> Vec<ValueId> {
    match &graph.value(id).source {
        Source::Op { inputs, .. } => inputs.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, operations, weight};
    use super::*;
    use crate::ops::attention::AttentionOptions;

    fn linear(g: &mut Graph, x: ValueId, out: usize, bias: bool) -> ValueId {
        let w = weight(g, &[out, g.shape(x).last()]);
        let b = bias.then(|| weight(g, &[out]));
        g.linear(x, w, b).unwrap()
    }

    fn joined(graph: &Graph, target: &Target) -> (Vec<&'static str>, Vec<Joined>) {
        let new = join_projections(graph, target).unwrap();
        assert_eq!((new.flops(), new.parameters()), (graph.flops(), graph.parameters()));
        let of = new.values().filter_map(|(_, value)| match &value.source {
            Source::Op { op: Op::Attention(attention), .. } => Some(attention.joined),
            _ => None,
        });
        (operations(&new), of.collect())
    }

    #[test]
    fn of_one_tensor_all_three_of_another_two() {
        for bias in [false, true] {
            let mut g = Graph::new();
            let x = input(&mut g, &[2, 6, 8]);
            let text = input(&mut g, &[2, 5, 8]);
            let [q, k, v] = [(); 3].map(|()| linear(&mut g, x, 16, bias));
            let own = g.attention(q, k, v, 2, AttentionOptions::default()).unwrap();
            let q = linear(&mut g, own, 16, bias);
            let [k, v] = [(); 2].map(|()| linear(&mut g, text, 16, bias));
            let y = g.attention(q, k, v, 2, AttentionOptions::default()).unwrap();
            g.output("y", y);
            let (operations, of) = joined(&g, &Target::typical());
            assert_eq!(operations, ["Conv2d", "Attention", "Conv2d", "Conv2d", "Attention"]);
            assert_eq!(of, [Joined::All, Joined::KeysValues]);
            let cpu = Target { class: DeviceClass::Cpu, ..Target::typical() };
            assert_eq!(joined(&g, &cpu).1, [Joined::Apart; 2]);
            // 16 · 8 · 3 numbers of 4 bytes are more than a device can bind.
            let small = Target { max_binding: 1600, ..Target::typical() };
            assert_eq!(joined(&g, &small).1, [Joined::Apart, Joined::KeysValues]);
        }
    }

    #[test]
    fn what_others_read_or_is_unlike_stays() {
        let read_twice = |g: &mut Graph, k: ValueId| g.output("k", k);
        let nothing = |_: &mut Graph, _: ValueId| {};
        for (biases, same_source, more) in [
            ([false, true, false], true, nothing as fn(&mut Graph, ValueId)),
            ([true; 3], false, nothing),
            ([true; 3], true, read_twice),
        ] {
            let mut g = Graph::new();
            let x = input(&mut g, &[1, 6, 8]);
            let other = if same_source { x } else { input(&mut g, &[1, 6, 8]) };
            let q = linear(&mut g, x, 8, biases[0]);
            let k = linear(&mut g, x, 8, biases[1]);
            let v = linear(&mut g, other, 8, biases[2]);
            let y = g.attention(q, k, v, 1, AttentionOptions::default()).unwrap();
            g.output("y", y);
            more(&mut g, k);
            assert_eq!(joined(&g, &Target::typical()).1, [Joined::Apart]);
        }
    }
}
