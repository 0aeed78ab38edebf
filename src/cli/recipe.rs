//! How a picture was made, as it stands in the picture's own text.

use std::path::Path;

use aquatint::formats::{picture, sheet};
use aquatint::{Error, Result};
use serde::{Deserialize, Serialize};

/// Keyword of the JSON form; the one for people is under `parameters`.
pub const KEYWORD: &str = "aquatint";

/// Everything that decides what `generate` draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Version of the program.
    pub version: String,
    pub model: String,
    /// Label of each picture of a set.
    pub labels: Vec<String>,
    /// Number of sets.
    pub count: usize,
    /// Picture `i` of all has the seed `seed + i`.
    pub seed: u64,
    pub steps: usize,
    pub sampler: String,
    pub sigmas: String,
    pub guidance: f32,
    /// Where the pictures are, if the file is a contact sheet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheet: Option<sheet::Layout>,
}

impl Recipe {
    /// The recipe in a PNG, if it has one.
    ///
    /// # Errors
    /// [`Error::Format`] when there is one that cannot be read.
    pub fn read(path: &Path) -> Result<Option<Recipe>> {
        let Some(text) = picture::read_text(path, KEYWORD)? else {
            return Ok(None);
        };
        let recipe = serde_json::from_str(&text);
        recipe.map(Some).map_err(|error| Error::Format {
            path: path.to_owned(),
            message: format!("the parameters in its text cannot be read: {error}"),
        })
    }

    /// Writes a picture with this recipe in it.
    pub fn save(&self, path: &Path, picture: &image::DynamicImage) -> Result<()> {
        let json = serde_json::to_string(self).expect("a recipe is plain data");
        picture::save_png(
            path,
            picture,
            &[("Software", "aquatint"), ("parameters", &self.text()), (KEYWORD, &json)],
        )
    }

    /// The labels as one word if they are letters, else with spaces.
    pub fn word(&self) -> String {
        let letters = self.labels.iter().all(|l| l.chars().count() == 1);
        self.labels.join(if letters { "" } else { " " })
    }

    fn text(&self) -> String {
        format!(
            "{}\nSteps: {}, Sampler: {}, Schedule: {}, CFG scale: {}, Seed: {}, Count: {}, Model: {}, Version: aquatint {}",
            self.word(),
            self.steps,
            self.sampler,
            self.sigmas,
            self.guidance,
            self.seed,
            self.count,
            self.model,
            self.version
        )
    }

    /// One line for the foot of a sheet.
    pub fn caption(&self) -> String {
        let Recipe { model, steps, sampler, guidance, seed, .. } = self;
        format!("{model} · {sampler} · {steps} steps · guidance {guidance} · seed {seed}")
    }
}
