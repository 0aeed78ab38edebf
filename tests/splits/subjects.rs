//! Networks of all kinds, bundled and drawn by lot, with inputs that are the same each time.

use aquatint::models::bundled::bundled;
use aquatint::models::letters::letters_classifier;
use aquatint::models::path_denoise::path_denoise;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::expr::Unary;
use aquatint::ops::pool::PoolOptions;
use aquatint::tasks::DiffusionModel;
use aquatint::{DType, Graph, Plan, Result, Tensor, ValueId};

fn hash(x: u32) -> u32 {
    let x = x.wrapping_mul(0x85eb_ca6b);
    (x ^ (x >> 15)).wrapping_mul(0xc2b2_ae35) ^ (x >> 7)
}

/// Numbers between −1 and 1 that look like chance.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let at = |i: u32| hash(i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)));
    (0..count as u32).map(|i| (at(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A network whose answer must not depend on how it is computed.
pub struct Subject {
    pub name: String,
    /// For so many pictures at once.
    pub graph: Box<dyn Fn(usize) -> Result<Graph>>,
    /// For pictures of another width and height, where it takes any and looks at no more than a part of them.
    pub sized: Option<fn(usize, usize) -> Result<Graph>>,
    /// Whether pictures are the first dimension of all that it reads and writes.
    pub batches: bool,
}

impl Subject {
    /// Whether its many kernels may be compiled once more for this; the others have the same ones.
    pub fn may_compile(&self) -> bool {
        self.name != UNET || std::env::var_os("AQUATINT_TEST_SPLITS").is_some()
    }
}

const UNET: &str = "a step of letters-unet";

const SIDE: [usize; 2] = [40, 56];

fn vision(name: &str, n: usize, [height, width]: [usize; 2]) -> Result<Graph> {
    let model = match name {
        "letters-classifier" => letters_classifier()?,
        _ => bundled(name).expect("it is bundled")?,
    };
    let channels = model.preprocess.mean.len();
    let mut g = Graph::new();
    let x = g.input("x", [n, height, width, channels], DType::F32);
    for (name, value) in model.build(&mut g, x)? {
        g.output(&name, value);
    }
    Ok(g)
}

pub fn subjects() -> Vec<Subject> {
    let mut all = vec![
        Subject {
            name: "denoise".to_owned(),
            graph: Box::new(|n| vision("denoise", n, SIDE)),
            sized: None,
            batches: true,
        },
        Subject {
            name: "letters-classifier".to_owned(),
            graph: Box::new(|n| vision("letters-classifier", n, [32, 32])),
            sized: None,
            batches: true,
        },
        Subject {
            name: "path-denoise".to_owned(),
            graph: Box::new(|_| path_denoise(SIDE[1], SIDE[0], DType::F32)),
            sized: Some(|w, h| path_denoise(w, h, DType::F32)),
            batches: false,
        },
        Subject {
            name: UNET.to_owned(),
            graph: Box::new(|n| {
                let model = DiffusionModel::letters()?;
                model.step_graph(n, &model.options())
            }),
            sized: None,
            batches: false,
        },
    ];
    let seeds = std::env::var("AQUATINT_TEST_SPLITS").map_or(2, |n| n.parse().expect("a number of graphs"));
    let first = std::env::var("AQUATINT_TEST_SEED").ok().map(|s| s.parse().expect("a number"));
    let first = first.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos());
    all.extend((0..seeds).map(|i| {
        let seed = first.wrapping_add(i);
        let name = format!("graph by lot (seed {seed})");
        Subject { name, graph: Box::new(move |n| by_lot(seed, n)), sized: None, batches: true }
    }));
    all
}

/// A graph of some ten operations drawn by lot.
fn by_lot(seed: u32, n: usize) -> Result<Graph> {
    let mut state = seed;
    let mut lot = |below: usize| {
        state = hash(state.wrapping_add(0x9e37_79b9));
        (state >> 8) as usize % below
    };
    let mut g = Graph::new();
    let (h, w) = (5 + lot(14), 5 + lot(14));
    let mut y = g.input("x", [n, h, w, 1 + lot(9)], DType::F32);
    let mut earlier: Vec<ValueId> = Vec::new();
    for i in 0..10 {
        let [_, h, w, c] = g.shape(y)[..] else { unreachable!("feature maps") };
        let weight = |g: &mut Graph, shape: &[usize]| {
            let terms: usize = shape.iter().skip(1).product::<usize>().max(1);
            let values: Vec<f32> = noise(shape.iter().product(), seed.wrapping_add(i))
                .iter()
                .map(|v| v * (3.0 / terms as f32).sqrt())
                .collect();
            g.weight(&format!("w{i}"), Tensor::from_f32(shape, &values))
        };
        earlier.push(y);
        y = match lot(11) {
            0 | 1 => {
                let out = 1 + lot(20);
                let (kernel, bias) = (weight(&mut g, &[out, c, 3, 3]), weight(&mut g, &[out]));
                let stride = 1 + usize::from(h.min(w) > 8 && lot(3) == 0);
                g.conv2d(y, kernel, Some(bias), Conv2dOptions::padded(1).stride(stride))?
            }
            2 => {
                let kernel = weight(&mut g, &[4 + lot(12), c, 1, 1]);
                g.conv2d(y, kernel, None, Conv2dOptions::default())?
            }
            3 => {
                let kernel = weight(&mut g, &[c, 1, 3, 3]);
                g.conv2d(y, kernel, None, Conv2dOptions::padded(1).groups(c))?
            }
            4 => g.instance_norm(y, None, None, 1e-3)?,
            5 => g.layer_norm(y, None, None, 1e-3)?,
            6 => {
                let f = [Unary::Silu, Unary::Relu, Unary::Gelu, Unary::Tanh, Unary::Sigmoid][lot(5)];
                g.unary(f, y)?
            }
            7 if h.min(w) > 5 => g.max_pool(y, PoolOptions::square(2))?,
            8 if h * w * c < 4000 => g.upsample_nearest(y, 2)?,
            9 => g.softmax(y, 3)?,
            _ => {
                let alike = earlier.iter().rev().skip(1).find(|&&v| g.shape(v)[1..3] == [h, w]);
                match alike.copied() {
                    Some(other) if g.shape(other) == g.shape(y) => g.add(y, other)?,
                    Some(other) => g.concat(&[y, other], 3)?,
                    None => g.affine(y, 0.5, 0.25)?,
                }
            }
        };
    }
    g.output("y", y);
    Ok(g)
}

/// What a network is given, the first of some pictures always the same.
pub fn given(plan: &Plan, n: usize) -> Vec<(String, Tensor)> {
    let ports = plan.inputs.iter().enumerate();
    ports
        .map(|(i, port)| {
            let (shape, seed) = (port.desc.shape.clone(), 11 + i as u32);
            let tensor = match port.desc.dtype {
                DType::U32 => Tensor::from_u32(
                    shape.clone(),
                    &(0..shape.elements() as u32).map(|i| hash(i + seed) % 7).collect::<Vec<_>>(),
                ),
                dtype => {
                    let one = shape.elements() / n;
                    let all: Vec<f32> = (0..n as u32).flat_map(|k| noise(one, seed + 100 * k)).collect();
                    let all: Vec<f32> = all.iter().map(|v| 0.5 + 0.5 * v).collect();
                    Tensor::from_f32(shape, &all).to_dtype(dtype)
                }
            };
            (port.name.clone(), tensor)
        })
        .collect()
}
