//! What other engines are measured with: kernels at sizes from real networks, and whole networks for one picture.
//!
//! Each item has numbers out of its names, written to a file that every engine reads, in the layout that they have in
//! common: feature maps `[n, c, h, w]`, heads before rows. `benches/peers/items.py` has the same items in PyTorch.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::bench::hashed;
use crate::bench::network::{Contents, Made, Reference};
use crate::bench::record::Group;
use crate::bench::workloads::published::Published;
use crate::error::{Error, Result};
use crate::ops::attention::AttentionOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::matmul::Matmul;
use crate::tensor::{DType, Shape, Tensor};

/// One kernel or network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    pub id: &'static str,
    pub title: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The product of two square matrices that both come with each run.
    Matmul(usize),
    /// A fully connected layer for as many rows as it has columns; its matrix is a weight.
    Linear(usize),
    Conv {
        side: usize,
        channels: [usize; 2],
        kernel: usize,
        groups: usize,
    },
    GroupNorm {
        side: usize,
        channels: usize,
        groups: usize,
    },
    Attention {
        rows: usize,
        heads: usize,
        size: usize,
    },
    /// Along the last axis.
    Softmax([usize; 3]),
    Network(&'static str),
}

const fn conv(side: usize, c_in: usize, c_out: usize, kernel: usize, groups: usize) -> Kind {
    Kind::Conv { side, channels: [c_in, c_out], kernel, groups }
}

/// All of them, in the order of tables.
pub const ITEMS: [Item; 16] = [
    Item { id: "matmul-512", title: "matmul, 512×512 times 512×512", kind: Kind::Matmul(512) },
    Item { id: "matmul-1024", title: "matmul, 1024×1024 times 1024×1024", kind: Kind::Matmul(1024) },
    Item { id: "linear-1024", title: "linear, 1024 rows, 1024→1024", kind: Kind::Linear(1024) },
    Item { id: "conv3-64", title: "conv 3×3, 64→64, 56×56", kind: conv(56, 64, 64, 3, 1) },
    Item { id: "conv3-128", title: "conv 3×3, 128→128, 28×28", kind: conv(28, 128, 128, 3, 1) },
    Item { id: "conv3-320", title: "conv 3×3, 320→320, 32×32", kind: conv(32, 320, 320, 3, 1) },
    Item { id: "conv3-512", title: "conv 3×3, 512→512, 7×7", kind: conv(7, 512, 512, 3, 1) },
    Item { id: "depthwise-144", title: "depthwise 3×3, 144, 56×56", kind: conv(56, 144, 144, 3, 144) },
    Item { id: "conv1-256", title: "conv 1×1, 256→64, 56×56", kind: conv(56, 256, 64, 1, 1) },
    Item {
        id: "groupnorm-320",
        title: "group norm and SiLU, 320, 32×32",
        kind: Kind::GroupNorm { side: 32, channels: 320, groups: 32 },
    },
    Item {
        id: "attention-1024",
        title: "attention, 1024 rows, 8 heads of 40",
        kind: Kind::Attention { rows: 1024, heads: 8, size: 40 },
    },
    Item { id: "softmax-1024", title: "softmax, 8×1024×1024", kind: Kind::Softmax([8, 1024, 1024]) },
    Item { id: "resnet50", title: "ResNet-50, 224×224", kind: Kind::Network("resnet50") },
    Item { id: "mobilenet_v2", title: "MobileNetV2, 224×224", kind: Kind::Network("mobilenet_v2") },
    Item {
        id: "efficientnet_b0", title: "EfficientNet-B0, 224×224", kind: Kind::Network("efficientnet_b0")
    },
    Item { id: "ddpm", title: "DDPM's UNet for CIFAR-10, 32×32", kind: Kind::Network("ddpm") },
];

impl Item {
    pub fn group(&self) -> Group {
        match self.kind {
            Kind::Network(_) => Group::Network,
            _ => Group::Kernel,
        }
    }

