//! What a graph computes, before the passes and after them, in f64.

use aquatint::reference::{self, Values};
use aquatint::{DType, Graph, Source, Tensor, ValueId};

use super::graph::listed;

/// Elements of all values together, and operations.
const MOST: u64 = 1 << 20;

/// Both graphs give the same but for what rounding of what they read would do: a relative change of 2⁻²⁰ of each
/// number, 2⁻⁹ where some are f16.
pub fn check(graph: &Graph, optimised: &Graph) {
    let work = |graph: &Graph| -> u64 {
        let elements = graph.values().map(|(_, value)| value.desc.shape.elements() as u64);
        elements.fold(graph.flops(), u64::saturating_add)
    };
    if work(graph) > MOST || work(optimised) > 4 * MOST {
        return;
    }
    let half = graph.values().any(|(_, value)| matches!(value.desc.dtype, DType::F16 | DType::BF16));
    let unit = if half { 1.0 / 512.0 } else { 1.0 / f32::powi(2.0, 20) };
    let given = inputs(graph);
    let moved: Vec<(String, Tensor)> = given.iter().map(|(n, t)| (n.clone(), disturbed(t, unit))).collect();
    let answer = |graph: &Graph, given: &[(String, Tensor)]| -> Vec<Values> {
        let given: Vec<(&str, &Tensor)> =
            given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        reference::run(graph, &given).expect("all inputs are given")
    };
    let (before, after) = (answer(graph, &given), answer(optimised, &given));
    let disturbed = answer(&rebuilt(graph, unit), &moved);
    assert_eq!(before.len(), after.len());
    for (i, ((before, after), disturbed)) in before.iter().zip(&after).zip(&disturbed).enumerate() {
        assert_eq!(before.desc.shape, after.desc.shape);
        let (a, b, c) = (before.to_vec(), after.to_vec(), disturbed.to_vec());
        let largest = a.iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
        // What one element is moved by may be little by chance.
        let typical =
            a.iter().zip(&c).map(|(x, z)| (x - z).abs()).filter(|d| d.is_finite()).fold(0.0, f64::max);
        let most = 32.0 * typical + 4.0 * f64::from(unit) * largest;
        for (place, ((x, y), z)) in a.iter().zip(&b).zip(&c).enumerate() {
            // Where a little more or less is out of range, so may this be.
            if [x, y, z].into_iter().all(|v| v.is_finite()) && x.abs() < 1e30 {
                let name = &graph.outputs()[i].0;
                assert!(
                    (x - y).abs() <= most,
                    "output {name}, element {place}: {x} and {y}, not within {most}\nof the graph\n{}\nand after the passes\n{}",
                    listed(graph),
                    listed(optimised)
                );
            }
        }
    }
}

/// Numbers for what the caller writes.
fn inputs(graph: &Graph) -> Vec<(String, Tensor)> {
    let inputs = graph.values().filter(|(_, value)| matches!(value.source, Source::Input));
    inputs
        .map(|(_, value)| {
            let n = value.desc.shape.elements();
            let values: Vec<f32> =
                (0..n).map(|i| ((i as f32 + 0.5) * 0.754_877_7).fract() * 2.0 - 1.0).collect();
            let tensor = Tensor::from_f32(value.desc.shape.clone(), &values);
            (value.name.clone(), tensor.to_dtype(value.desc.dtype))
        })
        .collect()
}

/// The same numbers, each a little more or less.
fn disturbed(tensor: &Tensor, unit: f32) -> Tensor {
    if !tensor.desc.dtype.is_float() {
        return tensor.clone();
    }
    let values = tensor.to_f32();
    let moved = values.iter().enumerate().map(|(i, v)| {
        let part = ((i as f32 + 1.0) * 0.569_840_3).fract() - 0.5;
        v * (1.0 + 2.0 * unit * part)
    });
    Tensor::from_f32(tensor.desc.shape.clone(), &moved.collect::<Vec<_>>()).to_dtype(tensor.desc.dtype)
}

/// The same graph of disturbed weights.
fn rebuilt(graph: &Graph, unit: f32) -> Graph {
    let mut new = Graph::new();
    let mut all: Vec<ValueId> = Vec::new();
    let old: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    let at = |id: &ValueId| old.iter().position(|other| other == id).expect("in the graph");
    for (_, value) in graph.values() {
        all.push(match &value.source {
            Source::Input => new.input(&value.name, value.desc.shape.clone(), value.desc.dtype),
            Source::Weight(tensor) => new.weight(&value.name, disturbed(tensor, unit)),
            Source::State(tensor) => new.state(&value.name, disturbed(tensor, unit)),
            Source::Op { op, inputs } => {
                let inputs: Vec<ValueId> = inputs.iter().map(|id| all[at(id)]).collect();
                new.push(op.clone(), &inputs).expect("it was accepted before")
            }
        });
    }
    for (name, id) in graph.outputs() {
        new.output(name, all[at(id)]);
    }
    new
}
