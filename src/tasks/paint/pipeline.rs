//! A model with the encoders of the text that tells it what to paint, wherever it comes from.

use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;
use crate::formats::ldm::Checkpoint;
use crate::formats::mmdit::Sd3Checkpoint;
use crate::models::latent_diffusion::LatentDiffusion;
use crate::text::TextEncoders;
use crate::weights::Weights;

/// What a folder or a checkpoint holds, on the host; weights are mapped, not read.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub model: LatentDiffusion,
    pub text: TextEncoders,
}

/// What single files do not say of themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsaid<'a> {
    /// What Stable Diffusion 2 predicts, in diffusers' words.
    pub prediction: Option<&'a str>,
    /// Where the `tokenizer.json` of Stable Diffusion 3's T5 is; `tokenizer_3` beside the file otherwise.
    pub t5_tokenizer: Option<&'a Path>,
}

impl Pipeline {
    /// Whether there is a pipeline of latent diffusion at a path: a folder of diffusers with a network that reads text, or a file
    /// with the names of a checkpoint.
    pub fn is_at(path: &Path) -> bool {
        match path.is_dir() {
            // A folder of diffusers with a `UNet2DModel` has no autoencoder.
            true => Folder::open(path).is_ok_and(|folder| folder.part("vae").is_some()),
            false => path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")),
        }
    }

    /// Opens a folder of diffusers or a `.safetensors` checkpoint. `prediction` says what Stable Diffusion 2 predicts, in
    /// diffusers' words, as its checkpoints do not.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other models, and those of the files.
    pub fn open(path: impl AsRef<Path>, prediction: Option<&str>) -> Result<Self> {
        Pipeline::open_with(path, &Unsaid { prediction, ..Unsaid::default() })
    }

    /// The same, with all that files do not say.
    ///
    /// # Errors
    /// As [`Pipeline::open`], and [`Error::Invalid`] for a tokenizer of T5 where there is no T5 without one.
    pub fn open_with(path: impl AsRef<Path>, unsaid: &Unsaid) -> Result<Self> {
        let path = path.as_ref();
        let no_tokenizer = |kind: &str| match unsaid.t5_tokenizer {
            None => Ok(()),
            Some(_) => Err(Error::Invalid {
                what: format!("tokenizer of T5 for {}", path.display()),
                expected: format!("none, as it is {kind}"),
                found: "one".to_owned(),
            }),
        };
        if path.is_dir() {
            no_tokenizer("a folder, which has its own")?;
            let folder = Folder::open(path)?;
            return Ok(Pipeline {
                model: LatentDiffusion::open(&folder)?,
                text: TextEncoders::open(&folder)?,
            });
        }
        if path.extension().is_some_and(|e| e == "ckpt" || e == "pt" || e == "pth" || e == "bin") {
            return Err(Error::Format {
                path: path.to_owned(),
                message: "holds pickled weights, which can run programs when they are read; convert it to .safetensors"
                    .to_owned(),
            });
        }
        let weights = Weights::open(path)?;
        let name = path.file_stem().map_or_else(|| path.display().to_string(), |n| n.display().to_string());
        if Sd3Checkpoint::is_one(&weights) {
            let checkpoint = Sd3Checkpoint::new(weights)?;
            return Ok(Pipeline {
                model: LatentDiffusion::from_sd3_checkpoint(&name, &checkpoint)?,
                text: TextEncoders::from_sd3_checkpoint(&checkpoint, unsaid.t5_tokenizer)?,
            });
        }
        if !Checkpoint::is_one(&weights) {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                nodes: vec![format!(
                    "a file without the UNet of a latent-diffusion checkpoint (model.diffusion_model.…); its first tensors are {}",
                    weights.names().into_iter().take(3).collect::<Vec<_>>().join(", ")
                )],
            });
        }
        no_tokenizer("not of Stable Diffusion 3")?;
        let checkpoint = Checkpoint::new(weights)?;
        Ok(Pipeline {
            model: LatentDiffusion::from_checkpoint(&name, &checkpoint, unsaid.prediction)?,
            text: TextEncoders::from_checkpoint(&checkpoint)?,
        })
    }
}
