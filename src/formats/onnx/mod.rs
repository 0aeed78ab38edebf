//! ONNX: a model's file → [`Graph`], when it is loaded; no code is generated.
//!
//! ```no_run
//! use aquatint::formats::onnx::OnnxModel;
//! use aquatint::{Gpu, Network, Tensor};
//!
//! let model = OnnxModel::open("net.onnx")?;
//! let network = Network::new(&Gpu::headless()?, &model.graph(&[("input", vec![1, 3, 224, 224])])?)?;
//! let picture = Tensor::from_f32([1, 3, 224, 224], &vec![0.5; 3 * 224 * 224]);
//! let outputs = network.run(&[("input", &picture)])?;
//! # Ok::<(), aquatint::Error>(())
//! ```
//!
//! Operator sets 7 to 28 of the standard domain; what each operator's import covers is in
//! `docs/onnx.md`. Of ONNX Runtime's own operators those that its static quantiser writes. A model with anything else is refused with all that is not supported, node by
//! node. Shapes are fixed when the graph is built: dimensions that the file leaves open are given then.

mod counted;
mod elem;
mod fold;
mod host;
mod import;
mod load;
mod names;
mod proto;
mod rows;
mod shape;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

pub use elem::Elem;

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::vision::{Filter, Fit, Outputs, Preprocess, VisionModel};
use crate::models::{boxes, yolo};
use crate::tensor::{Bytes, Tensor, TensorDesc};
use import::{Device, Import, Value};

/// A dimension of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Given when the graph is built; with the file's name for it, which may be empty.
    Open(String),
}

/// An input or output of a model.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub elem: Elem,
    /// `None` if the file does not even say the rank.
    pub shape: Option<Vec<Dim>>,
}

/// What a model's output became.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub elem: Elem,
    pub shape: Vec<usize>,
    /// Values that did not depend on any input, nor on weights that the device must read.
    pub constant: Option<Vec<f64>>,
    /// Where it is only known after a run how long the output is; `shape` is then the most that it may be.
    pub count: Option<Count>,
}

/// Of an output whose length is only known after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The axis that is too long.
    pub axis: usize,
    /// The graph's output that has the length, one i32.
    pub output: String,
}

impl Count {
    /// The part of `found` that counts, `count` being what its output of that name holds.
    pub fn cut(&self, found: &Tensor, count: &Tensor) -> Tensor {
        let bytes: [u8; 4] = count.bytes[..4].try_into().expect("one i32");
        let shape = &found.desc.shape;
        let count = usize::try_from(i32::from_le_bytes(bytes)).unwrap_or(0).min(shape[self.axis]);
        let row = shape[self.axis + 1..].iter().product::<usize>() * found.desc.dtype.bytes();
        let lines = found.bytes.chunks_exact((shape[self.axis] * row).max(1));
        let bytes: Vec<u8> = lines.flat_map(|line| &line[..count * row]).copied().collect();
        let mut cut = shape.to_vec();
        cut[self.axis] = count;
        Tensor { desc: TensorDesc::new(cut, found.desc.dtype), bytes: Bytes::Owned(bytes.into()) }
    }
}

