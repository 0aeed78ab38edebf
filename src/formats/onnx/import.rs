//! ONNX's graph → [`Graph`]: values by name, node by node in order of execution.
//!
//! A value is known on the host or computed on the device. On the device it may lie in any
//! order of axes: convolutions want channels last, ONNX puts them second, and exporters
//! add transposes of their own. So each value says which of its axes lies where, a
//! transpose is a change of that note, and numbers move only when an operation needs
//! another order than it finds.

use std::collections::HashMap;

use super::counted::{self, Counted};
use super::elem::Elem;
use super::fold::fold;
use super::host::{Data, Host, elements_below};
use super::proto;
use super::rows;
use crate::graph::{Graph, ValueId};
use crate::tensor::DType;

/// Why a node cannot be imported.
pub type Result<T, E = String> = std::result::Result<T, E>;

/// A tensor on the device.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: ValueId,
    /// Dimension `d` in the graph is ONNX's axis `axes[d]`.
    pub axes: Vec<usize>,
    pub elem: Elem,
    /// In ONNX's order.
    pub shape: Vec<usize>,
    /// How much of it counts, where that is only known in a run.
    pub counted: Option<Counted>,
}

#[derive(Clone, Debug)]
pub enum Value {
    Host(Host),
    Device(Device),
}

impl Value {
    pub fn shape(&self) -> &[usize] {
        match self {
            Value::Host(h) => &h.shape,
            Value::Device(d) => &d.shape,
        }
    }

    pub fn elem(&self) -> Elem {
        match self {
            Value::Host(h) => h.elem,
            Value::Device(d) => d.elem,
        }
    }

    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    pub fn elements(&self) -> usize {
        self.shape().iter().product()
    }
}

impl From<Host> for Value {
    fn from(host: Host) -> Self {
        Value::Host(host)
    }
}

impl From<Device> for Value {
    fn from(device: Device) -> Self {
        Value::Device(device)
    }
}

/// ONNX's `[n, c, h, w]` as feature maps lie in the graph, for any rank from three.
pub fn channels_last(rank: usize) -> Vec<usize> {
    std::iter::once(0).chain(2..rank).chain(std::iter::once(1)).collect()
}

/// Most bodies of branches and loops that are written out, and most nodes in all of them.
const MOST_BODIES: usize = 1 << 10;
const MOST_BODY_NODES: usize = 1 << 16;

/// Most elements, a quarter of a gigabyte of them, of all constants that are worked out here: a small file can ask for any
/// number.
const MOST_WORKED_OUT: usize = 1 << 25;

/// The graph under construction and what is known of ONNX's values.
pub struct Import<'a> {
    pub graph: &'a mut Graph,
    /// Version of the standard operators.
    pub opset: i64,
    values: HashMap<String, Value>,
    /// Values moved to another order of axes.
    moved: HashMap<(ValueId, Vec<usize>), ValueId>,
    /// Bodies of branches and loops that were written out.
    bodies: usize,
    /// Nodes in these.
    body_nodes: usize,
    /// Elements of constants that were worked out.
    worked_out: usize,
    /// Weights already in the graph, by where they lie in memory and their shape; their values are kept, so that no
    /// others come to lie there.
    weights: HashMap<(usize, Vec<usize>), (ValueId, Data)>,
}

/// A node with its inputs, as an operator's import sees it.
pub struct Node<'n> {
    pub proto: &'n proto::Node,
    pub inputs: Vec<Option<Value>>,
}

