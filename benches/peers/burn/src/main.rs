//! A network in burn on wgpu, as a peer of `cargo bench --bench networks`.
//!
//! ```text
//! burn_network NAME     resnet50, mobilenet_v2 or efficientnet_b0, weights random
//! ```
//!
//! Batch norms are left out, as they would be folded into the convolutions before them. The picture
//! stays on the device and nothing is read back: a run is its launches and the wait for them.

use std::io::BufRead;
use std::time::Instant;

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, DeviceKind, Distribution, Tensor, activation};

type Map = Tensor<4>;

/// `same` padding for odd kernels, with groups.
fn conv(channels: [usize; 2], kernel: usize, stride: usize, groups: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_groups(groups)
        .init(device)
}

fn global_mean(x: Map) -> Map {
    x.mean_dim(3).mean_dim(2)
}

enum Block {
    /// ResNet's bottleneck, with the convolution of its shortcut.
    Bottleneck([Conv2d; 3], Option<Conv2d>),
    /// MobileNetV2's and EfficientNet's: expansion, depthwise, squeeze and excitation, projection.
    Inverted {
        expand: Option<Conv2d>,
        depthwise: Conv2d,
        squeeze: Option<[Conv2d; 2]>,
        project: Conv2d,
        add: bool,
    },
}

struct Network {
    stem: Conv2d,
    pool: Option<MaxPool2d>,
    blocks: Vec<Block>,
    head: Option<Conv2d>,
    last: Linear,
    activation: fn(Map) -> Map,
}

fn relu6(x: Map) -> Map {
    x.clamp(0.0, 6.0)
}

impl Network {
    fn forward(&self, x: Map) -> Tensor<2> {
        let act = self.activation;
        let mut x = act(self.stem.forward(x));
        if let Some(pool) = &self.pool {
            x = pool.forward(x);
        }
        for block in &self.blocks {
            x = match block {
                Block::Bottleneck([a, b, c], shortcut) => {
                    let y = c.forward(act(b.forward(act(a.forward(x.clone())))));
                    act(y + shortcut.as_ref().map_or(x.clone(), |s| s.forward(x)))
                }
                Block::Inverted { expand, depthwise, squeeze, project, add } => {
                    let mut y = expand.as_ref().map_or(x.clone(), |e| act(e.forward(x.clone())));
                    y = act(depthwise.forward(y));
                    if let Some([down, up]) = squeeze {
                        let scale =
                            activation::sigmoid(up.forward(act(down.forward(global_mean(y.clone())))));
                        y = y * scale;
                    }
                    y = project.forward(y);
                    if *add { y + x } else { y }
                }
            };
        }
        if let Some(head) = &self.head {
            x = act(head.forward(x));
        }
        let x = global_mean(x);
        let [n, c, ..] = x.dims();
        self.last.forward(x.reshape([n, c]))
    }
}

fn resnet50(d: &Device) -> Network {
    let mut blocks = Vec::new();
    let mut c = 64;
    for (count, width, first_stride) in [(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)] {
        for i in 0..count {
            let stride = if i == 0 { first_stride } else { 1 };
            let convs = [
                conv([c, width], 1, 1, 1, d),
                conv([width, width], 3, stride, 1, d),
                conv([width, 4 * width], 1, 1, 1, d),
            ];
            let shortcut = (i == 0).then(|| conv([c, 4 * width], 1, stride, 1, d));
            blocks.push(Block::Bottleneck(convs, shortcut));
            c = 4 * width;
        }
    }
    let pool = MaxPool2dConfig::new([3, 3])
        .with_strides([2, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init();
    let (stem, last) = (conv([3, 64], 7, 2, 1, d), LinearConfig::new(2048, 10).init(d));
    Network { stem, pool: Some(pool), blocks, head: None, last, activation: activation::relu }
}

/// Rows: expansion, kernel, first stride, channels, blocks.
fn inverted(stem: usize, rows: &[[usize; 5]], head: usize, squeeze: bool, d: &Device) -> Network {
    let mut blocks = Vec::new();
    let mut c = stem;
    for &[expansion, kernel, first_stride, out, count] in rows {
        for i in 0..count {
            let stride = if i == 0 { first_stride } else { 1 };
            let wide = c * expansion;
            let narrow = (c / 4).max(1);
            blocks.push(Block::Inverted {
                expand: (expansion > 1).then(|| conv([c, wide], 1, 1, 1, d)),
                depthwise: conv([wide, wide], kernel, stride, wide, d),
                squeeze: squeeze
                    .then(|| [conv([wide, narrow], 1, 1, 1, d), conv([narrow, wide], 1, 1, 1, d)]),
                project: conv([wide, out], 1, 1, 1, d),
                add: stride == 1 && c == out,
            });
            c = out;
        }
    }
    Network {
        stem: conv([3, stem], 3, 2, 1, d),
        pool: None,
        blocks,
        head: Some(conv([c, head], 1, 1, 1, d)),
        last: LinearConfig::new(head, 10).init(d),
        activation: if squeeze { activation::silu } else { relu6 },
    }
}

fn main() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let network = match std::env::args().nth(1).as_deref() {
        Some("resnet50") => resnet50(&device),
        Some("mobilenet_v2") => {
            let rows = [
                [1, 3, 1, 16, 1],
                [6, 3, 2, 24, 2],
                [6, 3, 2, 32, 3],
                [6, 3, 2, 64, 4],
                [6, 3, 1, 96, 3],
                [6, 3, 2, 160, 3],
                [6, 3, 1, 320, 1],
            ];
            inverted(32, &rows, 1280, false, &device)
        }
        Some("efficientnet_b0") => {
            let rows = [
                [1, 3, 1, 16, 1],
                [6, 3, 2, 24, 2],
                [6, 5, 2, 40, 2],
                [6, 3, 2, 80, 3],
                [6, 5, 1, 112, 3],
                [6, 5, 2, 192, 4],
                [6, 3, 1, 320, 1],
            ];
            inverted(32, &rows, 1280, true, &device)
        }
        other => panic!("{other:?} is neither resnet50, mobilenet_v2 nor efficientnet_b0"),
    };
    let picture = Tensor::random([1, 3, 224, 224], Distribution::Uniform(-1.0, 1.0), &device);
    let run = || {
        let scores = network.forward(picture.clone());
        device.sync().expect("the device");
        drop(scores);
    };
    // Compiles and tunes.
    (0..3).for_each(|_| run());
    println!("burn 0.22.0, wgpu");
    for line in std::io::stdin().lock().lines() {
        let runs: usize = line.expect("a line").trim().parse().expect("a number of runs");
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        println!("{}", start.elapsed().as_secs_f64());
    }
}
