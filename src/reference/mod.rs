//! Every operation evaluated on the CPU in f64, from its definition and not from the kernels: what they are held to.
//!
//! Operations are evaluated element by element, so that of those with billions of operations a sample will do. Beside each
//! number stands what arithmetic in f32, as WGSL allows it to be, may make it off by: an answer outside of that is wrong.

mod approx;
mod boxes;
pub(crate) mod conv;
mod diffusion;
mod integers;
mod lines;
mod movement;
mod norm;
mod picture;
mod product;
mod sampling;
mod typed;
mod values;
mod window;
mod winograd;

pub use approx::Approx;
pub use values::Values;

use crate::graph::{Graph, Source};
use crate::ops::{Op, Operator as _};
use crate::parallel;
use crate::tensor::{Tensor, TensorDesc};

/// The elements of a result by their flat index.
pub type Element<'a> = Box<dyn Fn(usize) -> Approx + Sync + 'a>;

/// An operation about to be evaluated.
pub(crate) struct Task<'a, 'v> {
    pub inputs: &'a [&'v Values],
    pub output: &'a TensorDesc,
}

impl<'v> Task<'_, 'v> {
    fn shape(&self, input: usize) -> &'v [usize] {
        &self.inputs[input].desc.shape
    }

    /// `[n, h, w, c]` of an input.
    fn map(&self, input: usize) -> [usize; 4] {
        map(&self.inputs[input].desc)
    }
}

/// `[n, h, w, c]` of a feature map.
fn map(desc: &TensorDesc) -> [usize; 4] {
    desc.shape[..].try_into().expect("the graph checked that it is a feature map")
}

/// Row-major coordinates of an element.
fn unravel<const N: usize>(mut i: usize, shape: [usize; N]) -> [usize; N] {
    let mut index = [0; N];
    for d in (0..N).rev() {
        index[d] = i % shape[d];
        i /= shape[d];
    }
    index
}

/// Makes ready to evaluate the elements of an operation's result. The graph has checked that the inputs fit.
pub fn element<'v>(op: &'v Op, inputs: &[&'v Values], output: &TensorDesc) -> Element<'v> {
    let task = &Task { inputs, output };
    match op {
        Op::ArgReduce(op) => lines::arg_reduce(op, task),
        Op::Attention(op) => product::attention(op, task),
        Op::BestBoxes(op) => boxes::best_boxes(op, task),
        Op::BorderMean(_) => picture::border_mean(task),
        Op::ClassMap(op) => picture::class_map(op, task),
        Op::Concat(op) => movement::concat(op, task),
        Op::Conv2d(op) => conv::conv2d(op, task),
        Op::Conv2dInteger(op) => integers::conv2d(op, task),
        Op::ConvTranspose2d(op) => conv::transposed(op, task),
        Op::ConvWeight(op) => conv::weight(op, task),
        Op::Cumulate(op) => lines::cumulate(op, task),
        Op::DeformColumns(op) => sampling::deform_columns(op, task),
        Op::Dequantize(op) => integers::dequantize(op, task),
        Op::DiffusionInput(_) => diffusion::input(task),
        Op::DiffusionStep(_) => diffusion::step(task),
        Op::Elementwise(op) => typed::elementwise(op, task),
        Op::FoldColumns(op) => window::fold_columns(op, task),
        Op::Gather(op) => movement::gather(op, task),
        Op::GatherElements(op) => movement::gather_elements(op, task),
        Op::GatherNd(op) => movement::gather_nd(op, task),
        Op::GridSample(op) => sampling::grid_sample(op, task),
        Op::Matmul(op) => product::matmul(op, task),
        Op::MatmulInteger(_) => integers::matmul(task),
        Op::MaxPoolPlaces(op) => window::max_places(op, task),
        Op::Noise(op) => diffusion::noise(op, task),
        Op::Norm(op) => norm::norm(op, task),
        Op::Overlay(_) => picture::overlay(task),
        Op::PackedWeight(op) => conv::packed(op, task),
        Op::Pad(op) => movement::pad(op, task),
        Op::PictureCrops(op) => picture::crops(op, task),
        Op::PictureFromTensor(op) => picture::from_tensor(op, task),
        Op::PictureToTensor(op) => picture::to_tensor(op, task),
        Op::Pool(op) => window::pool(op, task),
        Op::Quantize(op) => integers::quantize(op, task),
        Op::Reduce(op) => lines::reduce(op, task),
        Op::Resize(op) => sampling::resize(op, task),
        Op::RoiAlign(op) => sampling::roi_align(op, task),
        Op::Scatter(op) => movement::scatter(op, task),
        Op::Softmax(op) => lines::softmax(op, task),
        Op::Strided(op) => movement::strided(op, task),
        Op::Suppress(op) => boxes::suppress(op, task),
        Op::TimestepEmbedding(op) => diffusion::timestep_embedding(op, task),
        Op::TopK(op) => lines::top_k(op, task),
        Op::Typed(op) => typed::typed(op, task),
        Op::Quantized(_) | Op::Reshape(_) | Op::Unpack(_) => {
            let x = inputs[0];
            Box::new(move |i| Approx::exact(x.at(i)))
        }
        Op::UnpackBytes(op) => integers::unpack_bytes(op, task),
    }
}

/// Evaluates the elements with these indices, on all cores.
pub fn evaluate_at(op: &Op, inputs: &[&Values], output: &TensorDesc, places: &[usize]) -> Vec<Approx> {
    let element = element(op, inputs, output);
    let parts: Vec<&[usize]> = places.chunks(places.len().div_ceil(64).max(16)).collect();
    parallel::map(&parts, |part| part.iter().map(|&i| element(i)).collect::<Vec<_>>()).concat()
}

/// Evaluates a whole result, rounded nowhere.
pub fn evaluate(op: &Op, inputs: &[&Values], output: &TensorDesc) -> Values {
    let places: Vec<usize> = (0..output.shape.elements()).collect();
    let found = evaluate_at(op, inputs, output, &places);
    Values::exact(output.clone(), found.into_iter().map(|x| x.value).collect())
}

/// Evaluates a graph, also one that the passes have rewritten, and gives its outputs in order. `inputs` by their names.
///
/// # Errors
/// [`crate::Error::Unknown`] for an input that is not given.
pub fn run(graph: &Graph, inputs: &[(&str, &Tensor)]) -> crate::Result<Vec<Values>> {
    let mut made: Vec<Values> = Vec::new();
    for (_, value) in graph.values() {
        made.push(match &value.source {
            Source::Weight(tensor) | Source::State(tensor) => Values::of(tensor),
            Source::Input => match inputs.iter().find(|(name, _)| *name == value.name) {
                Some((_, tensor)) => Values::of(tensor),
                None => {
                    let names = inputs.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                    return Err(crate::Error::Unknown {
                        what: "input of a graph",
                        found: value.name.clone(),
                        expected: names,
                    });
                }
            },
            Source::Op { op, inputs } => {
                let inputs: Vec<&Values> = inputs.iter().map(|i| &made[i.index()]).collect();
                evaluate(op, &inputs, &value.desc)
            }
        });
    }
    Ok(graph.outputs().iter().map(|(_, id)| made[id.index()].clone()).collect())
}

/// Products and sums that make one element: how large a sample can be.
pub(crate) fn work(op: &Op, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
    let each = op.flops(inputs, output) / output.shape.elements().max(1) as u64;
    // Attention in one element has all scores of its query, of which the others of the head make use too.
    match op {
        Op::Attention(op) => each.max(1) * (output.shape.last() / op.heads.max(1)) as u64,
        _ => each.max(1),
    }
}
