//! What a network is and what its plan will do on a device, for reading: as
//! text, as JSON (`serde`), and the graph as a Graphviz drawing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::graph::{Graph, Source};
use crate::ops::Operator;
use crate::plan::{Dispatch, Plan, Port};
use crate::target::Target;
use crate::tensor::TensorDesc;
use crate::units;

/// A network and its plan. Sizes are in bytes; a multiply-add counts as two operations.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub parameters: u64,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Held while the network exists.
    pub resident_bytes: u64,
    /// The most that is ever held: while loading, weights lie in two forms.
    pub peak_bytes: u64,
    /// Resident bytes by what they are for.
    pub memory: BTreeMap<&'static str, u64>,
    pub target: Target,
    pub inputs: Vec<Tensor>,
    pub states: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// The graph as built, before the passes.
    pub graph: Vec<Node>,
    /// Launches of a run, summed by kernel and variant, most operations first.
    pub kernels: Vec<KernelSum>,
    /// Done once, when the network is loaded.
    pub load: Vec<Launch>,
    /// Done by each run.
    pub run: Vec<Launch>,
    pub buffers: Vec<BufferRow>,
}

/// A tensor that has a name outside the network.
#[derive(Clone, Debug, Serialize)]
pub struct Tensor {
    pub name: String,
    #[serde(flatten)]
    pub desc: TensorDesc,
    pub buffer: usize,
}

/// A value of the graph.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub id: usize,
    pub name: String,
    /// Name of the operation, or `Input`, `Weight` or `State`.
    pub op: &'static str,
    /// What tells the operation from others of its kind.
    pub detail: String,
    /// Whether it depends on weights alone.
    pub constant: bool,
    #[serde(flatten)]
    pub desc: TensorDesc,
    pub inputs: Vec<usize>,
}

/// One dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct Launch {
    pub label: String,
    pub op: &'static str,
    pub kernel: &'static str,
    pub variant: String,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
    pub workgroup_size: [u32; 3],
    pub flops: u64,
    /// Bytes of all tensors that it reads or writes.
    pub bytes: u64,
    pub buffers: Vec<usize>,
}

/// All launches of one kernel variant.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSum {
    pub kernel: &'static str,
    pub variant: String,
    pub launches: usize,
    pub flops: u64,
    pub bytes: u64,
}

/// One buffer.
#[derive(Clone, Debug, Serialize)]
pub struct BufferRow {
    pub id: usize,
    pub role: &'static str,
    pub label: String,
    pub bytes: u64,
    /// Whether it stays after loading.
    pub resident: bool,
}

impl Report {
    /// `graph` as built and the plan that was compiled from it.
    pub fn new(name: &str, graph: &Graph, plan: &Plan) -> Report {
        let ports = |ports: &[Port]| -> Vec<Tensor> {
            let tensor = |p: &Port| Tensor { name: p.name.clone(), desc: p.desc.clone(), buffer: p.buffer };
            ports.iter().map(tensor).collect()
        };
        let launches = |dispatches: &[Dispatch]| dispatches.iter().map(Launch::new).collect();
        Report {
            name: name.to_owned(),
            parameters: plan.parameters,
            flops: plan.flops(),
            resident_bytes: plan.resident_bytes(),
            peak_bytes: plan.peak_bytes(),
            memory: plan.bytes_by_role().into_iter().collect(),
            target: plan.target.clone(),
            inputs: ports(&plan.inputs),
            states: ports(&plan.states),
            outputs: ports(&plan.outputs),
            graph: nodes(graph),
            kernels: sum_by_kernel(&plan.run),
            load: launches(&plan.load),
            run: launches(&plan.run),
            buffers: plan
                .buffers
                .iter()
                .enumerate()
                .map(|(id, b)| BufferRow {
                    id,
                    role: b.role_name(),
                    label: b.label.clone(),
                    bytes: b.bytes,
                    resident: b.resident(),
                })
                .collect(),
        }
    }
}

impl Launch {
    fn new(dispatch: &Dispatch) -> Self {
        Launch {
            label: dispatch.label.clone(),
            op: dispatch.op,
            kernel: dispatch.shader.kernel.name,
            variant: dispatch.shader.kernel.variant(),
            groups: dispatch.groups,
            workgroup_size: dispatch.shader.workgroup_size,
            flops: dispatch.flops,
            bytes: dispatch.bytes,
            buffers: dispatch.buffers.clone(),
        }
    }
}

fn nodes(graph: &Graph) -> Vec<Node> {
    let constant = graph.constants();
    graph
        .values()
        .map(|(id, value)| Node {
            id: id.index(),
            name: value.name.clone(),
            op: source_name(&value.source),
            detail: detail(&value.source),
            constant: constant[id.index()],
            desc: value.desc.clone(),
            inputs: match &value.source {
                Source::Op { inputs, .. } => inputs.iter().map(|i| i.index()).collect(),
                _ => Vec::new(),
            },
        })
        .collect()
}

