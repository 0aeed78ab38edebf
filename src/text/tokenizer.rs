//! Text to the numbers that an encoder of text knows: byte-pair encoding as CLIP has it, from the files beside the model.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::charsmap;
use crate::error::{Error, Result};
use crate::files;

/// A tokenizer with the tokens that stand around a text.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Before a text, after it, and in the room that is left.
    pub begin: u32,
    pub end: u32,
    pub pad: u32,
    /// Tokens that the encoder takes at a time, with those at both ends.
    pub length: usize,
    words: Vec<Word>,
}

/// A word with tokens of its own, in small letters.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    tokens: Range<u32>,
}

impl Tokenizer {
    /// Reads a folder of transformers': `vocab.json` and `merges.txt`, or `tokenizer.json`; which tokens are special
    /// from `special_tokens_map.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for files that are not those of a CLIP tokenizer.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let whole = folder.join("tokenizer.json");
        let vocabulary = folder.join("vocab.json");
        let (path, bytes) = match vocabulary.is_file() {
            true => (vocabulary.clone(), of_files(&vocabulary, &folder.join("merges.txt"))?),
            false => (whole.clone(), files::text(&whole)?.into_bytes()),
        };
        let fail = |message: String| Error::Format { path: path.clone(), message };
        let inner = plain(&bytes).map_err(fail)?;

        let settings: Vec<Value> = ["special_tokens_map.json", "tokenizer_config.json"]
            .into_iter()
            .filter_map(|file| serde_json::from_str(&files::text(&folder.join(file)).ok()?).ok())
            .collect();
        let special = |setting: &str, default: &str| {
            let named = settings.iter().find_map(|s| match &s[setting] {
                Value::String(token) => Some(token.clone()),
                other => other["content"].as_str().map(str::to_owned),
            });
            let token = named.unwrap_or_else(|| default.to_owned());
            inner.token_to_id(&token).ok_or_else(|| fail(format!("has no token \"{token}\", its {setting}")))
        };
        let length = settings.iter().find_map(|s| s["model_max_length"].as_u64()).unwrap_or(77);
        Ok(Tokenizer {
            begin: special("bos_token", "<|startoftext|>")?,
            end: special("eos_token", "<|endoftext|>")?,
            pad: special("pad_token", "<|endoftext|>")?,
            length: usize::try_from(length).ok().filter(|l| (3..=4096).contains(l)).unwrap_or(77),
            words: Vec::new(),
            inner,
        })
    }

    /// CLIP's own tokenizer, for models whose files have none; the room that is left is filled with `pad`, or with the
    /// token that ends a text.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a `pad` that is no token.
    pub fn clip(pad: Option<&str>) -> Result<Self> {
        // Models have up to two of them.
        static MADE: OnceLock<tokenizers::Tokenizer> = OnceLock::new();
        let inner = MADE.get_or_init(|| {
            let merges = include_str!("../../models/clip-tokenizer/merges.txt");
            plain(&clip(vocabulary(merges), merges)).expect("what is bundled is sound")
        });
        let inner = inner.clone();
        let id = |token: &str| inner.token_to_id(token).expect("CLIP has both");
        let [begin, end] = ["<|startoftext|>", "<|endoftext|>"].map(id);
        let unknown = |pad: &str| Error::Unknown {
            what: "token",
            found: pad.to_owned(),
            expected: "one of CLIP's vocabulary".to_owned(),
        };
        let pad = pad.map_or(Ok(end), |pad| inner.token_to_id(pad).ok_or_else(|| unknown(pad)))?;
        Ok(Tokenizer { inner, begin, end, pad, length: 77, words: Vec::new() })
    }

    /// From now on `word` stands for these tokens, which the encoder knows beyond its vocabulary: wherever it stands by
    /// itself, in letters of either case. Of two words that fit, the longer counts; an empty one is none.
    pub fn add_word(&mut self, word: &str, tokens: Range<u32>) {
        let text = word.trim().to_lowercase();
        if text.is_empty() {
            return;
        }
        self.words.push(Word { text, tokens });
        self.words.sort_by_key(|word| std::cmp::Reverse(word.text.len()));
    }

    /// Whether a word has tokens of its own.
    pub fn knows(&self, word: &str) -> bool {
        self.words.iter().any(|known| known.text == word.to_lowercase())
    }

    /// How many tokens from this one on are one word, which is not parted.
    pub fn together(&self, token: u32) -> usize {
        self.words.iter().find(|word| word.tokens.start == token).map_or(1, |word| word.tokens.len())
    }

    /// The tokens of a text, without those around it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what the tokenizer cannot read.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let (mut tokens, mut rest) = (Vec::new(), 0);
        while let Some((place, word)) = self.next_word(text, rest) {
            tokens.extend(self.plain(&text[rest..place.start])?);
            tokens.extend(word.tokens.clone());
            rest = place.end;
        }
        tokens.extend(self.plain(&text[rest..])?);
        Ok(tokens)
    }

    /// The first added word from a byte of a text on, and where it stands.
    fn next_word(&self, text: &str, from: usize) -> Option<(Range<usize>, &Word)> {
        let of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        text[from..].char_indices().find_map(|(i, _)| {
            let start = from + i;
            self.words.iter().find_map(|word| {
                let end = start + beginning(&text[start..], &word.text)?;
                let found = &text[start..end];
                let parts_before =
                    of_word(text[..start].chars().next_back()) && of_word(found.chars().next());
                let parts_after = of_word(found.chars().next_back()) && of_word(text[end..].chars().next());
                (!parts_before && !parts_after).then_some((start..end, word))
            })
        })
    }

    /// The tokens of a text without added words.
    fn plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|e| Error::Invalid {
            what: "text".to_owned(),
            expected: "one that the tokenizer reads".to_owned(),
            found: e.to_string(),
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens that a text may have at a time.
    pub fn room(&self) -> usize {
        self.length - 2
    }

    /// One chunk of a text as the encoder takes it: begin, at most [`Tokenizer::room`] tokens, end, padding.
    pub fn chunk(&self, tokens: &[u32]) -> Vec<u32> {
        let tokens = &tokens[..tokens.len().min(self.room())];
        let mut chunk = Vec::with_capacity(self.length);
        chunk.push(self.begin);
        chunk.extend(tokens);
        chunk.push(self.end);
        chunk.resize(self.length, self.pad);
        chunk
    }
}

