//! diffusers' `VQModel`: an autoencoder whose latents are entries of a codebook (van den Oord et al. 2017,
//! arXiv:1711.00937; Esser et al. 2021, arXiv:2012.09841). Its networks are those of [`autoencoder_kl`].

use serde::Deserialize;

use super::autoencoder_kl::{self, AutoencoderKlConfig};
use super::config::Class;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::matmul::Matmul;
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::tensor::DType;

/// `config.json`, with diffusers' defaults. [`VqModelConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct VqModelConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: String,
    pub latent_channels: usize,
    pub num_vq_embeddings: usize,
    pub norm_num_groups: usize,
    /// Width of the codebook's entries; that of the latents if it is not said.
    pub vq_embed_dim: Option<usize>,
    pub norm_type: String,
    pub mid_block_add_attention: bool,
    pub lookup_from_codebook: bool,
    pub force_upcast: bool,
}

impl Default for VqModelConfig {
    fn default() -> Self {
        let kl = AutoencoderKlConfig::default();
        VqModelConfig {
            in_channels: kl.in_channels,
            out_channels: kl.out_channels,
            down_block_types: kl.down_block_types,
            up_block_types: kl.up_block_types,
            block_out_channels: kl.block_out_channels,
            layers_per_block: kl.layers_per_block,
            act_fn: kl.act_fn,
            latent_channels: 3,
            num_vq_embeddings: 256,
            norm_num_groups: kl.norm_num_groups,
            vq_embed_dim: None,
            norm_type: "group".to_owned(),
            mid_block_add_attention: true,
            lookup_from_codebook: false,
            force_upcast: false,
        }
    }
}

const CLASS: Class = Class("VQModel");

impl VqModelConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: VqModelConfig = CLASS.parse(text)?;
        CLASS.one_of("norm_type", &config.norm_type, &["group"])?;
        if config.lookup_from_codebook {
            return Err(CLASS.unsupported("lookup_from_codebook", "false", true));
        }
        CLASS.sizes([("num_vq_embeddings", config.num_vq_embeddings), ("vq_embed_dim", config.width())])?;
        config.networks().check()?;
        Ok(config)
    }

    /// Width of the codebook's entries.
    pub fn width(&self) -> usize {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }

    /// Pixels of a picture along each side of a latent's pixel.
    pub fn factor(&self) -> usize {
        self.networks().factor()
    }

    /// The encoder and the decoder, as those of the other autoencoder.
    fn networks(&self) -> AutoencoderKlConfig {
        AutoencoderKlConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            down_block_types: self.down_block_types.clone(),
            up_block_types: self.up_block_types.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            act_fn: self.act_fn.clone(),
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            mid_block_add_attention: self.mid_block_add_attention,
            ..AutoencoderKlConfig::default()
        }
    }
}

/// Pictures `[n, f · h, f · w, out_channels]`, about −1 to 1, of latents `[n, h, w, width]`, of which each pixel is
/// taken for the entry of the codebook next to it.
///
/// # Errors
/// Those of the weights.
pub fn decode(g: &mut Graph, config: &VqModelConfig, w: Source, z: ValueId) -> Result<ValueId> {
    let z = quantised(g, config, w, z)?;
    autoencoder_kl::decode(g, &config.networks(), w, z)
}

/// The entries of the codebook that are next to the pixels of `z` `[n, h, w, width]`.
///
/// # Errors
/// Those of the weights.
pub fn quantised(g: &mut Graph, config: &VqModelConfig, w: Source, z: ValueId) -> Result<ValueId> {
    /// Distances that are there at a time.
    const DISTANCES: usize = 1 << 24;
    let (codes, width) = (config.num_vq_embeddings, config.width());
    let shape = g.shape(z).clone();
    // Which entry is next is told by small differences.
    let exact = Source { dtype: DType::F32, ..w };
    let codebook = exact.get(g, "quantize.embedding.weight", &[codes, width])?;
    g.scoped("quantize", |g| {
        // |z − e|² but for |z|², which is the same for all entries: |e|² − 2 · z · e.
        let squares = g.mul(codebook, codebook)?;
        let squares = g.reduce(squares, Reduction::Sum, &[1], false)?;
        let count = shape.elements() / width;
        let z = g.cast(z, DType::F32)?;
        let pixels = g.reshape(z, [count, width])?;
        let together = (DISTANCES / codes).clamp(1, count);
        let mut found = Vec::new();
        for start in (0..count).step_by(together) {
            let some = Range { start, stop: Some((start + together).min(count)), step: 1 };
            let some = g.slice(pixels, &[some, Range::all()])?;
            let products = g.matmul(some, codebook, Matmul { transpose_b: true, ..Matmul::default() })?;
            let products = g.affine(products, -2.0, 0.0)?;
            let distances = g.add(products, squares)?;
            let nearest = g.arg_min(distances, 1)?;
            found.push(g.gather(codebook, nearest, 0)?);
        }
        let found = if found.len() == 1 { found[0] } else { g.concat(&found, 0)? };
        let found = g.reshape(found, shape)?;
        g.cast(found, w.dtype)
    })
}