    /// Names and shapes of what a run is given, as our graph has them.
    fn inputs(&self) -> Vec<(&'static str, Shape)> {
        match self.kind {
            Kind::Matmul(n) => vec![("a", [n, n].into()), ("b", [n, n].into())],
            Kind::Linear(n) => vec![("x", [n, n].into())],
            Kind::Conv { side, channels: [c, _], .. } | Kind::GroupNorm { side, channels: c, .. } => {
                vec![("x", [1, side, side, c].into())]
            }
            Kind::Attention { rows, heads, size } => {
                ["q", "k", "v"].map(|name| (name, [1, rows, heads * size].into())).to_vec()
            }
            Kind::Softmax(shape) => vec![("x", shape.into())],
            Kind::Network(name) => vec![("x", Published::find(name).picture())],
        }
    }

    /// Names and shapes of a kernel's weights, which are the same for all.
    fn weights(&self) -> Vec<(&'static str, Shape)> {
        match self.kind {
            Kind::Linear(n) => vec![("weight", [n, n].into()), ("bias", [n].into())],
            Kind::Conv { channels: [c_in, c_out], kernel, groups, .. } => {
                vec![("weight", [c_out, c_in / groups, kernel, kernel].into()), ("bias", [c_out].into())]
            }
            Kind::GroupNorm { channels, .. } => {
                vec![("weight", [channels].into()), ("bias", [channels].into())]
            }
            _ => Vec::new(),
        }
    }

    /// The item as our graph, with its numbers and its reference.
    ///
    /// # Errors
    /// Those of the graph.
    pub fn make(&self) -> Result<Made> {
        if let Kind::Network(name) = self.kind {
            return Published::find(name).make(Contents::Real, 1, DType::F32);
        }
        let mut made = Made::new(Reference::Computed);
        let graph = &mut made.graph;
        let mut inputs = Vec::new();
        for (name, shape) in self.inputs() {
            inputs.push(graph.input(name, shape.clone(), DType::F32));
            made.inputs.push((name.to_owned(), hashed::input(name, shape)));
        }
        let mut weight = |(name, shape): (&str, Shape)| graph.weight(name, hashed::weight(name, &shape, 1.0));
        let weights: Vec<_> = self.weights().into_iter().map(&mut weight).collect();
        let result = match self.kind {
            Kind::Matmul(_) => graph.matmul(inputs[0], inputs[1], Matmul::default())?,
            Kind::Linear(_) => graph.linear(inputs[0], weights[0], Some(weights[1]))?,
            Kind::Conv { kernel, groups, .. } => {
                let options = Conv2dOptions::padded(kernel / 2).groups(groups);
                graph.conv2d(inputs[0], weights[0], Some(weights[1]), options)?
            }
            Kind::GroupNorm { groups, .. } => {
                let y = graph.group_norm(inputs[0], groups, Some(weights[0]), Some(weights[1]), 1e-5)?;
                graph.silu(y)?
            }
            Kind::Attention { heads, .. } => {
                let options = AttentionOptions::default();
                graph.attention(inputs[0], inputs[1], inputs[2], heads, options)?
            }
            Kind::Softmax(_) => graph.softmax(inputs[0], 2)?,
            Kind::Network(_) => unreachable!("made above"),
        };
        graph.output("y", result);
        Ok(made)
    }

