//! The distinct convolutions of a network, and each in a graph of its own.

use std::collections::HashMap;

use crate::doctor::random;
use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::conv2d::{Conv2d, Method};
use crate::ops::epilogue::Step;
use crate::ops::quantized::BlockFormat;
use crate::target::Target;
use crate::tensor::{DType, Shape, Tensor, TensorDesc};

/// A convolution of a network, without its numbers.
pub struct Operation {
    /// Path of the first of them, and how many there are.
    pub name: String,
    pub count: usize,
    pub key: String,
    pub conv: Conv2d,
    source: TensorDesc,
    output: TensorDesc,
    format: Option<BlockFormat>,
}

/// Those of a network that run, most work first.
pub fn distinct(graph: &Graph) -> Vec<Operation> {
    let constant = graph.constants();
    let mut places = HashMap::new();
    let mut found: Vec<Operation> = Vec::new();
    for (id, value) in graph.values().filter(|(id, _)| !constant[id.index()]) {
        let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { continue };
        let (source, output) = (graph.desc(inputs[0]), graph.desc(id));
        let format = graph.block_format(inputs[1]);
        let key = conv.key(source, output, format);
        match places.get(&key) {
            Some(&place) => {
                let operation: &mut Operation = &mut found[place];
                operation.count += 1;
            }
            None => {
                places.insert(key.clone(), found.len());
                found.push(Operation {
                    name: value.name.clone(),
                    count: 1,
                    key,
                    conv: conv.clone(),
                    source: source.clone(),
                    output: output.clone(),
                    format,
                });
            }
        }
    }
    let work = |o: &Operation| o.count * o.output.shape.elements() * o.conv.products;
    found.sort_by_key(|operation| std::cmp::Reverse(work(operation)));
    found
}

/// An operation in a graph of its own, its method open, and what to give it.
pub struct Alone {
    pub graph: Graph,
    pub inputs: Vec<(String, Tensor)>,
}

impl Operation {
    pub fn candidates(&self, target: &Target) -> Vec<Method> {
        self.conv.candidates(target, &self.source, &self.output, self.format)
    }

    /// With numbers that are drawn, the same every time: sources from −1 to 1, and weights that bring results near 1.
    pub fn alone(&self) -> Result<Alone> {
        let conv = &self.conv;
        let mut alone = Alone { graph: Graph::new(), inputs: Vec::new() };
        let dtype = self.source.dtype;
        let source = alone.input(self.source.shape.clone(), dtype);
        let shape = [conv.c_out, conv.c_in / conv.options.groups, conv.kernel[0], conv.kernel[1]];
        let scale = (3.0 / conv.products.max(1) as f32).sqrt();
        let weight = alone.graph.weight("weight", drawn(shape, scale, dtype, 1));
        let weight = match self.format {
            None => weight,
            Some(format) => alone.graph.quantized(weight, format)?,
        };
        let mut ids = vec![source, weight];
        let (n, c) = (self.output.shape[0], self.output.shape.last());
        for step in &conv.epilogue.steps {
            match step {
                Step::AddChannel => ids.push(alone.graph.weight("bias", drawn([c], 1.0, dtype, 2))),
                Step::AddSample => ids.push(alone.input([n, c], dtype)),
                Step::AddTensor | Step::MulTensor => {
                    ids.push(alone.input(self.output.shape.clone(), dtype));
                }
                Step::Apply(_) => {}
            }
        }
        let result = alone.graph.push(Conv2d { method: None, ..conv.clone() }, &ids)?;
        alone.graph.output("result", result);
        Ok(alone)
    }
}

impl Alone {
    fn input(&mut self, shape: impl Into<Shape>, dtype: DType) -> ValueId {
        let (name, shape) = (format!("input{}", self.inputs.len()), shape.into());
        let tensor = drawn(shape.clone(), 1.0, dtype, 10 + self.inputs.len() as u64);
        self.inputs.push((name.clone(), tensor));
        self.graph.input(&name, shape, dtype)
    }
}

/// Numbers from −`scale` to `scale`.
fn drawn(shape: impl Into<Shape>, scale: f32, dtype: DType, mut seed: u64) -> Tensor {
    let shape = shape.into();
    let mut draw = |_| ((random(&mut seed) >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale;
    let values: Vec<f32> = (0..shape.elements()).map(&mut draw).collect();
    Tensor::from_f32(shape, &values).to_dtype(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::passes;

    #[test]
    fn what_differs_in_time_is_told_apart() {
        let mut g = Graph::new();
        let x = g.input("x", [1, 12, 12, 8], DType::F32);
        let weight = |g: &mut Graph, side| g.weight("w", drawn([8, 8, side, side], 1.0, DType::F32, 1));
        let (a, b, one) = (weight(&mut g, 3), weight(&mut g, 3), weight(&mut g, 1));
        let mut y = x;
        for w in [a, b] {
            y = g.conv2d(y, w, None, Conv2dOptions::padded(1)).unwrap();
            y = g.relu(y).unwrap();
        }
        let y = g.conv2d(y, one, None, Conv2dOptions::default()).unwrap();
        g.output("y", y);
        // Of a weight alone: done while loading.
        let picture = g.weight("p", drawn([1, 12, 12, 8], 1.0, DType::F32, 3));
        let constant = g.conv2d(picture, a, None, Conv2dOptions::padded(1)).unwrap();
        g.output("c", constant);
        let graph = passes::before_methods(&g, &Target::typical()).unwrap();
        let found = distinct(&graph);
        let rows: Vec<(usize, [usize; 2])> = found.iter().map(|o| (o.count, o.conv.kernel)).collect();
        assert_eq!(rows, [(2, [3, 3]), (1, [1, 1])]);
        assert!(found[0].key.contains("3×3") && found[0].key.contains("function"), "{}", found[0].key);
        let alone = found[0].alone().unwrap();
        assert_eq!(distinct(&alone.graph)[0].key, found[0].key);
    }
}
