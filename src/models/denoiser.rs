//! The networks that latent diffusion can work with: a UNet or a transformer.

use super::sd3_transformer::{self, Sd3TransformerConfig, sd3_transformer};
use super::unet2d::Size;
use super::unet2d_condition::{self, UNet2dConditionConfig, unet2d_condition};
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::Source;
use crate::tensor::DType;
use crate::weights::Weights;

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

    /// Whether the weights have all tensors of the network, in its shapes.
    ///
    /// # Errors
    /// Those of [`Weights::survey`].
    pub fn check_weights(&self, weights: &Weights) -> Result<()> {
        weights.survey(|weights| {
            let (mut g, source) = (Graph::new(), Source { weights, dtype: DType::F32 });
            let input = |g: &mut Graph, name: &str, shape: &[usize]| g.input(name, shape, DType::F32);
            let side = 4 * self.patch();
            let x = input(&mut g, "x", &[1, side, side, self.in_channels()]);
            let timesteps = input(&mut g, "timesteps", &[1, 1]);
            let text = input(&mut g, "text", &[1, 2, self.text_width()]);
            match self {
                Self::UNet(config) => {
                    // Whatever it is told of sizes, the first layer has room for it.
                    let told = config.addition_time_embed_dim.map(|dim| {
                        let whole = config.projection_class_embeddings_input_dim.unwrap_or(0);
                        let sizes = if whole >= 6 * dim && (whole - 6 * dim) > 0 { 6 } else { 5 };
                        (whole.saturating_sub(sizes * dim), sizes)
                    });
                    let pooled = told.filter(|_| self.is_told_sizes()).map(|(pooled, sizes)| {
                        [input(&mut g, "pooled", &[1, pooled.max(1)]), input(&mut g, "sizes", &[1, sizes])]
                    });
                    let guidance = config.time_cond_proj_dim.map(|dim| input(&mut g, "guidance", &[1, dim]));
                    let class = config.num_class_embeds.map(|_| g.input("class", [1], DType::U32));
                    let conditions = unet2d_condition::Conditions {
                        timesteps,
                        text,
                        pooled,
                        guidance,
                        class,
                        residuals: &[],
                        perturbed: None,
                    };
                    unet2d_condition(&mut g, config, source, x, &conditions)
                }
                Self::Sd3(config) => {
                    let pooled = input(&mut g, "pooled", &[1, config.pooled_projection_dim]);
                    let conditions = sd3_transformer::Conditions { timesteps, text, pooled };
                    sd3_transformer(&mut g, config, source, x, &conditions)
                }
            }
        })
    }

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
