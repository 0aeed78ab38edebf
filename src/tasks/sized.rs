//! Networks for pictures of any size: one for each size and batch, made when it is first needed.

use std::collections::HashMap;

use image::RgbImage;

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::vision::{Outputs, VisionModel};
use crate::plan::Plan;
use crate::tensor::{Bytes, DType, Shape, Tensor, TensorDesc};

/// So many networks are kept.
const NETWORKS: usize = 8;

/// Most pixels that are uploaded at a time.
const PIXELS: usize = 1 << 22;

/// A batch of several pictures takes at most so much device memory.
const BYTES: u64 = 1 << 30;

/// Height and width.
pub(crate) type Size = [usize; 2];

/// How a task makes its graph for so many pictures of a size.
pub(crate) type Build<'a> = &'a dyn Fn(usize, Size) -> Result<Graph>;

/// Networks by size and batch, with the time of their last use.
#[derive(Debug)]
pub(crate) struct SizedNetworks {
    gpu: Gpu,
    batch: usize,
    networks: HashMap<(Size, usize), (u64, Network)>,
    clock: u64,
}

impl SizedNetworks {
    /// At most `batch` pictures at a time.
    pub fn new(gpu: &Gpu, batch: usize) -> Result<Self> {
        match batch {
            0 => Err(invalid("batch", "at least 1", "0".to_owned())),
            _ => Ok(SizedNetworks { gpu: gpu.clone(), batch, networks: HashMap::new(), clock: 0 }),
        }
    }

    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The network for `n` pictures of a size, or for fewer where `n` would take too much memory; and how many.
    pub fn network(&mut self, size: Size, n: usize, build: Build) -> Result<(usize, &Network)> {
        let mut n = n.clamp(1, self.batch);
        self.clock += 1;
        if !self.networks.contains_key(&(size, n)) {
            let plan = loop {
                match build(n, size).and_then(|graph| Plan::compile(&graph, self.gpu.target())) {
                    Ok(plan) if n == 1 || plan.peak_bytes() <= BYTES => break plan,
                    Ok(_) | Err(Error::Limit { .. }) if n > 1 => n /= 2,
                    Ok(plan) => break plan,
                    Err(error) => return Err(error),
                }
            };
            if !self.networks.contains_key(&(size, n)) {
                if self.networks.len() >= NETWORKS
                    && let Some(oldest) =
                        self.networks.iter().min_by_key(|(_, (time, _))| *time).map(|(k, _)| *k)
                {
                    self.networks.remove(&oldest);
                }
                self.networks.insert((size, n), (0, Network::from_plan(&self.gpu, plan)?));
            }
        }
        let (time, network) = self.networks.get_mut(&(size, n)).expect("there or just inserted");
        *time = self.clock;
        Ok((n, network))
    }

    /// Runs pictures of one size together, whatever lies between them. For each its part of each output.
    pub fn run(&mut self, pictures: &[RgbImage], build: Build) -> Result<Vec<Vec<Tensor>>> {
        let mut by_size: Vec<(Size, Vec<usize>)> = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            let size = size_of(picture);
            if size.contains(&0) {
                let found = format!("{} × {}", size[1], size[0]);
                return Err(invalid(&format!("picture {i}"), "at least one pixel", found));
            }
            match by_size.iter_mut().find(|(s, _)| *s == size) {
                Some((_, indices)) => indices.push(i),
                None => by_size.push((size, vec![i])),
            }
        }
        let mut results = vec![Vec::new(); pictures.len()];
        for (size, indices) in by_size {
            let most = (PIXELS / (size[0] * size[1])).clamp(1, self.batch);
            let mut rest = &indices[..];
            while !rest.is_empty() {
                let n = self.choose(size, rest.len(), most);
                let (n, network) = self.network(size, n, build)?;
                let (chunk, more) = rest.split_at(n.min(rest.len()));
                let outputs =
                    network.run(&[("pictures", &words(chunk.iter().map(|&i| &pictures[i]), n, size))])?;
                for (k, &i) in chunk.iter().enumerate() {
                    results[i] = outputs.iter().map(|tensor| sample(tensor, k, n)).collect();
                }
                rest = more;
            }
        }
        Ok(results)
    }

    /// A batch for `count` pictures: that of a network that is there and not far too large, else the next power of two.
    fn choose(&self, size: Size, count: usize, most: usize) -> usize {
        let there = self.networks.keys().filter(|(s, n)| *s == size && *n >= count && *n <= 4 * count);
        there.map(|(_, n)| *n).min().unwrap_or(count.next_power_of_two()).min(most)
    }
}

pub(crate) fn invalid(what: &str, expected: &str, found: String) -> Error {
    Error::Invalid { what: what.to_owned(), expected: expected.to_owned(), found }
}

pub(crate) fn size_of(picture: &RgbImage) -> Size {
    [picture.height() as usize, picture.width() as usize]
}

/// The output of a network that a task needs.
pub(crate) fn wanted(model: &VisionModel, outputs: &Outputs, name: &str) -> Result<ValueId> {
    outputs.iter().find(|(n, _)| n == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|(n, _)| n.as_str()).collect();
        invalid(&format!("network {}", model.name), &format!("an output \"{name}\""), names.join(", "))
    })
}

/// The names of `classes` classes; numbers where the model has none.
pub(crate) fn class_names(model: &VisionModel, classes: usize) -> Result<Vec<String>> {
    match model.labels.len() {
        0 => Ok((0..classes).map(|i| i.to_string()).collect()),
        n if n == classes => Ok(model.labels.clone()),
        n => Err(invalid(&format!("labels of network {}", model.name), &format!("{classes}"), n.to_string())),
    }
}

/// Pictures as words, red in the lowest byte; black ones where the batch is not full.
pub(crate) fn words<'a>(pictures: impl Iterator<Item = &'a RgbImage>, n: usize, [h, w]: Size) -> Tensor {
    let mut bytes = Vec::with_capacity(4 * n * h * w);
    for picture in pictures {
        bytes.extend(picture.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2], 255]));
    }
    bytes.resize(4 * n * h * w, 0);
    Tensor { desc: TensorDesc::new([n, h, w], DType::U32), bytes: Bytes::Owned(bytes.into()) }
}

/// A picture of words `[1, h, w]`.
pub(crate) fn picture(words: &Tensor) -> RgbImage {
    let [h, w] = [words.desc.shape[1], words.desc.shape[2]];
    let bytes: Vec<u8> = words.bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    RgbImage::from_raw(w as u32, h as u32, bytes).expect("as many bytes as pixels")
}

/// The `k`-th of `n` equal parts of a tensor along its first dimension.
fn sample(tensor: &Tensor, k: usize, n: usize) -> Tensor {
    let mut shape = tensor.desc.shape.to_vec();
    shape[0] /= n;
    let size = tensor.bytes.len() / n;
    let bytes = tensor.bytes[k * size..(k + 1) * size].into();
    Tensor {
        desc: TensorDesc { shape: Shape::from(shape), dtype: tensor.desc.dtype },
        bytes: Bytes::Owned(bytes),
    }
}
