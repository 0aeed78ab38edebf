//! The autoencoders that latent diffusion can work with, large and tiny.

use super::autoencoder_kl::{self, AutoencoderKlConfig};
use super::autoencoder_tiny::{self, AutoencoderTinyConfig};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::tensor::DType;
use crate::weights::Weights;

/// Which one, and how it is built.
#[derive(Clone, Debug)]
pub enum AutoencoderConfig {
    Kl(AutoencoderKlConfig),
    Tiny(AutoencoderTinyConfig),
}

impl From<AutoencoderKlConfig> for AutoencoderConfig {
    fn from(config: AutoencoderKlConfig) -> Self {
        AutoencoderConfig::Kl(config)
    }
}

impl From<AutoencoderTinyConfig> for AutoencoderConfig {
    fn from(config: AutoencoderTinyConfig) -> Self {
        AutoencoderConfig::Tiny(config)
    }
}

impl AutoencoderConfig {
    /// diffusers' classes of them.
    pub const CLASSES: [&str; 2] = ["AutoencoderKL", "AutoencoderTiny"];

    /// Reads and checks the text of a `config.json` of one of [`AutoencoderConfig::CLASSES`].
    ///
    /// # Errors
    /// [`Error::Unknown`] for another class, and those of the class.
    pub fn from_json(class: &str, text: &str) -> Result<Self> {
        match class {
            "AutoencoderKL" => AutoencoderKlConfig::from_json(text).map(Self::Kl),
            "AutoencoderTiny" => AutoencoderTinyConfig::from_json(text).map(Self::Tiny),
            _ => Err(Error::Unknown {
                what: "class of an autoencoder",
                found: class.to_owned(),
                expected: Self::CLASSES.join(" "),
            }),
        }
    }

    /// Whether the weights have all tensors of the decoder, in its shapes; some files have no more.
    ///
    /// # Errors
    /// Those of [`Weights::survey`].
    pub fn check_weights(&self, weights: &Weights) -> Result<()> {
        weights.survey(|weights| {
            let mut g = Graph::new();
            let z = g.input("z", [1, 4, 4, self.latent_channels()], DType::F32);
            decode(&mut g, self, Source { weights, dtype: DType::F32 }, z)
        })
    }

    /// Pixels of a picture along each side of a latent's pixel.
    pub fn factor(&self) -> usize {
        match self {
            Self::Kl(config) => config.factor(),
            Self::Tiny(config) => config.factor(),
        }
    }

    pub fn in_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.in_channels,
            Self::Tiny(config) => config.in_channels,
        }
    }

    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// The diffusion model sees `(latent − shift) · scale`: scale and shift.
    pub fn scaling(&self) -> [f32; 2] {
        match self {
            Self::Kl(config) => [config.scaling_factor, config.shift_factor.unwrap_or(0.0)],
            Self::Tiny(config) => [config.scaling_factor, config.shift_factor.unwrap_or(0.0)],
        }
    }

    /// Overflows in f16.
    pub fn force_upcast(&self) -> bool {
        match self {
            Self::Kl(config) => config.force_upcast,
            Self::Tiny(_) => false,
        }
    }

    /// From now on it is one that overflows in f16.
    pub fn upcast(&mut self) {
        if let Self::Kl(config) = self {
            config.force_upcast = true;
        }
    }

    /// Whether the latents of a picture are drawn at random, from a distribution that the encoder gives.
    pub fn draws(&self) -> bool {
        matches!(self, Self::Kl(_))
    }
}

/// Latents as the diffusion model sees them, `[n, h / f, w / f, latent_channels]`, of pictures `[n, h, w, in_channels]`
/// from −1 to 1. `noise` is asked for where they are drawn; it may be of more pictures than one, `[m, h / f, w / f, …]`.
pub fn encode(
    g: &mut Graph,
    config: &AutoencoderConfig,
    w: Source,
    x: ValueId,
    noise: impl FnOnce(&mut Graph) -> Result<ValueId>,
) -> Result<ValueId> {
    match config {
        AutoencoderConfig::Kl(config) => {
            let moments = autoencoder_kl::encode(g, config, w, x)?;
            let noise = noise(g)?;
            autoencoder_kl::sampled(g, config, moments, noise)
        }
        AutoencoderConfig::Tiny(tiny) => {
            let z = autoencoder_tiny::encode(g, tiny, w, x)?;
            let [scale, shift] = config.scaling();
            g.affine(z, scale, -shift * scale)
        }
    }
}

/// Pictures `[n, f · h, f · w, out_channels]`, about −1 to 1, of latents `[n, h, w, latent_channels]` as the encoder
/// gives them (not scaled).
pub fn decode(g: &mut Graph, config: &AutoencoderConfig, w: Source, z: ValueId) -> Result<ValueId> {
    match config {
        AutoencoderConfig::Kl(config) => autoencoder_kl::decode(g, config, w, z),
        AutoencoderConfig::Tiny(config) => autoencoder_tiny::decode(g, config, w, z),
    }
}
