//! JSON: the form in which results are kept. `docs/bench.schema.json` is its schema.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use serde::Deserialize;

use crate::bench::record::{FORMAT, Results, Row, Status};
use crate::formats::picture::write_whole;
use crate::{Error, Result};

/// Reads results that this program's format describes.
///
/// # Errors
/// If the file cannot be read, is of another format, or says what cannot be.
pub fn read(path: impl AsRef<Path>) -> Result<Results> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse(&text).map_err(|message| Error::Format { path: path.to_owned(), message })
}

/// Results of a text, or why they are none.
pub fn parse(text: &str) -> Result<Results, String> {
    /// All that every format has.
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let found = serde_json::from_str::<Versioned>(text)
        .map_err(|error| format!("no results of aquatint bench: {error}"))?
        .format;
    match found {
        _ if found > FORMAT => {
            return Err(format!(
                "results of format {found}, and this program reads {FORMAT}: a newer aquatint wrote them, compare with that"
            ));
        }
        _ if found < FORMAT => {
            return Err(format!(
                "results of format {found}, and this program reads {FORMAT}: an older aquatint wrote them, measure again"
            ));
        }
        _ => {}
    }
    let results = serde_json::from_str(text).map_err(|error| format!("damaged results: {error}"))?;
    check(&results)?;
    Ok(results)
}

/// Writes results under a temporary name, then renames them.
///
/// # Errors
/// If they say what cannot be, or cannot be written.
pub fn write(path: impl AsRef<Path>, results: &Results) -> Result<()> {
    let path = path.as_ref();
    check(results).map_err(|message| Error::Format { path: path.to_owned(), message })?;
    let mut text = to_string(results);
    text.push('\n');
    write_text(path, &text)
}

/// As [`write()`] writes them.
pub fn to_string(results: &Results) -> String {
    serde_json::to_string_pretty(results).expect("results have nothing that JSON has not")
}

/// Writes a text under a temporary name, then renames it.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, |mut file| {
        file.write_all(text.as_bytes()).map_err(|source| Error::Io { path: path.to_owned(), source })
    })
}

/// The schema of [`Results`], JSON Schema 2020-12.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Results).to_value();
    schema["title"] = "Results of aquatint bench".into();
    schema["properties"]["format"]["const"] = FORMAT.into();
    schema
}

/// What a schema cannot say.
///
/// # Errors
/// What is wrong.
pub fn check(results: &Results) -> Result<(), String> {
    let mut ids = HashSet::new();
    for row in &results.rows {
        if !ids.insert(&row.id) {
            return Err(format!("two rows are called {}", row.id));
        }
        check_row(row).map_err(|problem| format!("row {}: {problem}", row.id))?;
    }
    for canary in &results.canary {
        positive("the canary", canary.seconds)?;
    }
    for limit in &results.roof.limits {
        positive("a limit", limit.value.unwrap_or(1.0))?;
    }
    Ok(())
}

fn check_row(row: &Row) -> Result<(), String> {
    if row.status == Status::Ok && row.times.is_none() {
        return Err("it is ok and has no times".to_owned());
    }
    if row.status == Status::Wrong && row.times.is_some() {
        return Err("it is wrong and has times".to_owned());
    }
    let Some(times) = &row.times else { return Ok(()) };
    for (name, summary, samples) in [
        ("main", &times.main, &times.samples),
        ("wall", &times.wall, &times.wall_samples),
        ("encode", &times.encode, &times.encode_samples),
    ] {
        if !samples.is_empty() && samples.len() != summary.n as usize {
            return Err(format!("{name}: {} samples, and a summary of {}", samples.len(), summary.n));
        }
        // Recording can be faster than a clock's tick.
        let least = if name == "encode" { 0.0 } else { f64::MIN_POSITIVE };
        for &value in samples.iter().chain([&summary.median, &summary.ci[0], &summary.ci[1]]) {
            if !value.is_finite() || value < least {
                return Err(format!("{name}: a time of {value} s"));
            }
        }
    }
    Ok(())
}

fn positive(what: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("{what} is {value}")),
    }
}