fn source_name(source: &Source) -> &'static str {
    match source {
        Source::Input => "Input",
        Source::Weight(_) => "Weight",
        Source::State(_) => "State",
        Source::Op { op, .. } => op.name(),
    }
}

fn detail(source: &Source) -> String {
    match source {
        Source::Op { op, .. } => op.detail(),
        _ => String::new(),
    }
}

fn sum_by_kernel(dispatches: &[Dispatch]) -> Vec<KernelSum> {
    let mut sums: Vec<KernelSum> = Vec::new();
    for dispatch in dispatches {
        let kernel = dispatch.shader.kernel.name;
        let variant = dispatch.shader.kernel.variant();
        let at = sums.iter().position(|s| s.kernel == kernel && s.variant == variant).unwrap_or_else(|| {
            sums.push(KernelSum { kernel, variant, launches: 0, flops: 0, bytes: 0 });
            sums.len() - 1
        });
        sums[at].launches += 1;
        sums[at].flops += dispatch.flops;
        sums[at].bytes += dispatch.bytes;
    }
    sums.sort_by_key(|s| std::cmp::Reverse((s.flops, s.bytes)));
    sums
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distinct: usize = self.kernels.len();
        writeln!(f, "{}", self.name)?;
        let mut facts = Table::new("ll");
        facts.row(["  parameters", &units::thousands(self.parameters)]);
        facts.row(["  work of a run", &units::si(self.flops as f64, "FLOP")]);
        let parts: Vec<String> =
            self.memory.iter().map(|(role, n)| format!("{role} {}", units::bytes(*n))).collect();
        facts.row(["  peak memory", &format!("{} (while loading)", units::bytes(self.peak_bytes))]);
        let resident = format!("{}: {}", units::bytes(self.resident_bytes), parts.join(", "));
        facts.row(["  resident", &resident]);
        facts.row(["  device", &self.target.name]);
        let ports = [("  input", &self.inputs), ("  state", &self.states), ("  output", &self.outputs)];
        for (kind, tensors) in ports {
            for t in tensors {
                facts.row([kind, &format!("{} {}", t.name, t.desc)]);
            }
        }
        write!(f, "{facts}")?;

        writeln!(f, "\ngraph, as built, without what depends on weights alone")?;
        let mut table = Table::new("llll");
        for node in self.graph.iter().filter(|n| !n.constant) {
            let shape = node.desc.to_string();
            table.row([&format!("  {}", node.name), node.op, &shape, &node.detail]);
        }
        write!(f, "{table}")?;

        writeln!(f, "\nplan: {} launches when loading, {} in a run", self.load.len(), self.run.len())?;
        let mut table = Table::new("rllrrrr");
        table.row(["  #", "label", "kernel", "groups", "FLOP", "bytes", "buffers"]);
        for (i, l) in self.run.iter().enumerate() {
            let kernel = format!("{} {}", l.kernel, l.variant);
            table.row([
                &i.to_string(),
                &l.label,
                kernel.trim_end(),
                &l.groups.iter().map(|&g| u64::from(g)).product::<u64>().to_string(),
                &units::si(l.flops as f64, ""),
                &units::bytes(l.bytes),
                &l.buffers.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
            ]);
        }
        write!(f, "{table}")?;

        writeln!(f, "\nkernels: {distinct} variants")?;
        let mut table = Table::new("lrrr");
        table.row(["  kernel", "launches", "FLOP", "bytes"]);
        for k in &self.kernels {
            let name = format!("  {} {}", k.kernel, k.variant);
            let flops = units::si(k.flops as f64, "");
            table.row([name.trim_end(), &k.launches.to_string(), &flops, &units::bytes(k.bytes)]);
        }
        write!(f, "{table}")?;

        let resident: Vec<&BufferRow> = self.buffers.iter().filter(|b| b.resident).collect();
        let passing = self.buffers.len() - resident.len();
        writeln!(f, "\nbuffers: {} resident, {passing} while loading", resident.len())?;
        let mut table = Table::new("rllr");
        table.row(["  #", "role", "label", "size"]);
        for b in resident {
            table.row([&b.id.to_string(), b.role, &b.label, &units::bytes(b.bytes)]);
        }
        write!(f, "{table}")
    }
}