impl<'a> Import<'a> {
    pub fn new(graph: &'a mut Graph, opset: i64) -> Self {
        Import {
            graph,
            opset,
            values: HashMap::new(),
            moved: HashMap::new(),
            bodies: 0,
            body_nodes: 0,
            worked_out: 0,
            weights: HashMap::new(),
        }
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Imports one node whose inputs are known.
    pub fn node(&mut self, proto: &proto::Node) -> Result<()> {
        self.room(&[0])?;
        let row = rows::find(&proto.domain, &proto.op_type)?;
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            inputs.push(match name.is_empty() {
                true => None,
                false => {
                    Some(self.get(name).cloned().ok_or_else(|| format!("its input {name} is not known"))?)
                }
            });
        }
        let name = if proto.name.is_empty() { proto.output.first() } else { Some(&proto.name) };
        let name = name.cloned().unwrap_or_default();
        let node = Node { proto, inputs };
        let counted = counted::results(&node)?;
        let mut outputs = match fold(&node)? {
            Some(known) => self.folded(known)?,
            None => self.scoped(&name, |import| row(import, &node))?,
        };
        if counted.is_some() {
            for output in &mut outputs {
                let Value::Device(device) = output else {
                    return Err("has no room for its result".to_owned());
                };
                device.counted = counted;
            }
        }
        if outputs.len() < proto.output.iter().filter(|o| !o.is_empty()).count() {
            return Err(format!("its output {} is not supported", proto.output[outputs.len()]));
        }
        for (name, value) in proto.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.set(name, value);
        }
        Ok(())
    }

    /// Accounts for a constant of these dimensions, before or after it is worked out.
    pub fn room(&mut self, dims: &[usize]) -> Result<()> {
        let all = elements_below(dims, MOST_WORKED_OUT).map_or(usize::MAX, |n| n + self.worked_out);
        // Where there was too little room once, nothing more is tried.
        self.worked_out = all.min(MOST_WORKED_OUT + 1);
        match self.worked_out <= MOST_WORKED_OUT {
            true => Ok(()),
            false => Err(format!("constants of more than {MOST_WORKED_OUT} elements are not supported")),
        }
    }

    fn folded(&mut self, values: Vec<Value>) -> Result<Vec<Value>> {
        for value in &values {
            // What lies in the file was not worked out.
            if let Value::Host(Host { shape, data: Data::Ints(_) | Data::Floats(_), .. }) = value {
                self.room(shape)?;
            }
        }
        Ok(values)
    }

    /// The results of a graph within a node, with these values for its inputs; it sees the values around it.
    pub fn body(&mut self, graph: &proto::Graph, inputs: &[Value]) -> Result<Vec<Value>> {
        self.bodies += 1;
        self.body_nodes += graph.node.len();
        if self.bodies > MOST_BODIES || self.body_nodes > MOST_BODY_NODES {
            return Err(format!(
                "loops of more than {MOST_BODIES} turns or {MOST_BODY_NODES} nodes are not supported"
            ));
        }
        for tensor in &graph.initializer {
            if tensor.data_location == 1 {
                return Err("values in other files are not supported within branches and loops".to_owned());
            }
            self.set(&tensor.name, Value::Host(Host::from_proto(tensor, None)?));
        }
        for (port, value) in graph.input.iter().zip(inputs) {
            self.set(&port.name, value.clone());
        }
        for node in &graph.node {
            self.node(node).map_err(|m| format!("{} \"{}\" within: {m}", node.op_type, node.name))?;
        }
        let result = |port: &proto::ValueInfo| {
            self.get(&port.name).cloned().ok_or_else(|| format!("\"{}\" is computed by no node", port.name))
        };
        graph.output.iter().map(result).collect()
    }

    /// The first result of an operator on values, as if it were a node of the model.
    pub fn call(&mut self, op: &str, inputs: &[&Value], attribute: Vec<proto::Attribute>) -> Result<Value> {
        let proto = proto::Node {
            op_type: op.to_owned(),
            output: vec![String::from("result")],
            attribute,
            ..Default::default()
        };
        let node = Node { proto: &proto, inputs: inputs.iter().map(|&v| Some(v.clone())).collect() };
        let outputs = match fold(&node)? {
            Some(known) => self.folded(known)?,
            None => rows::find("", op)?(self, &node)?,
        };
        outputs.into_iter().next().ok_or_else(|| format!("{op} has no result"))
    }

    fn scoped<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        self.graph.enter(name);
        let result = build(self);
        self.graph.leave();
        result
    }

    /// A value on the device, in whatever order its axes lie.
    pub fn device(&mut self, value: &Value) -> Result<Device> {
        match value {
            Value::Device(device) => Ok(device.clone()),
            Value::Host(host) => self.weight(host),
        }
    }

    fn weight(&mut self, host: &Host) -> Result<Device> {
        if host.elements() == 0 {
            return Err(format!("empty tensors ({:?}) are not supported here", host.shape));
        }
        let start = match &host.data {
            Data::Raw(bytes) => bytes.as_ptr() as usize,
            Data::Ints(values) => values.as_ptr() as usize,
            Data::Floats(values) => values.as_ptr() as usize,
        };
        let place = (start, host.shape.clone());
        let id = match self.weights.get(&place) {
            Some((id, _)) => *id,
            None => match host.packed() {
                Some((words, signed)) => {
                    let words = self.graph.weight("constant", words);
                    self.graph.unpack_bytes(words, host.shape.clone(), signed).map_err(plain)?
                }
                None => {
                    let weight = self.graph.weight("constant", host.to_tensor()?);
                    match host.elem.is_float() {
                        true => self.graph.unpacked(weight, DType::F32).map_err(plain)?,
                        false => weight,
                    }
                }
            },
        };
        self.weights.insert(place, (id, host.data.clone()));
        let axes = (0..host.shape.len()).collect();
        Ok(Device { id, axes, elem: host.elem, shape: host.shape.clone(), counted: None })
    }

    /// A value on the device with its axes in this order.
    pub fn ordered(&mut self, value: &Value, axes: &[usize]) -> Result<ValueId> {
        let device = self.device(value)?;
        if device.axes == axes {
            return Ok(device.id);
        }
        if let Some(id) = self.moved.get(&(device.id, axes.to_vec())) {
            return Ok(*id);
        }
        let from: Vec<usize> = axes
            .iter()
            .map(|a| device.axes.iter().position(|b| a == b).ok_or("axes do not match its rank".to_owned()))
            .collect::<Result<_>>()?;
        // Axes of size one may lie anywhere.
        let wide: Vec<usize> =
            from.iter().copied().filter(|&d| self.graph.shape(device.id)[d] != 1).collect();
        let id = match wide.is_sorted() {
            true => {
                let shape: Vec<usize> = from.iter().map(|&d| self.graph.shape(device.id)[d]).collect();
                self.graph.reshape(device.id, shape)
            }
            false => self.graph.transpose(device.id, &from),
        };
        let id = id.map_err(plain)?;
        self.moved.insert((device.id, axes.to_vec()), id);
        Ok(id)
    }

    /// A value on the device in ONNX's order.
    pub fn plain(&mut self, value: &Value) -> Result<ValueId> {
        let axes: Vec<usize> = (0..value.rank()).collect();
        self.ordered(value, &axes)
    }

    /// A value of rank three or more as `[n, spatial…, c]`.
    pub fn channels_last(&mut self, value: &Value) -> Result<ValueId> {
        self.ordered(value, &channels_last(value.rank()))
    }

    /// What the graph computed, as a value whose axes lie in this order.
    pub fn result(&self, id: ValueId, axes: Vec<usize>, elem: Elem) -> Value {
        let dims = self.graph.shape(id);
        let mut shape = vec![0; axes.len()];
        for (&axis, &size) in axes.iter().zip(dims.iter()) {
            shape[axis] = size;
        }
        Value::Device(Device { id, axes, elem, shape, counted: None })
    }

    /// What the graph computed in ONNX's order.
    pub fn plain_result(&self, id: ValueId, elem: Elem) -> Value {
        let rank = self.graph.shape(id).len();
        self.result(id, (0..rank).collect(), elem)
    }

    /// What the graph computed as `[n, spatial…, c]`.
    pub fn channels_last_result(&self, id: ValueId, elem: Elem) -> Value {
        let rank = self.graph.shape(id).len();
        self.result(id, channels_last(rank), elem)
    }
}

