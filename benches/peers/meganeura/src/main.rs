//! meganeura as a peer of `benches/peers.rs`. Its networks are code, so they are built from FOLDER/ITEM.layers, which
//! `benches/peers/export.py` writes.
//!
//! Inputs stay on the device, and nothing is read back.

#[path = "../../serve.rs"]
mod serve;

use std::collections::HashMap;

use meganeura::graph::NodeId;
use meganeura::{Graph, Session, SessionConfig};
use serve::{Items, Numbers, Prepared, Trouble, serve};

struct Loaded {
    session: Session,
    elements: usize,
    /// Heads and their size, where the output is to be turned to heads before rows.
    heads: Option<[usize; 2]>,
}

impl Prepared for Loaded {
    fn run(&mut self, runs: u32) -> Result<(), String> {
        (0..runs).for_each(|_| self.session.step());
        self.session.wait();
        Ok(())
    }

    fn answer(&mut self) -> Result<Vec<f32>, String> {
        self.run(1)?;
        let values = self.session.read_output(self.elements);
        Ok(match self.heads {
            Some([heads, size]) => turned(&values, [self.elements / (heads * size), heads, size]),
            None => values,
        })
    }
}

/// `[a, b, c]` as `[b, a, c]`.
fn turned(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    (0..a * b).flat_map(|i| &values[((i % a) * b + i / a) * c..][..c]).copied().collect()
}

/// A graph under construction, with the numbers of its inputs and parameters.
struct Net {
    graph: Graph,
    inputs: Vec<(String, Vec<f32>)>,
    parameters: Vec<(String, Vec<f32>)>,
}

/// A feature map: channels, height and width.
type Size = [u32; 3];

impl Net {
    fn new() -> Net {
        Net { graph: Graph::new(), inputs: Vec::new(), parameters: Vec::new() }
    }

