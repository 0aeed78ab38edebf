//! The text that AUTOMATIC1111's web UI puts into its pictures: the prompt, the negative prompt, a line of settings.

use std::path::{Path, PathBuf};

use super::painting::{Painting, Settings, TextSettings};

/// Their names of samplers, and ours.
const SAMPLERS: [(&str, &str); 17] = [
    ("Euler", "euler"),
    ("Euler a", "euler-a"),
    ("Heun", "heun"),
    ("LMS", "lms"),
    ("DPM2", "dpm2"),
    ("DPM2 a", "dpm2-a"),
    ("DPM++ 2S a", "dpm++2s-a"),
    ("DPM++ 2M", "dpm++2m"),
    ("DPM++ SDE", "dpm++sde"),
    ("DPM++ 2M SDE", "dpm++2m-sde"),
    ("DPM++ 3M SDE", "dpm++3m-sde"),
    ("DDIM", "ddim"),
    ("PLMS", "plms"),
    ("UniPC", "unipc"),
    ("LCM", "lcm"),
    ("DDPM", "ddpm"),
    ("DEIS", "deis"),
];

/// Their names of schedules, and ours.
const SCHEDULES: [(&str, &str); 7] = [
    ("Automatic", "model"),
    ("Karras", "karras"),
    ("Exponential", "exponential"),
    ("SGM Uniform", "sgm-uniform"),
    ("Simple", "simple"),
    ("Beta", "beta"),
    ("Align Your Steps", "align-your-steps"),
];

fn theirs<'a>(names: &'a [(&'a str, &'a str)], ours: &'a str) -> &'a str {
    names.iter().find(|(_, name)| *name == ours).map_or(ours, |(name, _)| name)
}

fn ours(names: &[(&str, &str)], theirs: &str) -> String {
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(theirs));
    found.map_or_else(|| theirs.to_lowercase(), |(_, name)| (*name).to_owned())
}

/// The text of a painting.
pub fn write(painting: &Painting) -> String {
    let Painting { version, model, settings } = painting;
    let Settings { steps, sampler, sigmas, seed, guidance, text } = settings;
    let mut lines = vec![text.prompt.clone().unwrap_or_default()];
    if let Some(negative) = text.negative.as_ref().filter(|n| !n.is_empty()) {
        lines.push(format!("Negative prompt: {negative}"));
    }
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let mut push = |key, value: Option<String>| pairs.extend(value.map(|value| (key, value)));
    push("Steps", steps.map(|n| n.to_string()));
    push("Sampler", sampler.as_deref().map(|s| theirs(&SAMPLERS, s).to_owned()));
    push("Schedule type", sigmas.as_deref().map(|s| theirs(&SCHEDULES, s).to_owned()));
    push("CFG scale", guidance.map(|g| g.to_string()));
    push("Seed", seed.map(|s| s.to_string()));
    push("Size", text.width.zip(text.height).map(|(w, h)| format!("{w}x{h}")));
    let stem = |path: &Path| path.file_stem().map(|name| quoted(&name.display().to_string()));
    push("Model", stem(Path::new(model)));
    push("Denoising strength", text.strength.map(|s| s.to_string()));
    push("Refiner", text.refiner.as_deref().and_then(stem));
    push("Refiner switch at", text.refiner_start.map(|start| start.to_string()));
    // They count the last layer too.
    push("Clip skip", text.clip_skip.filter(|n| *n > 0).map(|n| (n + 1).to_string()));
    push("RNG", text.rng.as_deref().map(|rng| if rng == "cpu" { "CPU" } else { "GPU" }.to_owned()));
    push("PAG Scale", text.pag.map(|scale| scale.to_string()));
    push("Noise Schedule", text.zero_snr.then(|| "Zero Terminal SNR".to_owned()));
    push("CFG Rescale", text.rescale.filter(|r| *r > 0.0).map(|r| r.to_string()));
    let variation = text.variation.as_deref().and_then(|v| v.split_once(':'));
    push("Variation seed", variation.map(|(seed, _)| seed.to_owned()));
    push("Variation seed strength", variation.map(|(_, share)| share.to_owned()));
    push("Version", Some(format!("aquatint {version}")));
    lines.push(pairs.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", "));
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    match text.contains([',', ':', '"']) {
        true => serde_json::Value::from(text).to_string(),
        false => text.to_owned(),
    }
}