/// Columns of text, two spaces apart. `l` aligns a column left, `r` right.
struct Table {
    align: &'static str,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(align: &'static str) -> Self {
        Table { align, rows: Vec::new() }
    }

    fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.align.len());
        self.rows.push(cells.iter().map(|c| (*c).to_owned()).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |text: &str| text.chars().count();
        let width = |column: usize| self.rows.iter().map(|row| length(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.align.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(self.align.chars()) {
                let _ = match align {
                    'r' => write!(line, "{cell:>width$}  "),
                    _ => write!(line, "{cell:<width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The graph in Graphviz's language: a box for each operation, in nested frames
/// by the parts of its name; what depends on weights alone is left out.
pub fn dot(name: &str, graph: &Graph) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "digraph {} {{", quoted(name));
    text.push_str(
        "  rankdir=TB; fontname=\"Helvetica\"; color=\"#ddd7ca\"; fontcolor=\"#8b857a\";\n  \
         node [shape=box, style=\"rounded,filled\", fillcolor=\"#f6f3ec\", color=\"#8b857a\", \
         fontname=\"Helvetica\", fontsize=10];\n  edge [color=\"#8b857a\", arrowsize=0.6];\n",
    );
    let constant = graph.constants();
    let mut root = Frame::default();
    for (id, value) in graph.values().filter(|(id, _)| !constant[id.index()]) {
        let op = source_name(&value.source);
        let mut path: Vec<&str> = value.name.split('.').collect();
        let leaf = path.pop().unwrap_or_default();
        let shape = if matches!(value.source, Source::Op { .. }) { "" } else { ", shape=ellipse" };
        let what = format!("{op} {}", detail(&value.source));
        let label = match leaf == op {
            true => format!("{}\n{}", what.trim_end(), value.desc),
            false => format!("{leaf}: {}\n{}", what.trim_end(), value.desc),
        };
        root.insert(&path, format!("n{} [label={}{shape}];", id.index(), quoted(&label)));
    }
    root.write(&mut text, "", &mut 0);
    for (id, value) in graph.values().filter(|(id, _)| !constant[id.index()]) {
        if let Source::Op { inputs, .. } = &value.source {
            for input in inputs.iter().filter(|i| !constant[i.index()]) {
                let _ = writeln!(text, "  n{} -> n{};", input.index(), id.index());
            }
        }
    }
    for (i, (name, id)) in graph.outputs().iter().enumerate().filter(|(_, (_, id))| !constant[id.index()]) {
        let _ = writeln!(text, "  o{i} [label={}, shape=ellipse];", quoted(name));
        let _ = writeln!(text, "  n{} -> o{i};", id.index());
    }
    for (state, value) in graph.updates() {
        let _ = writeln!(text, "  n{} -> n{} [style=dashed];", value.index(), state.index());
    }
    text.push_str("}\n");
    text
}

/// A string of Graphviz's language; a line break stays one.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Nodes that share the first parts of their names.
#[derive(Default)]
struct Frame {
    nodes: Vec<String>,
    frames: Vec<(String, Frame)>,
}

impl Frame {
    fn insert(&mut self, path: &[&str], node: String) {
        match path {
            [] => self.nodes.push(node),
            [first, rest @ ..] => {
                let at = self.frames.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
                    self.frames.push(((*first).to_owned(), Frame::default()));
                    self.frames.len() - 1
                });
                self.frames[at].1.insert(rest, node);
            }
        }
    }

    fn write(&self, text: &mut String, prefix: &str, count: &mut usize) {
        for node in &self.nodes {
            let _ = writeln!(text, "  {node}");
        }
        for (name, frame) in &self.frames {
            let full = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // A frame round nothing but another frame says nothing.
            if frame.nodes.is_empty() && frame.frames.len() == 1 {
                frame.write(text, &full, count);
                continue;
            }
            let _ = writeln!(text, "  subgraph cluster_{count} {{ label={};", quoted(&full));
            *count += 1;
            frame.write(text, &full, count);
            text.push_str("  }\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::{DType, Tensor};

    fn graph() -> Graph {
        let mut g = Graph::new();
        let x = g.input("picture", [1, 8, 8, 4], DType::F32);
        let y = g.scoped("block.conv", |g| {
            let w = g.weight("block.conv.weight", Tensor::from_f32([4, 4, 3, 3], &[0.5; 144]));
            g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap()
        });
        g.output("features", y);
        g
    }

    #[test]
    fn a_report_adds_up() {
        let graph = graph();
        let plan = Plan::compile(&graph, &Target::typical()).unwrap();
        let report = Report::new("small", &graph, &plan);
        assert_eq!(report.parameters, 144);
        assert_eq!(report.flops, 2 * 64 * 144);
        assert_eq!(report.kernels.iter().map(|k| k.launches).sum::<usize>(), report.run.len());
        assert_eq!(report.kernels.iter().map(|k| k.flops).sum::<u64>(), report.flops);
        let resident = report.buffers.iter().filter(|b| b.resident).map(|b| b.bytes).sum::<u64>();
        assert_eq!(report.memory.values().sum::<u64>(), resident);
        let text = report.to_string();
        for wanted in ["block.conv", "3×3", "conv2d_rows", "18.4 kFLOP", "picture f32[1, 8, 8, 4]"] {
            assert!(text.contains(wanted), "no {wanted} in\n{text}");
        }
    }

    #[test]
    fn a_drawing_has_every_edge_and_closes_its_frames() {
        let text = dot("a \"name\"", &graph());
        assert!(text.starts_with("digraph \"a \\\"name\\\"\" {"), "{text}");
        assert!(text.contains("n0 -> n2;") && text.contains("n2 -> o0;"), "{text}");
        assert!(!text.contains("n1 "), "weights are left out\n{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    }
}