/// An ONNX model, read and checked but not yet built.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    file: load::File,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl OnnxModel {
    /// Reads a file; weights stay mapped.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for what is no sound model, [`Error::Unsupported`] for inputs
    /// that are no tensors of numbers.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(load::open(path.as_ref())?)
    }

    /// A model in memory; `name` stands in messages.
    ///
    /// # Errors
    /// As [`OnnxModel::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::new(load::decode(Path::new(name), bytes.into())?)
    }

    fn new(file: load::File) -> Result<Self> {
        let port = |info: &crate::formats::onnx::proto::ValueInfo| -> Result<Port> {
            let fail = |message: &str| Error::Format {
                path: file.path.clone(),
                message: format!("\"{}\" {message}", info.name),
            };
            let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
            let tensor = tensor.ok_or_else(|| fail("is not a tensor"))?;
            let elem = Elem::from_code(tensor.elem_type).map_err(|m| fail(&m))?;
            let dim = |d: &proto::Dimension| match &d.value {
                Some(proto::Extent::Value(n)) => import::size(*n).map(Dim::Fixed).map_err(|m| fail(&m)),
                Some(proto::Extent::Param(name)) => Ok(Dim::Open(name.clone())),
                None => Ok(Dim::Open(String::new())),
            };
            let shape = tensor.shape.as_ref().map(|s| s.dim.iter().map(dim).collect()).transpose()?;
            Ok(Port { name: info.name.clone(), elem, shape })
        };
        // Weights may be listed among the inputs; older files do so.
        let wanted = file.graph.input.iter().filter(|i| !file.weights.contains_key(&i.name));
        let inputs = wanted.map(port).collect::<Result<_>>()?;
        let outputs = file.graph.output.iter().map(port).collect::<Result<_>>()?;
        Ok(OnnxModel { inputs, outputs, file })
    }

    /// What the model reads.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What the model computes.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Takes an input for known: `values` in place of what a caller would write before each run.
    /// What shapes depend on must be known. Integers and booleans are truncated.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is no input, [`Error::Invalid`] for the wrong number of values.
    pub fn fix(&mut self, input: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        let at = self.inputs.iter().position(|p| p.name == input).ok_or_else(|| self.unknown(input))?;
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Invalid {
                what: format!("input \"{input}\""),
                expected: format!("{} values", shape.iter().product::<usize>()),
                found: values.len().to_string(),
            });
        }
        let port = self.inputs.remove(at);
        let host = match port.elem.is_float() {
            true => host::Host::floats(port.elem, shape.to_vec(), values.to_vec()),
            false => host::Host::ints(port.elem, shape.to_vec(), values.iter().map(|&v| v as i64).collect()),
        };
        self.file.weights.insert(port.name, host);
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        Error::Unknown {
            what: "input",
            found: name.to_owned(),
            expected: self.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }

    /// The shape of an input: what `given` says for it, checked against the file.
    fn shape(&self, port: &Port, given: &[(&str, Vec<usize>)]) -> Result<Vec<usize>> {
        let text = |dims: &[Dim]| {
            let dim = |d: &Dim| match d {
                Dim::Fixed(n) => n.to_string(),
                Dim::Open(name) if name.is_empty() => "?".to_owned(),
                Dim::Open(name) => name.clone(),
            };
            format!("[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
        };
        let wrong = |found: String| Error::Invalid {
            what: format!("shape of input \"{}\"", port.name),
            expected: port.shape.as_deref().map_or("any".to_owned(), text),
            found,
        };
        let given = given.iter().find(|(name, _)| *name == port.name).map(|(_, shape)| shape);
        match (given, &port.shape) {
            (Some(shape), Some(dims)) => {
                let fits = |(d, n): (&Dim, &usize)| !matches!(d, Dim::Fixed(m) if m != n);
                match shape.len() == dims.len() && dims.iter().zip(shape).all(fits) {
                    true => Ok(shape.clone()),
                    false => Err(wrong(format!("{shape:?}"))),
                }
            }
            (Some(shape), None) => Ok(shape.clone()),
            (None, Some(dims)) => dims
                .iter()
                .map(|d| match d {
                    Dim::Fixed(n) => Ok(*n),
                    Dim::Open(_) => Err(wrong("no shape; the file leaves it open".to_owned())),
                })
                .collect(),
            (None, None) => Err(wrong("no shape; the file leaves it open".to_owned())),
        }
    }

    /// The network for these shapes of its inputs, in ONNX's order of axes, with the file's names
    /// of inputs and outputs. Shapes that the file fixes need not be given.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with all nodes that cannot be imported; [`Error::Invalid`] for shapes that
    /// do not fit, [`Error::Format`] for graphs that are not sound.
    pub fn graph(&self, shapes: &[(&str, Vec<usize>)]) -> Result<Graph> {
        let (graph, outputs) = self.graph_and_outputs(shapes)?;
        let wrong = outputs.iter().find_map(|o| match (&o.constant, &o.count) {
            (Some(_), _) => Some(format!("output \"{}\" does not depend on the inputs", o.name)),
            (_, Some(_)) => Some(format!("the length of output \"{}\" is only known after a run", o.name)),
            _ => None,
        });
        match wrong {
            Some(message) => Err(Error::Unsupported { path: self.file.path.clone(), nodes: vec![message] }),
            None => Ok(graph),
        }
    }

    /// The same, with what is known of each output. Those that depend on no input are not in the
    /// graph; their values are given here. Those whose length is only known after a run have all the room that they may
    /// need; after the model's outputs the graph has their counts.
    ///
    /// # Errors
    /// As [`OnnxModel::graph`].
    pub fn graph_and_outputs(&self, shapes: &[(&str, Vec<usize>)]) -> Result<(Graph, Vec<Output>)> {
        if let Some((name, _)) = shapes.iter().find(|(n, _)| !self.inputs.iter().any(|p| p.name == *n)) {
            return Err(self.unknown(name));
        }
        let mut graph = Graph::new();
        let mut import = self.import(&mut graph);
        for port in &self.inputs {
            let shape = self.shape(port, shapes)?;
            import::checked_elements(&shape)
                .map_err(|m| self.format(format!("input \"{}\": {m}", port.name)))?;
            if matches!(port.elem, Elem::F64 | Elem::BF16 | Elem::U32 | Elem::U64) {
                return Err(Error::Unsupported {
                    path: self.file.path.clone(),
                    nodes: vec![format!(
                        "input \"{}\" is {}, which the device does not hold",
                        port.name, port.elem
                    )],
                });
            }
            // A tensor without elements has no values that are not known.
            if shape.contains(&0) {
                import.set(&port.name, Value::Host(host::Host::empty(port.elem, shape)));
                continue;
            }
            let id = import.graph.input(&port.name, shape.clone(), port.elem.dtype());
            let axes = (0..shape.len()).collect();
            import.set(&port.name, Value::Device(Device { id, axes, elem: port.elem, shape, counted: None }));
        }
        self.nodes(&mut import)?;
        let mut counts = Vec::new();
        let mut outputs = Vec::new();
        for port in &self.file.graph.output {
            let value = self.result(&import, &port.name)?;
            let constant = match &value {
                Value::Host(host) => Some(host.to_floats()),
                Value::Device(_) => {
                    let id = import.plain(&value).map_err(|m| self.format(m))?;
                    import.graph.output(&port.name, id);
                    None
                }
            };
            let count = match &value {
                Value::Device(Device { counted: Some(counted), .. }) => {
                    let output = format!("{}.count", port.name);
                    counts.push((output.clone(), counted.count));
                    Some(Count { axis: counted.axis, output })
                }
                _ => None,
            };
            let (elem, shape) = (value.elem(), value.shape().to_vec());
            outputs.push(Output { name: port.name.clone(), elem, shape, constant, count });
        }
        for (name, count) in counts {
            graph.output(&name, count);
        }
        Ok((graph, outputs))
    }

    /// Adds the network to a graph: its one input is `x` `[n, h, w, c]`, and what it computes
    /// keeps the order of axes that it has, feature maps `[n, h, w, c]` among them.
    ///
    /// # Errors
    /// As [`OnnxModel::graph`].
    pub fn build(&self, g: &mut Graph, x: ValueId) -> Result<Outputs> {
        let [port] = &self.inputs[..] else {
            return Err(Error::Invalid {
                what: "network".to_owned(),
                expected: "one input, a picture".to_owned(),
                found: format!("{} inputs", self.inputs.len()),
            });
        };
        let [n, h, w, c] = g.shape(x)[..] else {
            return Err(self.format(format!("a picture must be [n, h, w, c], found {}", g.shape(x))));
        };
        self.shape(port, &[(&port.name, vec![n, c, h, w])])?;
        let mut import = self.import(g);
        let picture = import.channels_last_result(x, port.elem);
        import.set(&port.name, picture);
        self.nodes(&mut import)?;
        let mut outputs = Vec::new();
        for port in &self.file.graph.output {
            let value = self.result(&import, &port.name)?;
            if matches!(value, Value::Device(Device { counted: Some(_), .. })) {
                let message = format!("the length of output \"{}\" is only known after a run", port.name);
                return Err(Error::Unsupported { path: self.file.path.clone(), nodes: vec![message] });
            }
            let id = match value.rank() {
                4 => import.channels_last(&value),
                _ => import.plain(&value),
            };
            outputs.push((port.name.clone(), id.map_err(|m| self.format(m))?));
        }
        Ok(outputs)
    }

    fn import<'g>(&self, graph: &'g mut Graph) -> Import<'g> {
        let mut import = Import::new(graph, self.file.opset);
        for (name, host) in &self.file.weights {
            import.set(name, Value::Host(host.clone()));
        }
        import
    }

    fn result(&self, import: &Import, name: &str) -> Result<Value> {
        let missing = || self.format(format!("output \"{name}\" is computed by no node"));
        import.get(name).cloned().ok_or_else(missing)
    }

    fn format(&self, message: String) -> Error {
        Error::Format { path: self.file.path.clone(), message }
    }

    /// Imports all nodes; what cannot be is reported together, what only depends on that is left out.
    fn nodes(&self, import: &mut Import) -> Result<()> {
        let nodes = &self.file.graph.node;
        let mut failed = Vec::new();
        let mut unknown: HashSet<&str> = HashSet::new();
        for i in self.order()? {
            let node = &nodes[i];
            let lost = node.input.iter().any(|name| unknown.contains(name.as_str()));
            let result = match lost {
                // Named for itself, too, if its operator is not known at all.
                true => rows::find(&node.domain, &node.op_type).map(|_| ()),
                false => import.node(node),
            };
            if lost || result.is_err() {
                unknown.extend(node.output.iter().map(String::as_str));
            }
            if let Err(message) = result {
                failed.push(format!("{} \"{}\": {message}", node.op_type, node.name));
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Error::Unsupported { path: self.file.path.clone(), nodes: failed }),
        }
    }

    /// An order of execution; files should have one, but not all do.
    fn order(&self) -> Result<Vec<usize>> {
        let nodes = &self.file.graph.node;
        let mut maker: HashMap<&str, usize> = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                if maker.insert(name, i).is_some() {
                    return Err(self.format(format!("two nodes compute \"{name}\"")));
                }
            }
        }
        let mut waiting = vec![0usize; nodes.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        let known = |name: &str| {
            self.file.weights.contains_key(name) || self.file.graph.input.iter().any(|p| p.name == name)
        };
        for (i, node) in nodes.iter().enumerate() {
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                match maker.get(name.as_str()) {
                    Some(&from) => {
                        waiting[i] += 1;
                        readers[from].push(i);
                    }
                    None if known(name) => {}
                    None => {
                        return Err(
                            self.format(format!("\"{name}\", read by {}, comes from nowhere", node.op_type))
                        );
                    }
                }
            }
        }
        let mut ready: std::collections::BTreeSet<usize> =
            (0..nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &reader in &readers[i] {
                waiting[reader] -= 1;
                if waiting[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
        match order.len() == nodes.len() {
            true => Ok(order),
            false => Err(self.format("its nodes depend on one another in a circle".to_owned())),
        }
    }
}

impl Network {
    /// The network of an ONNX file, for these shapes of its inputs ([`OnnxModel::graph`]).
    ///
    /// # Errors
    /// Those of [`OnnxModel::open`], [`OnnxModel::graph`] and [`Network::new`].
    pub fn from_onnx(gpu: &Gpu, path: impl Into<PathBuf>, shapes: &[(&str, Vec<usize>)]) -> Result<Self> {
        Network::new(gpu, &OnnxModel::open(path.into())?.graph(shapes)?)
    }
}

/// An ONNX file as a network that reads pictures; `shape`, in ONNX's order `[n, c, h, w]`, where the file leaves it
/// open or to say it again. Files do not say how pictures are prepared: with ImageNet's mean and standard deviation for
/// networks that name classes, as they are for those that give pictures back or boxes, in a letterbox for the latter.
///
/// # Errors
/// As [`OnnxModel::open`], and [`Error::Invalid`] for networks whose one input is not a picture.
pub fn vision_model(path: impl AsRef<Path>, shape: Option<[usize; 4]>) -> Result<VisionModel> {
    let path = path.as_ref();
    let model = OnnxModel::open(path)?;
    let [port] = model.inputs() else {
        return Err(Error::Invalid {
            what: format!("{}: inputs", path.display()),
            expected: "one, a picture".to_owned(),
            found: model.inputs().len().to_string(),
        });
    };
    let dims: Vec<Dim> = port.shape.clone().unwrap_or_else(|| vec![Dim::Open(String::new()); 4]);
    if dims.len() != 4 || !port.elem.is_float() {
        return Err(Error::Invalid {
            what: format!("{}: input \"{}\"", path.display(), port.name),
            expected: "a picture, float [n, c, h, w]".to_owned(),
            found: format!("{}, rank {}", port.elem, dims.len()),
        });
    }
    let given = |d: usize| match (shape, &dims[d]) {
        (Some(shape), _) => Some(shape[d]),
        (None, Dim::Fixed(n)) => Some(*n),
        (None, Dim::Open(_)) => None,
    };
    if let Some(shape) = shape {
        model.shape(port, &[(port.name.as_str(), shape.to_vec())])?;
    }
    let channels = given(1).unwrap_or(3);
    let size = given(2).zip(given(3)).map(|(h, w)| [h, w]);
    let batch = given(0);
    // What it gives decides how pictures are prepared, so it is built once for its outputs' shapes.
    let [h, w] = size.unwrap_or([224, 224]);
    let mut trial = Graph::new();
    let x = trial.input("x", [batch.unwrap_or(1), h, w, channels], crate::tensor::DType::F32);
    let trial_outputs = vision_outputs(&model, &mut trial, x)?;
    let gives = |what: &str| trial_outputs.iter().any(|(name, _)| name == what);
    let (pictures, boxes) = (gives("picture"), gives("boxes"));
    let (mean, std) = match channels {
        3 if !pictures && !boxes => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
        n => (vec![0.0; n], vec![1.0; n]),
    };
    let preprocess = Preprocess {
        size: if boxes { size.or(Some([yolo::SIDE; 2])) } else { size },
        multiple: 1,
        fit: match (pictures, boxes) {
            (true, _) => Fit::Stretch,
            (_, true) => Fit::Letterbox { fill: yolo::GREY },
            _ => Fit::Crop { portion: 0.875 },
        },
        filter: if boxes { Filter::TwoTaps } else { Filter::Bilinear },
        mean,
        std,
        light_on_dark: false,
    };
    let name = path.file_stem().map_or("onnx".to_owned(), |s| s.to_string_lossy().into_owned());
    let labels = model.file.labels.clone();
    let mut vision = VisionModel::new(&name, preprocess, labels, move |g, x| vision_outputs(&model, g, x));
    vision.batch = batch;
    Ok(vision)
}

/// The network's outputs under the names that tasks look for, where their shapes leave no doubt.
fn vision_outputs(model: &OnnxModel, g: &mut Graph, x: ValueId) -> Result<Outputs> {
    let input = g.shape(x).to_vec();
    let mut outputs = model.build(g, x)?;
    let [(name, y)] = &mut outputs[..] else { return Ok(outputs) };
    match g.shape(*y)[..] {
        [_, _] => *name = "logits".to_owned(),
        [n, 1, 1, c] => (*name, *y) = ("logits".to_owned(), g.reshape(*y, [n, c])?),
        [_, h, w, 1 | 3] if h >= input[1] && w >= input[2] && g.shape(*y).last() == input[3] => {
            *name = "picture".to_owned();
        }
        [_, _, _, _] => *name = "map".to_owned(),
        // Boxes and scores of as many candidates as YOLO's three levels have.
        [_, numbers, candidates] if candidates == yolo::candidates([input[1], input[2]]) && numbers > 4 => {
            let candidates = boxes::from_centres(g, *y)?;
            return boxes::outputs(g, candidates);
        }
        _ => {}
    }
    Ok(outputs)
}