/// An attribute with one number.
pub fn with_int(name: &str, i: i64) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), i, ..Default::default() }
}

/// An attribute with several.
pub fn with_ints(name: &str, ints: &[i64]) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), ints: ints.to_vec(), ..Default::default() }
}

/// A known vector of sizes or axes.
pub fn ints(values: &[i64]) -> Value {
    Value::Host(Host::ints(Elem::I64, vec![values.len()], values.to_vec()))
}

/// A known number.
pub fn number(elem: Elem, value: f64) -> Value {
    Value::Host(match elem.is_float() {
        true => Host::floats(elem, vec![], vec![value]),
        false => Host::ints(elem, vec![], vec![value as i64]),
    })
}

/// The message of an error of the graph, without the name of the node, which the report has.
pub fn plain(error: crate::Error) -> String {
    match error {
        crate::Error::Graph { message, .. } => message,
        other => other.to_string(),
    }
}

impl Node<'_> {
    /// The input `i`, which must be there.
    pub fn input(&self, i: usize) -> Result<&Value> {
        self.optional(i).ok_or_else(|| format!("input {i} is missing"))
    }

    pub fn optional(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// The input `i`, which must be known when the network is loaded.
    pub fn host(&self, i: usize) -> Result<&Host> {
        match self.input(i)? {
            Value::Host(host) => Ok(host),
            Value::Device(_) => {
                Err(format!("input {i} must be a constant, as the shape of the result depends on it"))
            }
        }
    }

    /// The input `i` as known integers; `None` if it is not given.
    pub fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        match self.optional(i) {
            None => Ok(None),
            Some(_) => Ok(Some(self.ints(i)?)),
        }
    }

    pub fn ints(&self, i: usize) -> Result<Vec<i64>> {
        let host = self.host(i)?;
        Ok(host
            .as_ints()
            .ok_or_else(|| format!("input {i} must hold integers, found {}", host.elem))?
            .to_vec())
    }

    fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.proto.attribute.iter().find(|a| a.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub fn string(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or(default.to_owned(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub fn list(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attribute(name).map(|a| a.floats.as_slice())
    }

    pub fn tensor(&self, name: &str) -> Option<&proto::Tensor> {
        self.attribute(name).and_then(|a| a.t.as_ref())
    }

    pub fn graph(&self, name: &str) -> Option<&proto::Graph> {
        self.attribute(name).and_then(|a| a.g.as_ref())
    }

    pub fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Whether the output `i` is asked for.
    pub fn wants(&self, i: usize) -> bool {
        self.proto.output.get(i).is_some_and(|o| !o.is_empty())
    }
}

/// An axis of `-rank..rank` as one of `0..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(wrapped) {
        Ok(a) if a < rank => Ok(a),
        _ => Err(format!("axis {axis} is not one of a tensor of rank {rank}")),
    }
}

/// A size that must not be negative nor absurd.
pub fn size(v: i64) -> Result<usize> {
    usize::try_from(v).ok().filter(|&n| n <= 1 << 31).ok_or_else(|| format!("size {v} is out of range"))
}

/// The number of elements of a shape, which must be one that a tensor can have (2^30).
pub fn checked_elements(dims: &[usize]) -> Result<usize> {
    elements_below(dims, 1 << 30).ok_or_else(|| format!("shape {dims:?} has more than 2^30 elements"))
}