    /// Writes inputs and weights as others want them to `FOLDER/ID.safetensors`, and a network's configuration to
    /// `FOLDER/ID.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut all: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for (name, shape) in self.inputs() {
            let (shape, values) = self.outside(&hashed::input(name, shape));
            all.push((name.to_owned(), shape, values));
        }
        for (name, shape) in self.weights() {
            all.push((name.to_owned(), shape.to_vec(), hashed::weight(name, &shape, 1.0).to_f32()));
        }
        if let Kind::Network(name) = self.kind {
            let config = folder.join(format!("{}.json", self.id));
            std::fs::write(&config, Published::find(name).config())
                .map_err(|source| Error::Io { path: config.clone(), source })?;
            let weights = Published::find(name).weights(Contents::Real);
            for name in weights.names() {
                let shape = weights.shape(name).expect("it is one of the names").to_vec();
                all.push((name.to_owned(), shape.clone(), weights.tensor(name, &shape)?.to_f32()));
            }
        }
        let path = folder.join(format!("{}.safetensors", self.id));
        let format = |error: safetensors::SafeTensorError| Error::Format {
            path: path.clone(),
            message: error.to_string(),
        };
        let views = all
            .iter()
            .map(|(name, shape, values)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
                Ok((name.as_str(), view.map_err(format)?))
            })
            .collect::<Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, &path).map_err(format)
    }

    /// A tensor of ours as others have it: its shape and numbers.
    fn outside(&self, tensor: &Tensor) -> (Vec<usize>, Vec<f32>) {
        let values = tensor.to_f32();
        match (self.kind, &tensor.desc.shape[..]) {
            (Kind::Attention { heads, size, .. }, &[n, rows, _]) => {
                (vec![n, heads, rows, size], swapped(&values, [n, rows, heads, size]))
            }
            // Channels first.
            (_, &[n, h, w, c]) => (vec![n, c, h, w], swapped(&values, [n, h * w, c, 1])),
            (_, shape) => (shape.to_vec(), values),
        }
    }

    /// Numbers that another engine gave for a tensor of this shape of ours.
    ///
    /// # Errors
    /// How many there are instead.
    pub fn inside(&self, shape: &Shape, values: &[f32]) -> Result<Tensor, String> {
        if values.len() != shape.elements() {
            return Err(format!("gave {} numbers, {} wanted", values.len(), shape.elements()));
        }
        let values = match (self.kind, &shape[..]) {
            (Kind::Attention { heads, size, .. }, &[n, rows, _]) => swapped(values, [n, heads, rows, size]),
            (_, &[n, h, w, c]) => swapped(values, [n, c, h * w, 1]),
            _ => values.to_vec(),
        };
        Ok(Tensor::from_f32(shape.clone(), &values))
    }
}

/// `[a, b, c, d]` as `[a, c, b, d]`.
fn swapped(values: &[f32], [a, b, c, d]: [usize; 4]) -> Vec<f32> {
    let mut all = Vec::with_capacity(values.len());
    for i in 0..a {
        for k in 0..c {
            for j in 0..b {
                let at = ((i * b + j) * c + k) * d;
                all.extend_from_slice(&values[at..at + d]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::target::Target;

    #[test]
    fn numbers_come_back_from_outside() {
        for item in ITEMS.iter().filter(|item| item.group() == Group::Kernel) {
            let made = item.make().unwrap();
            for (name, tensor) in &made.inputs {
                let (shape, values) = item.outside(tensor);
                assert_eq!(shape.iter().product::<usize>(), values.len(), "{} {name}", item.id);
                let back = item.inside(&tensor.desc.shape, &values).unwrap();
                assert_eq!(
                    (back.desc, &back.bytes[..]),
                    (tensor.desc.clone(), &tensor.bytes[..]),
                    "{} {name}",
                    item.id
                );
            }
        }
        let conv = ITEMS.iter().find(|item| item.id == "conv1-256").unwrap();
        let (_, values) = conv.outside(&Tensor::from_f32([1, 1, 2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(conv.inside(&[1, 1, 2, 3].into(), &[0.0]).unwrap_err().contains("gave 1 numbers, 6 wanted"));
    }

    #[test]
    fn every_kernel_has_a_plan_and_a_file() {
        let folder = tempfile::tempdir().unwrap();
        for item in ITEMS.iter().filter(|item| item.group() == Group::Kernel) {
            let made = item.make().unwrap();
            let plan = Plan::compile(&made.graph, &Target::typical()).unwrap();
            assert!(plan.flops() > 0, "{}", item.id);
            item.write(folder.path()).unwrap();
            let bytes = std::fs::read(folder.path().join(format!("{}.safetensors", item.id))).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.len(), item.inputs().len() + item.weights().len(), "{}", item.id);
        }
    }
}
