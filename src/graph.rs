//! The network as data: an append-only graph of operations on tensors,
//! checked as it is built.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::limits::{Bound, Limits};
use crate::ops::{Op, Operator};
use crate::tensor::{DType, MAX_RANK, Shape, Tensor, TensorDesc};

/// Of the result of an operation: kernels count bytes of f32 in 32 bits.
pub(crate) const MOST_ELEMENTS: usize = u32::MAX as usize / 4;

/// A value in a [`Graph`]: an input, a weight, a state or the result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Written by the caller before a run.
    Input,
    /// Constant, given when the graph is built.
    Weight(Tensor),
    /// Kept on the GPU from one run to the next; starts as given.
    State(Tensor),
    /// Computed.
    Op { op: Op, inputs: Vec<ValueId> },
}

/// One value with its name, shape and type.
#[derive(Clone, Debug)]
pub struct Value {
    pub name: String,
    pub desc: TensorDesc,
    pub source: Source,
}

/// A network under construction. Operations are appended by the methods that
/// each file of [`crate::ops`] adds, each checked at once; a value can only be
/// used after it was made, so the order of the values is an order of execution.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    outputs: Vec<(String, ValueId)>,
    updates: Vec<(ValueId, ValueId)>,
    scope: Vec<String>,
}

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor that the caller writes before a run.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> ValueId {
        self.insert(name.to_owned(), TensorDesc::new(shape, dtype), Source::Input)
    }

    /// A constant. Work that depends on constants alone is done once, when the
    /// network is loaded.
    pub fn weight(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.insert(name.to_owned(), tensor.desc.clone(), Source::Weight(tensor))
    }

    /// A tensor that stays on the GPU between runs, `initial` before the first.
    /// [`Graph::update`] says what it becomes at the end of a run.
    pub fn state(&mut self, name: &str, initial: Tensor) -> ValueId {
        self.insert(name.to_owned(), initial.desc.clone(), Source::State(initial))
    }

    /// At the end of each run `state` becomes `value`.
    pub fn update(&mut self, state: ValueId, value: ValueId) -> Result<()> {
        let fail = |graph: &Graph, message: String| {
            Err(Error::Graph { op: "update", node: graph.value(state).name.clone(), message })
        };
        if !matches!(self.value(state).source, Source::State(_)) {
            return fail(self, "is not a state".to_owned());
        }
        // A view of another state would be copied after that has its new value.
        let mut computed = value;
        while let Source::Op { op, inputs } = &self.value(computed).source
            && op.is_view()
        {
            computed = inputs[0];
        }
        if !matches!(self.value(computed).source, Source::Op { .. }) {
            return fail(self, "the new value must be computed by an operation".to_owned());
        }
        if self.value(state).desc != self.value(value).desc {
            let message =
                format!("state is {}, new value is {}", self.value(state).desc, self.value(value).desc);
            return fail(self, message);
        }
        self.updates.push((state, value));
        Ok(())
    }

    /// Names a result that the caller can read after a run.
    pub fn output(&mut self, name: &str, value: ValueId) {
        self.outputs.push((name.to_owned(), value));
    }

    /// Runs `build` with `name` appended to the names of what it adds, so that
    /// a printed plan reads like the network's own module tree.
    pub fn scoped<T>(&mut self, name: &str, build: impl FnOnce(&mut Graph) -> T) -> T {
        self.scope.push(name.to_owned());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// Appends `name` to the names of what is added, until [`Graph::leave`].
    pub(crate) fn enter(&mut self, name: &str) {
        self.scope.push(name.to_owned());
    }

    pub(crate) fn leave(&mut self) {
        self.scope.pop();
    }

    /// Appends an operation; the shape rule of `op` checks the inputs.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let op = op.into();
        let name = match self.scope.is_empty() {
            true => op.name().to_owned(),
            false => self.scope.join("."),
        };
        self.push_named(name, op, inputs)
    }

    pub(crate) fn push_named(&mut self, name: String, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        let what = || format!("{} \"{name}\"", op.name());
        Limits::current().check(Bound::Nodes, what, self.values.len() as u64 + 1)?;
        let descs: Vec<&TensorDesc> = inputs.iter().map(|&i| &self.value(i).desc).collect();
        // Kernels clamp to the last element and are not bounds-checked: there must be one.
        let empty = descs.iter().position(|d| d.shape.elements() == 0);
        // Their indices are of 32 bits.
        let huge = descs.iter().position(|d| d.shape.elements() > u32::MAX as usize);
        let desc = match (empty, huge) {
            (Some(i), _) => Err(format!("input {i}, {}, is empty", descs[i])),
            (None, Some(i)) => Err(format!("input {i}, {}, has more than 2^32 elements", descs[i])),
            (None, None) => op.infer(&descs),
        }
        .and_then(|desc| match desc.shape.len() > MAX_RANK {
            true => Err(format!("rank {} exceeds {MAX_RANK}", desc.shape.len())),
            false if desc.shape.elements() == 0 => Err(format!("result {desc} is empty")),
            false if desc.shape.elements() > MOST_ELEMENTS => {
                Err(format!("result {desc} has more than 2^30 elements"))
            }
            false => Ok(desc),
        })
        .map_err(|message| Error::Graph { op: op.name(), node: name.clone(), message })?;
        let inputs = inputs.to_vec();
        Ok(self.insert(name, desc, Source::Op { op, inputs }))
    }

    pub(crate) fn insert(&mut self, name: String, desc: TensorDesc, source: Source) -> ValueId {
        self.values.push(Value { name, desc, source });
        ValueId(self.values.len() as u32 - 1)
    }

    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    pub fn desc(&self, id: ValueId) -> &TensorDesc {
        &self.value(id).desc
    }

    pub fn shape(&self, id: ValueId) -> &Shape {
        &self.value(id).desc.shape
    }

    /// All values, in order of execution.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, v)| (ValueId(i as u32), v))
    }

    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    pub fn updates(&self) -> &[(ValueId, ValueId)] {
        &self.updates
    }

    /// How often each value is read, outputs and state updates included.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        for value in &self.values {
            if let Source::Op { inputs, .. } = &value.source {
                for i in inputs {
                    uses[i.index()] += 1;
                }
            }
        }
        for (_, id) in &self.outputs {
            uses[id.index()] += 1;
        }
        for (_, id) in &self.updates {
            uses[id.index()] += 1;
        }
        uses
    }

    /// Number of weight elements (parameters) given to the graph.
    pub fn parameters(&self) -> u64 {
        // A weight that is packed may be read as it is, too, or packed in several ways.
        let mut seen = HashSet::new();
        let weights = self.values.iter().filter_map(|v| match &v.source {
            Source::Weight(tensor) => Some(tensor),
            _ => None,
        });
        let packed = self.values.iter().filter_map(|v| match &v.source {
            Source::Op { op: Op::PackedWeight(weight), .. } => Some(weight),
            _ => None,
        });
        let packed = packed.flat_map(|weight| {
            std::iter::once(weight.stored()).chain(weight.scale().into_iter().flat_map(|scale| scale.from()))
        });
        // Tables of integers are nothing that was trained.
        let mut count = 0;
        for tensor in weights.filter(|tensor| tensor.desc.dtype.is_float()) {
            seen.insert(tensor.bytes.as_ptr());
            count += tensor.desc.shape.elements() as u64;
        }
        count
            + packed
                .filter(|t| seen.insert(t.bytes.as_ptr()))
                .map(|t| t.desc.shape.elements() as u64)
                .sum::<u64>()
    }

    /// Floating-point operations of one run (a multiply-add counts as two),
    /// work on constants left out.
    pub fn flops(&self) -> u64 {
        let constant = self.constants();
        self.values()
            .filter(|(id, _)| !constant[id.index()])
            .map(|(_, v)| match &v.source {
                Source::Op { op, inputs } => {
                    let descs: Vec<_> = inputs.iter().map(|&i| self.desc(i)).collect();
                    op.flops(&descs, &v.desc)
                }
                _ => 0,
            })
            .sum()
    }

    /// For each value, whether it depends on weights alone.
    pub fn constants(&self) -> Vec<bool> {
        let mut constant = Vec::with_capacity(self.values.len());
        for value in &self.values {
            constant.push(match &value.source {
                Source::Weight(_) => true,
                Source::Input | Source::State(_) => false,
                Source::Op { inputs, .. } => inputs.iter().all(|i| constant[i.index()]),
            });
        }
        constant
    }

    /// Rebuilds the graph value by value: `rewrite` gets the new graph, the old
    /// value and its inputs already translated, and returns what replaces it.
    /// The frame in which the passes work.
    pub(crate) fn rewrite(
        &self,
        mut rewrite: impl FnMut(&mut Graph, ValueId, &Value, &[ValueId]) -> Result<ValueId>,
    ) -> Result<Graph> {
        let mut new = Graph::new();
        let mut map: Vec<ValueId> = Vec::with_capacity(self.values.len());
        for (id, value) in self.values() {
            let inputs: Vec<ValueId> = match &value.source {
                Source::Op { inputs, .. } => inputs.iter().map(|i| map[i.index()]).collect(),
                _ => Vec::new(),
            };
            map.push(rewrite(&mut new, id, value, &inputs)?);
        }
        for (name, id) in &self.outputs {
            new.output(name, map[id.index()]);
        }
        for (state, value) in &self.updates {
            new.updates.push((map[state.index()], map[value.index()]));
        }
        Ok(new)
    }

    /// The graph without the values that `keep` refuses; nothing that is kept may read them.
    pub(crate) fn retain(&self, mut keep: impl FnMut(ValueId, &Value) -> bool) -> Result<Graph> {
        let mut new = Graph::new();
        let mut map: Vec<Option<ValueId>> = Vec::with_capacity(self.values.len());
        let of =
            |map: &[Option<ValueId>], id: ValueId| map[id.index()].expect("kept values read kept values");
        for (id, value) in self.values() {
            map.push(match keep(id, value) {
                true => {
                    let inputs: Vec<ValueId> = match &value.source {
                        Source::Op { inputs, .. } => inputs.iter().map(|&i| of(&map, i)).collect(),
                        _ => Vec::new(),
                    };
                    Some(new.keep(value, &inputs)?)
                }
                false => None,
            });
        }
        new.outputs = self.outputs.iter().map(|(name, id)| (name.clone(), of(&map, *id))).collect();
        new.updates = self.updates.iter().map(|&(s, v)| (of(&map, s), of(&map, v))).collect();
        Ok(new)
    }

    /// Copies one value into the graph under rewrite, unchanged.
    pub(crate) fn keep(&mut self, value: &Value, inputs: &[ValueId]) -> Result<ValueId> {
        match &value.source {
            Source::Op { op, .. } => self.push_named(value.name.clone(), op.clone(), inputs),
            other => Ok(self.insert(value.name.clone(), value.desc.clone(), other.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::expr::Unary;
    use crate::plan::Plan;
    use crate::target::Target;

    fn refused<T: std::fmt::Debug>(result: Result<T>, says: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Graph { .. }) && error.to_string().contains(says), "{error}");
    }

    #[test]
    fn states_become_what_is_computed() {
        let mut g = Graph::new();
        let [a, b] = ["a", "b"].map(|name| g.state(name, Tensor::from_f32([2, 2], &[0.0; 4])));
        let flat = g.reshape(b, [4]).unwrap();
        let view = g.reshape(flat, [2, 2]).unwrap();
        refused(g.update(a, view), "must be computed");
        let sum = g.add(a, view).unwrap();
        g.update(a, sum).unwrap();
    }

    #[test]
    fn sizes_that_kernels_cannot_index_are_refused() {
        let mut g = Graph::new();
        let weight = g.weight("w", Tensor::from_f32([1, 1], &[1.0]));
        for (shape, says) in [(vec![], "must be [..., k]"), (vec![2, 0], "must be [..., k]")] {
            let x = g.input("x", shape, DType::F32);
            refused(g.linear(x, weight, None), says);
        }
        let x = g.input("x", [1 << 33, 1], DType::F32);
        refused(g.reduce(x, crate::ops::reduce::Reduction::Sum, &[0], true), "more than 2^32");
    }

    #[test]
    fn bounds_may_come_in_either_order() {
        let mut g = Graph::new();
        let x = g.input("x", [4], DType::F32);
        let y = g.unary(Unary::Clamp(1.0, -1.0), x).unwrap();
        g.output("y", y);
        Plan::compile(&g, &Target::typical()).unwrap();
        // Two workgroups in each of two dimensions, of at most 1024 threads.
        let small = Target { max_workgroups: 2, ..Target::typical() };
        let x = g.input("many", [1 << 20], DType::F32);
        let y = g.unary(Unary::Exp, x).unwrap();
        g.output("many", y);
        let error = Plan::compile(&g, &small).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains("workgroups"), "{error}");
    }
}
