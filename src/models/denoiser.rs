//! The networks that latent diffusion can work with: a UNet or a transformer.

use super::sd3_transformer::Sd3TransformerConfig;
use super::unet2d::Size;
use super::unet2d_condition::UNet2dConditionConfig;

/// Which one, and how it is built.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum DenoiserConfig {
    UNet(UNet2dConditionConfig),
    Sd3(Sd3TransformerConfig),
}

impl From<UNet2dConditionConfig> for DenoiserConfig {
    fn from(config: UNet2dConditionConfig) -> Self {
        DenoiserConfig::UNet(config)
    }
}

impl From<Sd3TransformerConfig> for DenoiserConfig {
    fn from(config: Sd3TransformerConfig) -> Self {
        DenoiserConfig::Sd3(config)
    }
}

impl DenoiserConfig {
    /// Where a pipeline's folder can have one, and of which of diffusers' classes.
    pub const PARTS: [(&str, &str); 2] =
        [("unet", "UNet2DConditionModel"), ("transformer", "SD3Transformer2DModel")];

    /// The UNet, if it is one.
    pub fn unet(&self) -> Option<&UNet2dConditionConfig> {
        match self {
            Self::UNet(config) => Some(config),
            Self::Sd3(_) => None,
        }
    }

    pub fn in_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.in_channels,
            Self::Sd3(config) => config.in_channels,
        }
    }

    pub fn out_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.out_channels,
            Self::Sd3(config) => config.out_channels(),
        }
    }

    /// Pixels of a latent along each side of what the network works on: height and width are multiples of it.
    pub fn patch(&self) -> usize {
        match self {
            Self::UNet(_) => 1,
            Self::Sd3(config) => config.patch_size,
        }
    }

    /// Height and width of the latents that it was trained for.
    pub fn sample_size(&self) -> [usize; 2] {
        match self {
            Self::UNet(config) => match config.sample_size {
                None => [64, 64],
                Some(Size::Square(side)) => [side, side],
                Some(Size::HeightWidth(size)) => size,
            },
            Self::Sd3(config) => [config.sample_size; 2],
        }
    }

    /// Numbers in each token of the text.
    pub fn text_width(&self) -> usize {
        match self {
            Self::UNet(config) => config.cross_attention_dim,
            Self::Sd3(config) => config.joint_attention_dim,
        }
    }

    /// Numbers in the text as a whole, of networks that are told it; a UNet that is, is told so many `sizes` beside it.
    pub fn pooled_width(&self, sizes: usize) -> Option<usize> {
        match self {
            Self::UNet(config) => {
                config.addition_embed_type.as_ref()?;
                let sizes = sizes * config.addition_time_embed_dim.unwrap_or(0);
                config.projection_class_embeddings_input_dim?.checked_sub(sizes)
            }
            Self::Sd3(config) => Some(config.pooled_projection_dim),
        }
    }

    /// Whether it is told sizes and crop (SDXL).
    pub fn is_told_sizes(&self) -> bool {
        self.unet().is_some_and(|config| config.addition_embed_type.is_some())
    }

    /// Numbers that guidance becomes, of networks that have it as an input (consistency models).
    pub fn guidance_width(&self) -> Option<usize> {
        self.unet()?.time_cond_proj_dim
    }
}