    fn input(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> NodeId {
        self.inputs.push((name.to_owned(), values));
        self.graph.input(name, shape)
    }

    fn parameter(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> NodeId {
        self.parameters.push((name.to_owned(), values));
        self.graph.parameter(name, shape)
    }

    /// A convolution with its bias; meganeura has those of all channels and of one channel each.
    fn conv(
        &mut self,
        x: NodeId,
        [c, h, w]: Size,
        (name, weight, bias): (&str, Numbers, Numbers),
        [stride, pad, groups]: [u32; 3],
    ) -> Result<(NodeId, Size), String> {
        let (c_out, kernel) = (weight.shape[0] as u32, weight.shape[2] as u32);
        let k = self.parameter(&format!("{name}.weight"), &[weight.values.len()], weight.values);
        let out = |n: u32| (n + 2 * pad - kernel) / stride + 1;
        let y = match groups {
            1 => self.graph.conv2d(x, k, 1, c, h, w, c_out, kernel, kernel, stride, pad),
            _ if groups == c && c_out == c => {
                self.graph.conv2d_dw(x, k, 1, c, h, w, kernel, kernel, stride, pad, pad)
            }
            _ => return Err(format!("no convolution in {groups} groups")),
        };
        let b = self.parameter(&format!("{name}.bias"), &[bias.values.len()], bias.values);
        let size = [c_out, out(h), out(w)];
        Ok((self.graph.add_per_channel(y, b, c_out, size[1] * size[2]), size))
    }

    /// Compiles it and brings its numbers to the device.
    fn load(mut self, output: NodeId, elements: usize, heads: Option<[usize; 2]>) -> Loaded {
        self.graph.set_outputs(vec![output]);
        let mut session = meganeura::build(&self.graph, SessionConfig::inference_from_env()).0;
        self.parameters.iter().for_each(|(name, values)| session.set_parameter(name, values));
        self.inputs.iter().for_each(|(name, values)| session.set_input(name, values));
        Loaded { session, elements, heads }
    }
}

fn kernel(items: &Items, item: &str) -> Result<Loaded, Trouble> {
    let numbers = items.numbers(item, "safetensors");
    let get = |name: &str| numbers(name).expect("the item's file has it");
    let mut net = Net::new();
    let family = item.split('-').next().expect("a name");
    match family {
        "matmul" => {
            let (a, b) = (get("a"), get("b"));
            let [m, n] = [a.shape[0], b.shape[1]];
            let a = net.input("a", &a.shape, a.values);
            let b = net.input("b", &b.shape, b.values);
            let y = net.graph.matmul(a, b);
            Ok(net.load(y, m * n, None))
        }
        "linear" => {
            let (x, weight, bias) = (get("x"), get("weight"), get("bias"));
            let elements = x.shape[0] * weight.shape[0];
            let x = net.input("x", &x.shape, x.values);
            let weight = net.parameter("weight", &weight.shape, weight.values);
            let bias = net.parameter("bias", &bias.shape, bias.values);
            let y = net.graph.matmul_bt(x, weight);
            let y = net.graph.bias_add(y, bias);
            Ok(net.load(y, elements, None))
        }
        "conv1" | "conv3" | "depthwise" => {
            let x = get("x");
            let size = [x.shape[1] as u32, x.shape[2] as u32, x.shape[3] as u32];
            let input = net.input("x", &[x.values.len()], x.values);
            let (weight, bias) = (get("weight"), get("bias"));
            let groups = size[0] / weight.shape[1] as u32;
            let pad = weight.shape[2] as u32 / 2;
            let (y, size) =
                net.conv(input, size, ("conv", weight, bias), [1, pad, groups]).map_err(Trouble::Unsupported)?;
            Ok(net.load(y, size.iter().product::<u32>() as usize, None))
        }
        "groupnorm" => {
            let (x, weight, bias) = (get("x"), get("weight"), get("bias"));
            let [c, pixels] = [x.shape[1] as u32, (x.shape[2] * x.shape[3]) as u32];
            let elements = x.values.len();
            let x = net.input("x", &[elements], x.values);
            let weight = net.parameter("weight", &weight.shape, weight.values);
            let bias = net.parameter("bias", &bias.shape, bias.values);
            let y = net.graph.group_norm(x, weight, bias, 1, c, pixels, 32, 1e-5);
            let y = net.graph.silu(y);
            Ok(net.load(y, elements, None))
        }
        "attention" => {
            let shape = get("q").shape;
            let [heads, rows, size] = [shape[1], shape[2], shape[3]];
            if !size.is_power_of_two() {
                return Err(Trouble::Unsupported(format!("its attention has no heads of {size}, only of powers of two")));
            }
            // Rows before heads.
            let mut operand = |name: &str| {
                let values = turned(&get(name).values, [heads, rows, size]);
                net.input(name, &[rows, heads * size], values)
            };
            let (q, k, v) = (operand("q"), operand("k"), operand("v"));
            let y = net.graph.full_attention(q, k, v, heads as u32, heads as u32, size as u32);
            Ok(net.load(y, heads * rows * size, Some([heads, size])))
        }
        "softmax" => {
            let x = get("x");
            let (elements, last) = (x.values.len(), x.shape[2]);
            let input = net.input("x", &[elements / last, last], x.values);
            let y = net.graph.softmax(input);
            Ok(net.load(y, elements, None))
        }
        _ => Err(Trouble::Unsupported(format!("nothing written for {item}"))),
    }
}

fn network(items: &Items, item: &str) -> Result<Loaded, Trouble> {
    let text = std::fs::read_to_string(items.path(item, "layers"))
        .map_err(|error| Trouble::Failed(format!("{item}.layers: {error}")))?;
    let weights = items.numbers(item, "folded.safetensors");
    let picture = items.inputs(item).remove(0).1;
    let size = [picture.shape[1] as u32, picture.shape[2] as u32, picture.shape[3] as u32];
    let mut net = Net::new();
    let x = net.input("x", &[picture.values.len()], picture.values);
    let mut values: Vec<(NodeId, Size)> = vec![(x, size)];
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let options: HashMap<&str, u32> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name, value.parse().expect("a number")))
            .collect();
        let inputs: Vec<(NodeId, Size)> =
            words[2..].iter().filter_map(|word| word.parse::<usize>().ok()).map(|at| values[at]).collect();
        let (x, [c, h, w]) = inputs[0];
        let g = &mut net.graph;
        let value = match words[0] {
            "conv" | "linear" => {
                let name = options["weight"].to_string();
                let get = |end: &str| weights(&format!("{name}.{end}")).expect("a weight a layer");
                let (weight, bias) = (get("weight"), get("bias"));
                if words[0] == "conv" {
                    let options = [options["stride"], options["pad"], options["groups"]];
                    net.conv(x, [c, h, w], (&name, weight, bias), options).map_err(Trouble::Unsupported)?
                } else {
                    let out = weight.shape[1] as u32;
                    let x = g.reshape(x, &[1, c as usize]);
                    let weight = net.parameter(&format!("{name}.weight"), &weight.shape, weight.values);
                    let bias = net.parameter(&format!("{name}.bias"), &bias.shape, bias.values);
                    let y = net.graph.matmul(x, weight);
                    (net.graph.bias_add(y, bias), [out, 1, 1])
                }
            }
            "relu" => (g.relu(x), [c, h, w]),
            "silu" => (g.silu(x), [c, h, w]),
            "sigmoid" => (g.sigmoid(x), [c, h, w]),
            "add" => (g.add(x, inputs[1].0), [c, h, w]),
            "scale" => {
                let gate = g.reshape(inputs[1].0, &[c as usize]);
                (g.mul_per_channel(x, gate, c, h * w), [c, h, w])
            }
            "maxpool" => {
                let [kernel, stride, pad] = [options["kernel"], options["stride"], options["pad"]];
                let out = |n: u32| (n + 2 * pad - kernel) / stride + 1;
                (g.max_pool_2d(x, 1, c, h, w, kernel, kernel, stride, pad), [c, out(h), out(w)])
            }
            "globalaveragepool" => {
                let y = g.global_avg_pool(x, 1, c, h * w);
                (g.reshape(y, &[c as usize]), [c, 1, 1])
            }
            other => return Err(Trouble::Unsupported(format!("meganeura has no {other}"))),
        };
        values.push(value);
    }
    let &(y, [classes, ..]) = values.last().expect("at least the input");
    Ok(net.load(y, classes as usize, None))
}

fn main() {
    serve(("meganeura 0.3.0", "blade's first adapter", false), |items, item| {
        let made = match items.path(item, "layers").exists() {
            true => network(items, item),
            false => kernel(items, item),
        };
        made.map(|loaded| Box::new(loaded) as Box<dyn Prepared>)
    });
}
