//! Which files of a repository are the model, as this crate opens it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::name::Name;
use crate::error::{Error, Result};
use crate::formats::diffusers::{self, Folder, Stored};

/// One commit of a repository, on the hub or in the cache.
pub trait Source {
    /// Its paths from the root.
    fn files(&self) -> &BTreeSet<String>;
    /// Where they lie, once they were asked for.
    fn folder(&self) -> &Path;
    /// Sees to it that these of its files are there.
    fn get(&mut self, files: &[String]) -> Result<()>;
    /// What is to be said of a file that it has not.
    fn lacks(&self, file: &str) -> Error;
}

/// Parts of pipelines that pictures are made without.
const IGNORED: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];

/// Networks of pipelines that this crate has; of pipelines with others nothing is downloaded.
const NETWORKS: [&str; 5] =
    ["UNet2DConditionModel", "UNet2DModel", "AutoencoderKL", "CLIPTextModel", "CLIPTextModelWithProjection"];

const INDEX: &str = "model_index.json";
const CONFIG: &str = "config.json";
const SCHEDULER: &str = "scheduler_config.json";
const VOCABULARY: &str = "vocab.json";

/// Gets what the name asks for: the path of a file, of a pipeline's folder or of a network's.
pub fn get(name: &Name, source: &mut dyn Source) -> Result<PathBuf> {
    if let Some(file) = name.file {
        need(source, file)?;
        // What is too large for an ONNX file lies beside it, under its name with an ending.
        let beside = |f: &&String| *f == file || file.ends_with(".onnx") && f.starts_with(file);
        let files: Vec<String> = source.files().iter().filter(beside).cloned().collect();
        source.get(&files)?;
        return Ok(source.folder().join(file));
    }
    let mut wanted = Wanted::default();
    if source.files().contains(INDEX) {
        source.get(&[INDEX.to_owned()])?;
        pipeline(name, source, &mut wanted)?;
    } else if source.files().contains(CONFIG) {
        wanted.network(name, source, "", "diffusion_pytorch_model.safetensors")?;
        wanted.texts.extend(source.files().get(SCHEDULER).cloned());
    } else {
        return Err(source.lacks(INDEX));
    }
    wanted.get(source)?;
    Ok(source.folder().to_owned())
}

fn pipeline(name: &Name, source: &dyn Source, wanted: &mut Wanted) -> Result<()> {
    let index = source.folder().join(INDEX);
    let folder = Folder::open(source.folder())?;
    let mut others = Vec::new();
    for (part, class) in folder.parts().filter(|(part, _)| !IGNORED.contains(part)) {
        if !diffusers::is_plain(part) {
            let message = format!("has a part \"{part}\", expected the name of a folder");
            return Err(Error::Format { path: index, message });
        }
        let (is_scheduler, is_tokenizer) = (class.contains("Scheduler"), class.contains("Tokenizer"));
        let known_by = match (is_scheduler, is_tokenizer) {
            (true, _) => SCHEDULER,
            (_, true) => VOCABULARY,
            _ => CONFIG,
        };
        // Pipelines of one network may have its files beside the index.
        let inside = format!("{part}/");
        let has_folder = source.files().iter().any(|file| file.starts_with(&inside));
        let at = if !has_folder && source.files().contains(known_by) { "" } else { &*inside };
        if is_scheduler {
            wanted.texts.push(need(source, &format!("{at}{SCHEDULER}"))?);
        } else if is_tokenizer {
            wanted.tokenizer(source, at)?;
        } else if NETWORKS.contains(&class) {
            let stem = if class.starts_with("CLIP") { "model" } else { "diffusion_pytorch_model" };
            wanted.network(name, source, at, &format!("{stem}.safetensors"))?;
        } else {
            others.push(format!("{part} of class {class} (this crate has {})", NETWORKS.join(", ")));
        }
    }
    if others.is_empty() { Ok(()) } else { Err(Error::Unsupported { path: index, nodes: others }) }
}

/// Files of a model in the order in which they are got: what is small first, so that what it says is known.
#[derive(Default)]
struct Wanted {
    indices: Vec<String>,
    texts: Vec<String>,
    weights: Vec<String>,
}

impl Wanted {
    /// Configuration and weights in the folder `at`.
    fn network(&mut self, name: &Name, source: &dyn Source, at: &str, usual: &str) -> Result<()> {
        self.texts.push(need(source, &format!("{at}{CONFIG}"))?);
        let has = |file: &str| source.files().contains(&format!("{at}{file}"));
        match diffusers::stored(has) {
            Some(Stored::Whole(file)) => self.weights.push(format!("{at}{file}")),
            Some(Stored::Sharded(file)) => self.indices.push(format!("{at}{file}")),
            None => {
                return Err(match diffusers::PICKLES.into_iter().find(|file| has(file)) {
                    Some(file) => diffusers::pickled(format!("{}/{at}{file}", name.repository).into()),
                    None => source.lacks(&format!("{at}{usual}")),
                });
            }
        }
        Ok(())
    }

    /// A tokenizer's vocabulary and merges, or both in one file, and what says which tokens are special.
    fn tokenizer(&mut self, source: &dyn Source, at: &str) -> Result<()> {
        let mut take = |file: &str| {
            let file = source.files().get(&format!("{at}{file}"));
            self.texts.extend(file.cloned());
            file.is_some()
        };
        take("special_tokens_map.json");
        take("tokenizer_config.json");
        match (take(VOCABULARY), take("merges.txt"), take("tokenizer.json")) {
            (true, true, _) | (false, _, true) => Ok(()),
            (true, false, _) => Err(source.lacks(&format!("{at}merges.txt"))),
            (false, _, false) => Err(source.lacks(&format!("{at}{VOCABULARY}"))),
        }
    }

    fn get(self, source: &mut dyn Source) -> Result<()> {
        source.get(&self.indices)?;
        let mut files = self.texts;
        for index in &self.indices {
            let folder = index.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            let map = diffusers::weight_map(&source.folder().join(index))?;
            for shard in map.values().collect::<BTreeSet<_>>() {
                files.push(need(source, &format!("{folder}{shard}"))?);
            }
        }
        files.extend(self.weights);
        source.get(&files)
    }
}

fn need(source: &dyn Source, file: &str) -> Result<String> {
    source.files().get(file).cloned().ok_or_else(|| source.lacks(file))
}
