//! Names that files of adapters may have for the layers of a network. kohya's have underscores for the dots of a path,
//! beside those that its words have: nobody can tell the two apart, so every path that there is is looked up instead.

use std::collections::HashMap;

use crate::formats::ldm::Blocks;
use crate::weights::Weights;

/// Layers by their paths with underscores.
#[derive(Debug, Default)]
pub struct Modules(HashMap<String, Option<Module>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The path that the network's own weights have.
    pub path: String,
    /// Whether it was named as in a latent-diffusion checkpoint.
    pub of_checkpoint: bool,
}

impl Modules {
    /// The layers of a `UNet2DConditionModel`, as diffusers and as checkpoints call them.
    pub fn of_unet(weights: &Weights) -> Self {
        let blocks = Blocks::of_unet(weights);
        let mut modules = Modules::default();
        for (path, name) in paths(weights) {
            modules.add(path, path, false);
            if let Some(old) = blocks.checkpoint_name(name, weights) {
                modules.add(old.strip_suffix(".weight").unwrap_or(&old), path, true);
            }
        }
        modules
    }

    /// The layers of a `CLIPTextModel`, with and without the word that newer files leave out, or of a `T5EncoderModel`.
    pub fn of_text(weights: &Weights) -> Self {
        const WORD: &str = "text_model.";
        // The table of tokens is not read by the network but beside it.
        const TABLES: [&str; 3] = ["token_embedding", "shared", "embed_tokens"];
        let mut modules = Modules::default();
        for (path, _) in paths(weights).filter(|(path, _)| !TABLES.iter().any(|table| path.ends_with(table)))
        {
            modules.add(path, path, false);
            match path.strip_prefix(WORD) {
                Some(rest) => modules.add(rest, path, false),
                None => modules.add(&format!("{WORD}{path}"), path, false),
            }
        }
        modules
    }

    /// The layer of a path, whose words may be parted by dots or underscores. None also for a path that two layers have.
    pub fn find(&self, path: &str) -> Option<&Module> {
        self.0.get(&flat(path))?.as_ref()
    }

    fn add(&mut self, spelled: &str, path: &str, of_checkpoint: bool) {
        let module = Module { path: path.to_owned(), of_checkpoint };
        self.0
            .entry(flat(spelled))
            .and_modify(|known| {
                if known.as_ref().is_some_and(|known| known.path != path) {
                    *known = None;
                }
            })
            .or_insert(Some(module));
    }
}

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

/// Layers with the names of their weights.
fn paths(weights: &Weights) -> impl Iterator<Item = (&str, &str)> {
    weights.names().into_iter().filter_map(|name| Some((name.strip_suffix(".weight")?, name)))
}