/// What such a text says; `None` for any other text.
pub fn read(text: &str) -> Option<Painting> {
    let (words, line) = text.trim_end().rsplit_once('\n').unwrap_or(("", text));
    let pairs = pairs(line);
    let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let steps = get("Steps")?.parse().ok();
    let (prompt, negative) = match words.split_once("Negative prompt:") {
        Some((prompt, negative)) => (prompt, Some(negative.trim().to_owned())),
        None => (words, None),
    };
    // Older versions have the schedule in the sampler's name.
    let sampler = get("Sampler").unwrap_or("Euler");
    let (sampler, schedule) = match get("Schedule type") {
        Some(schedule) => (sampler, Some(schedule)),
        None => ["Karras", "Exponential"]
            .iter()
            .find_map(|kind| Some((sampler.strip_suffix(kind)?.trim_end(), Some(*kind))))
            .unwrap_or((sampler, None)),
    };
    let size = get("Size").and_then(|size| size.split_once('x'));
    let side = |text: Option<&str>| text.and_then(|t| t.trim().parse().ok());
    Some(Painting {
        version: String::new(),
        model: String::new(),
        settings: Settings {
            steps,
            sampler: Some(ours(&SAMPLERS, sampler)),
            sigmas: schedule.map(|s| ours(&SCHEDULES, s)),
            seed: get("Seed").and_then(|s| s.parse().ok()),
            guidance: get("CFG scale").and_then(|s| s.parse().ok()),
            text: TextSettings {
                prompt: Some(prompt.trim().to_owned()),
                negative,
                width: side(size.map(|s| s.0)),
                height: side(size.map(|s| s.1)),
                strength: get("Denoising strength").and_then(|s| s.parse().ok()),
                variation: get("Variation seed")
                    .zip(get("Variation seed strength"))
                    .map(|(seed, share)| format!("{seed}:{share}")),
                // Their default is the GPU's, as PyTorch has it.
                rng: get("RNG").map(|rng| if rng == "CPU" { "cpu" } else { "cuda" }.to_owned()),
                clip_skip: get("Clip skip")
                    .and_then(|n| n.parse::<usize>().ok())
                    .map(|n| n.saturating_sub(1)),
                init: None::<PathBuf>,
                ..TextSettings::default()
            },
        },
    })
}

/// `Key: value, Key: "a quoted, value"`.
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once(": ") {
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let quoted = after.starts_with('"').then(|| values.next()).flatten().and_then(Result::ok);
        let (value, after) = match quoted {
            Some(value) => (value, &after[values.byte_offset()..]),
            None => {
                let end = after.find(", ").unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((key.trim().to_owned(), value));
        rest = after.trim_start_matches([',', ' ']);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let painting = Painting {
            version: "1".to_owned(),
            model: "models/a, b.safetensors".to_owned(),
            settings: Settings {
                steps: Some(25),
                sampler: Some("dpm++2m-sde".to_owned()),
                sigmas: Some("karras".to_owned()),
                seed: Some(7),
                guidance: Some(7.5),
                text: TextSettings {
                    prompt: Some("a cat: red,\nsharp".to_owned()),
                    negative: Some("blurry".to_owned()),
                    width: Some(512),
                    height: Some(640),
                    rng: Some("cpu".to_owned()),
                    clip_skip: Some(1),
                    variation: Some("8:0.25".to_owned()),
                    ..TextSettings::default()
                },
            },
        };
        let text = write(&painting);
        assert!(text.contains("Sampler: DPM++ 2M SDE, Schedule type: Karras"), "{text}");
        assert!(text.contains("Model: \"a, b\", Clip skip: 2"), "{text}");
        let found = read(&text).unwrap();
        assert_eq!(found.settings, painting.settings);
    }

    #[test]
    fn what_others_wrote_is_read() {
        let text = "masterpiece, (cat:1.2)\nNegative prompt: lowres, bad\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, \
                    Seed: 123456789, Size: 512x768, Model hash: abc, Hires prompt: \"a, b: c\", Clip skip: 2";
        let Settings { sampler, sigmas, seed, text, .. } = read(text).unwrap().settings;
        assert_eq!(sampler.as_deref(), Some("dpm++2m"));
        assert_eq!(sigmas.as_deref(), Some("karras"));
        assert_eq!(
            (seed, text.width, text.height, text.clip_skip),
            (Some(123_456_789), Some(512), Some(768), Some(1))
        );
        assert_eq!(text.prompt.as_deref(), Some("masterpiece, (cat:1.2)"));
        assert_eq!(text.negative.as_deref(), Some("lowres, bad"));
        assert_eq!(read("a cat"), None);
        assert_eq!(read(""), None);
    }
}
