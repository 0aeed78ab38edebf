//! Words that stand for learnt vectors.

use super::encoder::TextEncoders;
use crate::error::{Error, Result};
use crate::formats::textual_inversion::{Embedding, TextualInversion};

impl TextEncoders {
    /// From now on the words of `inversion` in a prompt stand for its vectors: the word that the file names and, of a
    /// file that names at most one, the file's own name. Letters of either case are one, and a part of a longer word is
    /// no word. An encoder for which the file has no vectors reads the word as it did. Gives the words.
    ///
    /// # Errors
    /// [`Error::WrongTensor`] for vectors that are as wide as no encoder, or not as the one that they are for, and for
    /// more than a chunk of a prompt takes; [`Error::Invalid`] for a word that stands for others already. Then nothing is
    /// changed.
    pub fn learn(&mut self, inversion: &TextualInversion) -> Result<Vec<String>> {
        let mut places = Vec::new();
        for embedding in &inversion.embeddings {
            let encoders = self.places(inversion, embedding)?;
            places.push((embedding, encoders));
        }
        let named: Vec<&String> = inversion.embeddings.iter().filter_map(|e| e.word.as_ref()).collect();
        let taken = |word: &str| self.encoders.iter().any(|encoder| encoder.tokenizer.knows(word));
        if let Some(word) =
            named.iter().copied().chain(named.is_empty().then_some(&inversion.stem)).find(|w| taken(w))
        {
            return Err(Error::Invalid {
                what: format!("word of {}", inversion.file()),
                expected: "one that no other embedding has".to_owned(),
                found: word.clone(),
            });
        }
        let stem = Some(&inversion.stem).filter(|stem| named.len() < 2 && !stem.is_empty() && !taken(stem));
        let stem = stem.filter(|stem| named.iter().all(|word| word.to_lowercase() != stem.to_lowercase()));
        for (embedding, encoders) in places {
            for i in encoders {
                let encoder = &mut self.encoders[i];
                let tokens = encoder.config.add_tokens(&mut encoder.weights, &embedding.vectors)?;
                for word in embedding.word.iter().chain(stem) {
                    encoder.tokenizer.add_word(word, tokens.clone());
                }
            }
        }
        Ok(named.into_iter().chain(stem).cloned().collect())
    }

    /// The encoders that vectors are for; at least one.
    fn places(&self, inversion: &TextualInversion, embedding: &Embedding) -> Result<Vec<usize>> {
        let [rows, width] = embedding.vectors.desc.shape[..] else { unreachable!("files are read as rows") };
        let wrong = |expected: String| Error::WrongTensor {
            file: inversion.file().to_owned(),
            name: embedding.name.clone(),
            expected,
            found: format!("shape [{rows}, {width}]"),
        };
        let widths: Vec<usize> = self.encoders.iter().map(|encoder| encoder.config.hidden_size).collect();
        let places: Vec<usize> = (0..widths.len())
            .filter(|&i| widths[i] == width && embedding.encoder.is_none_or(|encoder| encoder == i))
            .collect();
        if places.is_empty() {
            return Err(wrong(match embedding.encoder.map(|i| (i + 1, widths.get(i))) {
                Some((_, Some(width))) => format!("[k, {width}], as its encoder of text has"),
                Some((i, None)) => {
                    format!("a model with {i} encoders of text (this one has {})", widths.len())
                }
                None => {
                    let widths: Vec<String> = widths.iter().map(|width| format!("[k, {width}]")).collect();
                    format!("{}, as an encoder of text has", widths.join(" or "))
                }
            }));
        }
        let room = places.iter().map(|&i| self.encoders[i].tokenizer.room()).min().unwrap_or(0);
        if rows > room {
            return Err(wrong(format!("at most {room} vectors, which a prompt has room for")));
        }
        Ok(places)
    }
}
