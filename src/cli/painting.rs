//! How a picture was painted from text, as it stands in the picture's own text: as JSON, and in the form that
//! AUTOMATIC1111's web UI writes and other programs read.

use std::path::{Path, PathBuf};

use aquatint::formats::picture;
use aquatint::{Error, Result};
use serde::{Deserialize, Serialize};

use super::parameters;
use super::recipe::KEYWORD;

/// Everything that decides what is painted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Painting {
    /// Version of the program; empty if another wrote it.
    pub version: String,
    /// Path or name of the model, as it was given; empty if another program wrote it.
    pub model: String,
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a picture is made with; models have habits for what is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct Settings {
    /// Steps from noise to picture [default: 20, or the model's]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Way from noise to picture, as ddim, euler, euler-a, heun, dpm++2m, unipc, lcm, of score models euler, heun, reverse-sde, pc; an unknown one lists all [default: the model's]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// Noise levels of the steps: model, karras, exponential, beta, kl-optimal, sgm-uniform, simple, align-your-steps,
    /// align-your-steps-xl, or a list as 14.6,6.3,1.2 or timesteps:999,600,200 [default: the model's]
    #[arg(long, visible_alias = "schedule")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigmas: Option<String>,
    /// Seed of the first picture, one more for each that follows [default: random]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How strictly label or prompt are followed; 1 for no guidance, at half the work [default: the model's]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    #[command(flatten)]
    #[serde(flatten)]
    pub text: TextSettings,
}

/// What only pictures from text are made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Pictures from text, with --model")]
#[serde(default)]
pub struct TextSettings {
    /// What to paint; (word:1.3) and [word] weigh words, BREAK begins a new chunk
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What not to paint
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
    /// Width in pixels [default: the model's, or that of --init]
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height in pixels
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Picture to begin with, or to enlarge
    #[arg(long, value_name = "PICTURE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Picture that is white where the first one is painted anew, black where it stays
    #[arg(long, value_name = "PICTURE", requires = "init")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<PathBuf>,
    /// Pixels to paint beyond the picture's sides
    #[arg(
        long,
        value_name = "LEFT,TOP,RIGHT,BOTTOM",
        value_delimiter = ',',
        requires = "init",
        conflicts_with = "mask"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<Vec<u32>>,
    /// How much of the picture is made anew, above 0, up to 1 [default: 0.75; 1 with a mask, 0.6 with --hires, 0.3 for a refiner as --model]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// How much of the contrast that guidance adds is taken back, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale: Option<f32>,
    /// Guide away from attention that is perturbed (PAG): how strictly, as 3
    #[arg(long, value_name = "SCALE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pag: Option<f32>,
    /// Parts of the names of the layers where it is, as mid,down_blocks.1 [default: mid]
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pag_layers: Vec<String>,
    /// By how much that scale falls with each of the model's 1000 timesteps, as 0.003 [default: 0]
    #[arg(long, value_name = "FALL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pag_adaptive: Option<f32>,
    /// Another seed, and how far from the picture's own noise to that one's: 0 to 1
    #[arg(long, value_name = "SEED:SHARE", conflicts_with = "init")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<String>,
    /// Paint a small picture first, then enlarge its latents so many times and paint on, with --strength of it made anew
    #[arg(long, value_name = "FACTOR", conflicts_with_all = ["init", "variation"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hires: Option<f32>,
    /// A model that goes on where the first one stops, as SDXL's refiner
    #[arg(long, value_name = "FOLDER|FILE|NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refiner: Option<PathBuf>,
    /// Where it takes over, by shares of the way from noise to picture: above 0, below 1 [default: 0.8]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refiner_start: Option<f64>,
    /// Level of the noise that an upscaler adds to its small picture: the higher, the more is made anew [default: 20]
    #[arg(long, value_name = "LEVEL", requires = "init")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_level: Option<usize>,
    /// Whose random numbers: cuda (or philox) or cpu, as a PyTorch generator there [default: cuda]
    #[arg(long, value_parser = ["cuda", "philox", "cpu"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<String>,
    /// Storage of weights and activations [default: f32]
    #[arg(long, value_parser = ["f32", "f16"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Blocks of small integers that the UNet's weights are kept in [default: none]
    #[arg(long, value_name = "q8_0|q4_0")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// A LoRA file and how much of it; may be given several times [default weight: 1]
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lora: Vec<String>,
    /// A file of textual inversion, whose name is a word for the prompt; may be given several times
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embedding: Vec<PathBuf>,
    /// A ControlNet; may be given several times, each with what follows
    #[arg(long, value_name = "FOLDER|FILE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<PathBuf>,
    /// The picture that it looks at: edges, depth, a pose
    #[arg(long, value_name = "PICTURE", requires = "control")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control_picture: Vec<PathBuf>,
    /// How much it has to say [default: 1]
    #[arg(long, value_name = "FACTOR", requires = "control")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control_scale: Vec<f32>,
    /// The ControlNets guess what their pictures show: they have no say in what is not wanted, and less at finer levels;
    /// for prompts that say little, with --guidance of 3 to 5
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guess: bool,
    /// Layers at the end of the text's encoder that are left out, beside those that the model leaves out [default: 0]
    #[arg(long, value_name = "LAYERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// What the network predicts, where the file does not say it: epsilon, v_prediction or sample
    #[arg(long, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<String>,
    /// The folder with the tokenizer.json of the T5 in a single file of Stable Diffusion 3 [default: tokenizer_3 beside it]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t5_tokenizer: Option<PathBuf>,
    /// Begin with noise alone (zero terminal SNR), at timesteps that end with the last one: for models that predict v and
    /// were trained so, but do not say it; --rescale 0.7 suits them
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub zero_snr: bool,
}