/// How many bytes of a text are a word of small letters, if it begins with it.
fn beginning(text: &str, word: &str) -> Option<usize> {
    let mut wanted = word.chars().peekable();
    for (i, c) in text.char_indices() {
        if wanted.peek().is_none() {
            return Some(i);
        }
        if !c.to_lowercase().all(|c| wanted.next() == Some(c)) {
            return None;
        }
    }
    wanted.peek().is_none().then_some(text.len())
}

/// A tokenizer that neither cuts nor fills: how much is taken and what stands around it is decided for each chunk of a text.
/// What no text is read with is left out, as not all of it is refused where it is not sound.
pub(super) fn plain(json: &[u8]) -> std::result::Result<tokenizers::Tokenizer, String> {
    let mut file: Vocabulary = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    for part in ["decoder", "padding", "post_processor", "truncation"] {
        file.insert(part.to_owned(), Value::Null);
    }
    if let Some(normalizer) = file.get("normalizer") {
        tables(normalizer)?;
    }
    let json = Value::Object(file).to_string();
    tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())
}

/// Checks the tables in a normalizer, which may be made of several.
fn tables(normalizer: &Value) -> std::result::Result<(), String> {
    match normalizer {
        Value::Object(settings) => settings.iter().try_for_each(|(name, value)| match value {
            Value::String(table) if name == "precompiled_charsmap" => {
                charsmap::check(table).map_err(|what| format!("its {name} {what}"))
            }
            value => tables(value),
        }),
        Value::Array(several) => several.iter().try_for_each(tables),
        _ => Ok(()),
    }
}

type Vocabulary = serde_json::Map<String, Value>;

/// The vocabulary that merges imply (Radford et al. 2021): a character for each byte, each at the end of a word too, then what the
/// merges make, in their order.
fn vocabulary(merges: &str) -> Vocabulary {
    let printable = (33..=126).chain(161..=172).chain(174..=255u32);
    // The other bytes have characters from 256 on.
    let others = 256..256 + 68;
    let bytes: Vec<String> = printable.chain(others).filter_map(char::from_u32).map(String::from).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}</w>"));
    let merged = pairs(merges).map(|pair| pair.replacen(' ', "", 1));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let all = bytes.iter().cloned().chain(ends).chain(merged).chain(special);
    all.enumerate().map(|(id, token)| (token, Value::from(id))).collect()
}

fn pairs(merges: &str) -> impl Iterator<Item = &str> {
    merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"))
}

/// CLIP's tokenizer of its two files, in the form of a `tokenizer.json`.
fn of_files(vocabulary: &Path, merges: &Path) -> Result<Vec<u8>> {
    let vocab = serde_json::from_str(&files::text(vocabulary)?)
        .map_err(|e| Error::Format { path: vocabulary.to_owned(), message: e.to_string() })?;
    Ok(clip(vocab, &files::text(merges)?))
}

/// CLIP's tokenizer, as transformers' `CLIPTokenizer` makes it, in the form of a `tokenizer.json`.
fn clip(vocab: Vocabulary, merges: &str) -> Vec<u8> {
    let pairs: Vec<&str> = pairs(merges).collect();
    let special = |token: &str| {
        vocab.get(token).map(|id| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        })
    };
    let added: Vec<Value> = ["<|startoftext|>", "<|endoftext|>"].into_iter().filter_map(special).collect();
    let words =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": words }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": pairs,
        },
    });
    tokenizer.to_string().into_bytes()
}
