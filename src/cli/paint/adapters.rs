//! What is put on a model: LoRA, and words of textual inversion.

use anyhow::Result;
use aquatint::formats::lora::Lora;
use aquatint::formats::textual_inversion::TextualInversion;
use aquatint::tasks::Pipeline;

use super::say;
use crate::cli::painting::TextSettings;

/// A file and its weight, of `FILE:WEIGHT`.
fn weighed(text: &str) -> (&str, f32) {
    match text.rsplit_once(':').map(|(file, weight)| (file, weight.parse())) {
        Some((file, Ok(weight))) => (file, weight),
        _ => (text, 1.0),
    }
}

pub fn apply(pipeline: &mut Pipeline, settings: &TextSettings) -> Result<()> {
    for lora in &settings.lora {
        let (file, weight) = weighed(lora);
        let Pipeline { model, text } = &mut *pipeline;
        let applied =
            Lora::open(file)?.apply(&mut model.denoiser.weights, &mut text.weights_mut(), weight)?;
        say(&format!("{file}: {applied}"));
    }
    for file in &settings.embedding {
        let words = pipeline.text.learn(&TextualInversion::open(file)?)?;
        say(&format!("{}: may be called {}", file.display(), words.join(" or ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::weighed;

    #[test]
    fn weights_stand_behind_the_last_colon() {
        assert_eq!(weighed("a.safetensors"), ("a.safetensors", 1.0));
        assert_eq!(weighed("a.safetensors:0.8"), ("a.safetensors", 0.8));
        assert_eq!(weighed(r"C:\a.safetensors"), (r"C:\a.safetensors", 1.0));
        assert_eq!(weighed(r"C:\a.safetensors:-1"), (r"C:\a.safetensors", -1.0));
    }
}
