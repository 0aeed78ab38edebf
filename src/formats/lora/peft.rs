//! PEFT's settings of an adapter, which diffusers keeps in the file's metadata and PEFT in `adapter_config.json`: there,
//! not in a tensor, stands alpha.

use serde_json::{Map, Value};

/// What scales an adapter's layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeftConfig {
    alpha: Option<f64>,
    /// Ends of paths, or whole ones after `^`, with other values. The first that fits counts.
    patterns: Vec<(String, f64)>,
    /// Whether alpha is divided by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
    by_root: bool,
}

impl PeftConfig {
    /// The settings whose names begin with `prefix`; none if there are none.
    ///
    /// # Errors
    /// What this crate does not have.
    pub fn of(settings: &Map<String, Value>, prefix: &str) -> Result<Option<Self>, String> {
        let get = |name: &str| settings.get(&format!("{prefix}{name}"));
        if let Some(kind) = get("peft_type").and_then(Value::as_str).filter(|kind| *kind != "LORA") {
            return Err(format!("adapter of PEFT's type {kind} (this crate has LORA)"));
        }
        let is_set = |name: &str| get(name).and_then(Value::as_bool).unwrap_or(false);
        if is_set("use_dora") {
            return Err("DoRA (use_dora)".to_owned());
        }
        let Some(alpha) = get("lora_alpha") else { return Ok(None) };
        let number = |value: &Value| match value.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            _ => Err(format!("lora_alpha {value}, which is no number")),
        };
        let mut patterns = Vec::new();
        for (pattern, value) in get("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !pattern.strip_prefix('^').unwrap_or(pattern).chars().all(plain) {
                return Err(format!("alpha_pattern \"{pattern}\" (this crate has plain paths)"));
            }
            patterns.push((pattern.clone(), number(value)?));
        }
        Ok(Some(PeftConfig { alpha: Some(number(alpha)?), patterns, by_root: is_set("use_rslora") }))
    }

    /// What the factors of a layer are multiplied by.
    pub fn scale(&self, path: &str, rank: usize) -> f64 {
        let fits = |pattern: &str| match pattern.strip_prefix('^') {
            Some(whole) => path == whole,
            None => path.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        let special = self.patterns.iter().find(|(pattern, _)| fits(pattern)).map(|(_, alpha)| *alpha);
        let rank = rank as f64;
        special.or(self.alpha).unwrap_or(rank) / if self.by_root { rank.sqrt() } else { rank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, prefix: &str) -> Result<Option<PeftConfig>, String> {
        PeftConfig::of(&serde_json::from_str(text).unwrap(), prefix)
    }

    #[test]
    fn alpha_is_that_of_the_layer() {
        let text =
            r#"{"unet.lora_alpha": 8, "unet.r": 4, "unet.alpha_pattern": {"attn1.to_q": 2, "^conv_in": 6}}"#;
        let unet = config(text, "unet.").unwrap().unwrap();
        assert_eq!(unet.scale("mid_block.attn2.to_q", 4), 2.0);
        assert_eq!(unet.scale("mid_block.attn1.to_q", 4), 0.5);
        assert_eq!(unet.scale("mid_block.xattn1.to_q", 4), 2.0);
        assert_eq!(unet.scale("conv_in", 4), 1.5);
        assert_eq!(unet.scale("a.conv_in", 4), 2.0);
        assert_eq!(config(text, "text_encoder."), Ok(None));
        let root = config(r#"{"lora_alpha": 8, "use_rslora": true}"#, "").unwrap().unwrap();
        assert_eq!(root.scale("x", 16), 2.0);
    }

    #[test]
    fn what_is_not_here_is_named() {
        for (text, named) in [
            (r#"{"lora_alpha": 8, "use_dora": true}"#, "DoRA"),
            (r#"{"peft_type": "LOHA"}"#, "LOHA"),
            (r#"{"lora_alpha": "8"}"#, "lora_alpha"),
            (r#"{"lora_alpha": 8, "alpha_pattern": {"to_(q|k)": 2}}"#, "to_(q|k)"),
        ] {
            let error = config(text, "").unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