impl Settings {
    /// These where there are some, else those of `base`.
    pub fn or(self, base: Settings) -> Settings {
        Settings {
            steps: self.steps.or(base.steps),
            sampler: self.sampler.or(base.sampler),
            sigmas: self.sigmas.or(base.sigmas),
            seed: self.seed.or(base.seed),
            guidance: self.guidance.or(base.guidance),
            text: self.text.or(base.text),
        }
    }
}

fn or<T>(given: Vec<T>, base: Vec<T>) -> Vec<T> {
    if given.is_empty() { base } else { given }
}

impl TextSettings {
    fn or(self, base: TextSettings) -> TextSettings {
        TextSettings {
            prompt: self.prompt.or(base.prompt),
            negative: self.negative.or(base.negative),
            width: self.width.or(base.width),
            height: self.height.or(base.height),
            init: self.init.or(base.init),
            mask: self.mask.or(base.mask),
            extend: self.extend.or(base.extend),
            strength: self.strength.or(base.strength),
            rescale: self.rescale.or(base.rescale),
            pag: self.pag.or(base.pag),
            pag_layers: or(self.pag_layers, base.pag_layers),
            pag_adaptive: self.pag_adaptive.or(base.pag_adaptive),
            variation: self.variation.or(base.variation),
            hires: self.hires.or(base.hires),
            refiner: self.refiner.or(base.refiner),
            refiner_start: self.refiner_start.or(base.refiner_start),
            noise_level: self.noise_level.or(base.noise_level),
            rng: self.rng.or(base.rng),
            precision: self.precision.or(base.precision),
            weights: self.weights.or(base.weights),
            lora: or(self.lora, base.lora),
            embedding: or(self.embedding, base.embedding),
            control: or(self.control, base.control),
            control_picture: or(self.control_picture, base.control_picture),
            control_scale: or(self.control_scale, base.control_scale),
            clip_skip: self.clip_skip.or(base.clip_skip),
            guess: self.guess || base.guess,
            prediction: self.prediction.or(base.prediction),
            t5_tokenizer: self.t5_tokenizer.or(base.t5_tokenizer),
            zero_snr: self.zero_snr || base.zero_snr,
        }
    }
}

impl Painting {
    /// What a PNG says of how it was painted: ours, or what other programs wrote. `None` if it says nothing, or is of
    /// letters.
    ///
    /// # Errors
    /// [`Error::Format`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Painting>> {
        if let Some(text) = picture::read_text(path, KEYWORD)? {
            let painting: Painting = serde_json::from_str(&text).map_err(|error| Error::Format {
                path: path.to_owned(),
                message: format!("the parameters in its text cannot be read: {error}"),
            })?;
            // Letters have neither.
            let is_one = |p: &Painting| p.settings.text.prompt.is_some() || p.settings.text.init.is_some();
            return Ok(Some(painting).filter(is_one));
        }
        let text = picture::read_text(path, "parameters")?;
        Ok(text.as_deref().and_then(parameters::read))
    }

    /// As JSON on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("settings are plain data")
    }

    /// Writes a picture with this in it.
    pub fn save(&self, path: &Path, picture: &image::RgbImage) -> Result<()> {
        let text =
            [("Software", "aquatint"), ("parameters", &*parameters::write(self)), (KEYWORD, &self.json())];
        picture::save_png(path, &picture.clone().into(), &text)
    }

    /// One line for people.
    pub fn caption(&self) -> String {
        let Settings { steps, sampler, guidance, seed, .. } = &self.settings;
        let model =
            Path::new(&self.model).file_stem().map_or(self.model.clone(), |n| n.display().to_string());
        format!(
            "{model} · {} · {} steps · guidance {} · seed {}",
            sampler.as_deref().unwrap_or_default(),
            steps.unwrap_or_default(),
            guidance.unwrap_or_default(),
            seed.unwrap_or_default()
        )
    }
}
