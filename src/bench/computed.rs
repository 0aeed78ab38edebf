//! The reference of a small graph, computed on the CPU in float64.

use super::check;
use super::check::Expected;
use super::record::Check;
use crate::error::{Error, Result};
use crate::graph::{Graph, Source};
use crate::reference::{self, Values};
use crate::tensor::{DType, Tensor};

/// Elements of a result that are computed, at most.
const SAMPLE: usize = 256;
/// Products and sums that they may take together, so that no reference takes more than some tenths of a second.
const WORK: u64 = 100_000_000;

/// Holds the only output of a graph against a sample of what its operations give, those before the last whole.
pub fn compare(
    graph: &Graph,
    inputs: &[(String, Tensor)],
    outputs: &[(String, Tensor)],
    dtype: DType,
) -> Result<Check> {
    let (name, last) = graph.outputs().first().cloned().expect("a graph has an output");
    let mut made: Vec<Option<Values>> = Vec::new();
    for (id, value) in graph.values() {
        let values = match &value.source {
            Source::Weight(tensor) | Source::State(tensor) => Some(Values::of(tensor)),
            Source::Input => {
                let given = inputs.iter().find(|(name, _)| *name == value.name);
                let (_, tensor) = given.ok_or_else(|| Error::Unknown {
                    what: "input of a graph",
                    found: value.name.clone(),
                    expected: inputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
                Some(Values::of(tensor))
            }
            Source::Op { .. } if id == last => None,
            Source::Op { op, inputs } => {
                let inputs = known(&made, inputs.iter().map(|i| i.index()));
                Some(reference::evaluate(op, &inputs, &value.desc))
            }
        };
        made.push(values);
    }
    let value = graph.value(last);
    let Source::Op { op, inputs } = &value.source else { unreachable!("the output is an operation's") };
    let descs: Vec<_> = inputs.iter().map(|&i| graph.desc(i)).collect();
    let elements = value.desc.shape.elements();
    let count = (WORK / reference::work(op, &descs, &value.desc).max(1)).clamp(16, SAMPLE as u64) as usize;
    let at = places(elements, count);
    let inputs = known(&made, inputs.iter().map(|i| i.index()));
    let found = reference::evaluate_at(op, &inputs, &value.desc, &at);
    let values: Vec<f64> = found.iter().map(|x| x.value).collect();
    let largest = values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    let expected = Expected { output: name, at, values, largest };
    let against = "float64 on the CPU, computed here";
    Ok(check::compare((against, ""), &[expected], outputs, 1, dtype))
}

fn known(made: &[Option<Values>], at: impl Iterator<Item = usize>) -> Vec<&Values> {
    at.map(|i| made[i].as_ref().expect("operations follow their inputs")).collect()
}

/// So many places, spread over all with no period that tiles could have.
fn places(elements: usize, count: usize) -> Vec<usize> {
    if elements <= count {
        return (0..elements).collect();
    }
    let mut places: Vec<usize> = (0..count as u64)
        .map(|i| {
            let mixed = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((u128::from(mixed) * elements as u128) >> 64) as usize
        })
        .collect();
    // The ends are where indices go wrong.
    places.extend([0, elements - 1]);
    places.sort_unstable();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_and_have_the_ends() {
        assert_eq!(places(5, 16), [0, 1, 2, 3, 4]);
        let spread = places(1_000_003, 256);
        assert!(spread.len() > 250 && spread[0] == 0 && *spread.last().unwrap() == 1_000_002);
        let widest = spread.windows(2).map(|w| w[1] - w[0]).max().unwrap();
        assert!(widest < 20_000, "{widest}");
    }
}
