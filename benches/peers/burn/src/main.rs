//! burn on wgpu as a peer of `benches/peers.rs`. Its networks are code, so they are built from FOLDER/ITEM.layers, which
//! `benches/peers/export.py` writes.
//!
//! Inputs stay on the device, and nothing is read back: a run is its launches and the wait for them.

#[path = "../../serve.rs"]
mod serve;

use std::collections::HashMap;

use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, DeviceKind, Tensor, TensorData, activation, module};
use serve::{Items, Numbers, Prepared, Trouble, serve};

/// Runs in which burn compiles and tunes.
const FIRST_RUNS: u32 = 3;

struct Loaded {
    device: Device,
    /// Computes the output, whatever its rank, as a line of numbers.
    forward: Box<dyn Fn() -> Output>,
}

enum Output {
    Matrix(Tensor<2>),
    Rows(Tensor<3>),
    Map(Tensor<4>),
}

impl Prepared for Loaded {
    fn run(&mut self, runs: u32) -> Result<(), String> {
        for _ in 0..runs {
            drop((self.forward)());
        }
        self.device.sync().map_err(|error| format!("{error:?}"))
    }

    fn answer(&mut self) -> Result<Vec<f32>, String> {
        self.run(FIRST_RUNS)?;
        let data = match (self.forward)() {
            Output::Matrix(y) => y.into_data(),
            Output::Rows(y) => y.into_data(),
            Output::Map(y) => y.into_data(),
        };
        data.to_vec::<f32>().map_err(|error| format!("{error:?}"))
    }
}

fn tensor<const D: usize>(numbers: Numbers, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers.values, numbers.shape), device)
}

fn conv_options(stride: usize, pad: usize, groups: usize) -> ConvOptions<2> {
    ConvOptions::new([stride, stride], [pad, pad], [1, 1], groups)
}

fn kernel(items: &Items, item: &str, device: &Device) -> Result<Loaded, Trouble> {
    let numbers = items.numbers(item, "safetensors");
    let get = |name: &str| numbers(name).expect("the item's file has it");
    let family = item.split('-').next().expect("a name");
    let forward: Box<dyn Fn() -> Output> = match family {
        "matmul" => {
            let (a, b) = (tensor::<2>(get("a"), device), tensor::<2>(get("b"), device));
            Box::new(move || Output::Matrix(a.clone().matmul(b.clone())))
        }
        "linear" => {
            let (x, bias) = (tensor::<2>(get("x"), device), tensor::<1>(get("bias"), device));
            // burn's layers keep it as [in, out].
            let weight = tensor::<2>(transposed(get("weight")), device);
            Box::new(move || Output::Matrix(module::linear(x.clone(), weight.clone(), Some(bias.clone()))))
        }
        "conv1" | "conv3" | "depthwise" => {
            let (x, weight) = (tensor::<4>(get("x"), device), get("weight"));
            let (pad, groups) = (weight.shape[2] / 2, x.dims()[1] / weight.shape[1]);
            let (weight, bias) = (tensor::<4>(weight, device), tensor::<1>(get("bias"), device));
            Box::new(move || {
                let options = conv_options(1, pad, groups);
                Output::Map(module::conv2d(x.clone(), weight.clone(), Some(bias.clone()), options))
            })
        }
        "groupnorm" => {
            let x = tensor::<4>(get("x"), device);
            let mut norm: GroupNorm = GroupNormConfig::new(32, x.dims()[1]).init(device);
            norm.gamma = Some(burn::module::Param::from_tensor(tensor::<1>(get("weight"), device)));
            norm.beta = Some(burn::module::Param::from_tensor(tensor::<1>(get("bias"), device)));
            Box::new(move || Output::Map(activation::silu(norm.forward(x.clone()))))
        }
        "attention" => {
            let [q, k, v] = ["q", "k", "v"].map(|name| tensor::<4>(get(name), device));
            Box::new(move || {
                let options = AttentionModuleOptions::default();
                Output::Map(module::attention(q.clone(), k.clone(), v.clone(), None, None, options))
            })
        }
        "softmax" => {
            let x = tensor::<3>(get("x"), device);
            Box::new(move || Output::Rows(activation::softmax(x.clone(), 2)))
        }
        _ => return Err(Trouble::Unsupported(format!("nothing written for {item}"))),
    };
    Ok(Loaded { device: device.clone(), forward })
}

fn transposed(numbers: Numbers) -> Numbers {
    let [rows, columns] = [numbers.shape[0], numbers.shape[1]];
    let values = (0..rows * columns).map(|i| numbers.values[(i % rows) * columns + i / rows]).collect();
    Numbers { shape: vec![columns, rows], values }
}

/// One line of the list of layers.
struct Layer {
    op: String,
    inputs: Vec<usize>,
    options: HashMap<String, usize>,
    map: Option<Tensor<4>>,
    matrix: Option<Tensor<2>>,
    bias: Option<Tensor<1>>,
}

fn network(items: &Items, item: &str, device: &Device) -> Result<Loaded, Trouble> {
    let text = std::fs::read_to_string(items.path(item, "layers"))
        .map_err(|error| Trouble::Failed(format!("{item}.layers: {error}")))?;
    let weights = items.numbers(item, "folded.safetensors");
    let layers: Vec<Layer> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let options: HashMap<String, usize> = words
                .iter()
                .filter_map(|word| word.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
                .collect();
            let get = |end: &str| {
                options.get("weight").map(|at| weights(&format!("{at}.{end}")).expect("a weight a layer"))
            };
            Layer {
                op: words[0].to_owned(),
                inputs: words[2..].iter().filter_map(|word| word.parse().ok()).collect(),
                map: (words[0] == "conv").then(|| tensor(get("weight").expect("convolutions have one"), device)),
                matrix: (words[0] == "linear").then(|| tensor(get("weight").expect("so do matrices"), device)),
                bias: get("bias").map(|bias| tensor(bias, device)),
                options,
            }
        })
        .collect();
    // When a value was read for the last time it is given away, so that burn can compute in place.
    let mut last = vec![0; layers.len() + 1];
    for (at, layer) in layers.iter().enumerate() {
        layer.inputs.iter().for_each(|&input| last[input] = at);
    }
    let picture = tensor::<4>(items.inputs(item).remove(0).1, device);
    let forward = move || {
        let mut values: Vec<Option<Tensor<4>>> = vec![Some(picture.clone())];
        for (at, layer) in layers.iter().enumerate() {
            let mut take = |i: usize| {
                let value = &mut values[layer.inputs[i]];
                let given = if last[layer.inputs[i]] == at { value.take() } else { value.clone() };
                given.expect("values are read before they are given away")
            };
            let option = |name: &str| layer.options[name];
            let value = match layer.op.as_str() {
                "conv" => {
                    let options = conv_options(option("stride"), option("pad"), option("groups"));
                    module::conv2d(take(0), layer.map.clone().expect("a convolution"), layer.bias.clone(), options)
                }
                "linear" => {
                    let x = take(0);
                    let [n, c, ..] = x.dims();
                    let x = x.reshape([n, c]);
                    let y = module::linear(x, layer.matrix.clone().expect("a matrix"), layer.bias.clone());
                    let [n, c] = y.dims();
                    y.reshape([n, c, 1, 1])
                }
                "relu" => activation::relu(take(0)),
                "relu6" => take(0).clamp(0.0, 6.0),
                "silu" => activation::silu(take(0)),
                "sigmoid" => activation::sigmoid(take(0)),
                "add" => take(0) + take(1),
                "scale" => take(0) * take(1),
                "maxpool" => MaxPool2dConfig::new([option("kernel"), option("kernel")])
                    .with_strides([option("stride"), option("stride")])
                    .with_padding(PaddingConfig2d::Explicit(option("pad"), option("pad"), option("pad"), option("pad")))
                    .init()
                    .forward(take(0)),
                "globalaveragepool" => take(0).mean_dim(3).mean_dim(2),
                other => unreachable!("export.py writes no {other}"),
            };
            values.push(Some(value));
        }
        Output::Map(values.pop().flatten().expect("the last value"))
    };
    Ok(Loaded { device: device.clone(), forward: Box::new(forward) })
}

fn main() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    serve(("burn 0.22.0", "wgpu's default adapter", false), |items, item| {
        let made = match items.path(item, "layers").exists() {
            true => network(items, item, &device),
            false => kernel(items, item, &device),
        };
        made.map(|loaded| Box::new(loaded) as Box<dyn Prepared>)
    });
}
