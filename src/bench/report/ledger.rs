//! The performance ledger, Markdown: what all kept results say, by device. `docs/performance.md` is what it makes of
//! `benches/results`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::markdown::cell;
use super::{cells, json};
use crate::bench::peers::record::{self as peers, ItemRecord, PeerRecord, PeerResults, PeerRow};
use crate::bench::record::{Group, Machine, Rates, Results, Row, Status};
use crate::bench::roof;
use crate::error::{Error, Result};
use crate::units;

/// Results that were kept, with the names of their files.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Of `aquatint bench`.
    pub results: Vec<(String, Results)>,
    /// Of `benches/peers/run.sh`.
    pub races: Vec<(String, PeerResults)>,
}

/// Reads files, and of folders all JSON files that are results of either kind.
///
/// # Errors
/// If one cannot be read, or is of another format.
pub fn read(paths: &[PathBuf]) -> Result<Kept> {
    let mut kept = Kept::default();
    for path in paths {
        if !path.is_dir() {
            kept.add(path)?;
            continue;
        }
        let io = |source| Error::Io { path: path.clone(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            files.push(entry.map_err(io)?.path());
        }
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
            if kind(file)?.is_some() {
                kept.add(file)?;
            }
        }
    }
    Ok(kept)
}

enum Kind {
    Results,
    Races,
}

/// What a JSON file is, by the number of its format.
fn kind(path: &Path) -> Result<Option<Kind>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| Error::Format { path: path.to_owned(), message: error.to_string() })?;
    Ok(match (value.get("peer_format"), value.get("format")) {
        (Some(_), _) => Some(Kind::Races),
        (_, Some(_)) => Some(Kind::Results),
        _ => None,
    })
}

impl Kept {
    fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        match kind(path)? {
            Some(Kind::Races) => self.races.push((name, peers::read(path)?)),
            Some(Kind::Results) => self.results.push((name, json::read(path)?)),
            None => {
                return Err(Error::Format {
                    path: path.to_owned(),
                    message: "neither results of aquatint bench nor of benches/peers/run.sh".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Devices in the order of their names, each with all that was measured on it.
    fn devices(&self) -> BTreeMap<[String; 3], Device<'_>> {
        let key = |m: &Machine| {
            [m.adapter.name.clone(), m.adapter.driver.clone(), format!("{}, {} threads", m.cpu, m.cores)]
        };
        let mut all: BTreeMap<_, Device> = BTreeMap::new();
        for (file, results) in &self.results {
            all.entry(key(&results.machine)).or_default().results.push((file, results));
        }
        for (file, races) in &self.races {
            all.entry(key(&races.machine)).or_default().races.push((file, races));
        }
        for device in all.values_mut() {
            device.results.sort_by(|a, b| (&b.1.started, a.0).cmp(&(&a.1.started, b.0)));
        }
        all
    }
}

#[derive(Default)]
struct Device<'a> {
    /// The newest first.
    results: Vec<(&'a String, &'a Results)>,
    races: Vec<(&'a String, &'a PeerResults)>,
}

const OPENING: &str = "\
# Performance

What was measured, by device. This file is generated out of the JSON files in [benches/results](../benches/results):

```
aquatint bench --suite standard --json benches/results/NAME.json   # rows of one device (docs/benchmark.md)
benches/peers/run.sh --output benches/results/NAME-peers.json      # the same work in other engines, in turns with ours
aquatint bench ledger benches/results --output docs/performance.md
```

Time is the median of a run, from before its submission until its end is known or, where the device has a clock of its own, by that. FLOP count the
operation's definition (a multiply-add is two), whatever the method, so that a method that multiplies less can pass the limit.
Bytes are those of all tensors that kernels read or write, each counted once a kernel. The limit is the one of the measured limits
that would take longest; the share says how much of it is reached. No time stands here whose answer was not held against float64 first.
";

/// The whole ledger.
pub fn render(kept: &Kept) -> String {
    let mut text = OPENING.to_owned();
    for ([name, driver, cpu], device) in kept.devices() {
        let _ = writeln!(text, "\n## {}\n\nDriver {}; {}.", cell(&name), cell(&driver), cell(&cpu));
        let machine = device.results.first().map(|(_, results)| &results.machine);
        if machine
            .or(device.races.first().map(|(_, races)| &races.machine))
            .is_some_and(|m| m.adapter.software)
        {
            text.push_str(
                "A software adapter: it computes on the CPU, and these times say nothing about a GPU.\n",
            );
        }
        device.write_rows(&mut text);
        for (file, results) in &device.races {
            let _ = write!(text, "\n### Beside other engines\n\n`{file}`. ");
            text.push_str(&races(results));
        }
    }
    text
}

impl Device<'_> {
    /// Each row as it was measured last.
    fn write_rows(&self, text: &mut String) {
        if self.results.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n| file | measured | aquatint | suite | clock |\n|---|---|---|---|---|");
        for (file, results) in &self.results {
            let program = &results.program;
            let _ = writeln!(
                text,
                "| `{file}` | {} | {} ({}), {} | {} | {} |",
                day(&results.started),
                program.version,
                program.git.as_deref().unwrap_or("no repository"),
                program.profile,
                results.settings.suite,
                results.clock.source.name(),
            );
        }
        let limits: Vec<String> = cells::limits(&self.results[0].1.roof)
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value.ok()?)))
            .collect();
        let _ = writeln!(text, "\nMeasured limits: {}.", limits.join(", "));
        for group in [Group::Network, Group::Diffusion, Group::Kernel] {
            let mut rows: Vec<(&Row, &Results)> = Vec::new();
            for (_, results) in &self.results {
                for row in
                    results.rows.iter().filter(|row| row.group == group && row.status != Status::Skipped)
                {
                    if !rows.iter().any(|(known, _)| known.id == row.id) {
                        rows.push((row, results));
                    }
                }
            }
            if rows.is_empty() {
                continue;
            }
            let title = match group {
                Group::Network => "Networks",
                Group::Diffusion => "Diffusion",
                Group::Kernel => "Kernels",
            };
            let _ = writeln!(
                text,
                "\n### {title}\n\n| | type | batch | time | | FLOP/s | B/s | limit | measured |\n|---|---|--:|--:|--:|--:|--:|---|---|"
            );
            for (row, results) in rows {
                let time = match row.status {
                    Status::Ok | Status::Unstable => cells::time(row),
                    status => format!("**{}**", status.name()),
                };
                let unstable = if row.status == Status::Unstable { ", unstable" } else { "" };
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {time} | {}{unstable} | {} | {} | {} | {} |",
                    cell(&row.title),
                    row.precision,
                    row.batch,
                    cells::precision(row),
                    cells::flops(row),
                    cells::bandwidth(row),
                    cells::share(row),
                    day(&results.started),
                );
            }
        }
    }
}

/// `2026-11-25` of `2026-11-25T21:57:14Z`.
fn day(moment: &str) -> &str {
    moment.split('T').next().unwrap_or(moment)
}

/// What races found: who took part, ratios, times, and why something has none.
pub fn races(results: &PeerResults) -> String {
    let mut text = String::from(
        "Each engine computes the same from the same numbers; its answer is held against the reference that ours is held \
         against, and only then timed, in turns with ours. \
         A ratio is the engine's median over ours of the same race: above 1 we are faster.\n\n\
         | | engine | runs on | a run | measured | aquatint |\n|---|---|---|---|---|---|\n",
    );
    for (key, peer) in &results.peers {
        let run = if peer.transfers { "with transfers" } else { "resident" };
        let _ = writeln!(
            text,
            "| {key} | {} | {} | {run} | {} | {} ({}), {} |",
            cell(&peer.name),
            cell(&peer.runs_on),
            day(&peer.started),
            peer.program.version,
            peer.program.git.as_deref().unwrap_or("no repository"),
            peer.program.profile,
        );
    }
    text.push_str(
        "\nWith transfers: the engine knows no run without the way of the input to the device and of the output back, so that ours is timed with \
         them too. Resident: input and output stay where they are. \
         ~ stands before a ratio where the median of either is known to no better than ±15 %: others used the machine.\n\n",
    );
    write_ratios(results, &mut text);
    write_times(results, &mut text);
    write_reasons(results, &mut text);
    text
}

fn write_ratios(results: &PeerResults, text: &mut String) {
    let keys: Vec<&str> = results.peers.keys().map(String::as_str).collect();
    let _ = writeln!(text, "| | ours | FLOP/s | B/s | limit | {} |", keys.join(" | "));
    let _ = writeln!(text, "|---|--:|--:|--:|---|{}", "--:|".repeat(keys.len()));
    for item in &results.items {
        let [time, flops, bytes, share] = own_cells(results, item);
        let ratios: Vec<String> = results.peers.values().map(|peer| ratio(peer.rows.get(&item.id))).collect();
        let title = cell(&item.title);
        let _ = writeln!(text, "| {title} | {time} | {flops} | {bytes} | {share} | {} |", ratios.join(" | "));
    }
    for (group, name) in [(Group::Kernel, "kernels"), (Group::Network, "networks")] {
        let means: Vec<String> = results.peers.values().map(|peer| mean(results, peer, group)).collect();
        let _ = writeln!(text, "| *geometric mean, {name}* | | | | | {} |", means.join(" | "));
    }
}

/// Our time of an item and how near it comes to the limits. Where it was timed with transfers alone, that time.
fn own_cells(results: &PeerResults, item: &ItemRecord) -> [String; 4] {
    let median = |transfers: bool| {
        let peers = results.peers.values().filter(|peer| peer.transfers == transfers);
        let mut all: Vec<f64> =
            peers.filter_map(|peer| Some(peer.rows.get(&item.id)?.ours?.median)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let none = || cells::NONE.to_owned();
    let Some(seconds) = median(false).or_else(|| median(true)) else {
        return [none(), none(), none(), none()];
    };
    let Rates { flops, bytes, bound, share } =
        roof::rates(&results.roof, item.flops, item.bytes, "f32", seconds);
    [
        units::seconds(seconds),
        flops.map_or_else(none, |rate| units::si(rate, "FLOP/s")),
        bytes.map_or_else(none, |rate| units::si(rate, "B/s")),
        share
            .zip(bound)
            .map_or_else(none, |(share, bound)| format!("{:.0} % of {}", 100.0 * share, bound.name())),
    ]
}

fn ratio(row: Option<&PeerRow>) -> String {
    match row {
        None => cells::NONE.to_owned(),
        Some(row @ PeerRow { ratio: Some(ratio), .. }) => {
            let unsteady = [&row.ours, &row.theirs].into_iter().flatten().any(|s| s.precision() > STEADY);
            format!("{}{}", if unsteady { "~" } else { "" }, number(*ratio))
        }
        Some(row) => row.status.name().to_owned(),
    }
}

/// Half the width of a median's interval, as a part of it, above which a ratio is marked.
const STEADY: f64 = 0.15;

/// Two digits, three from 10.
fn number(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 9.95 => format!("{ratio:.0}"),
        _ if ratio >= 0.995 => format!("{ratio:.1}"),
        _ => format!("{ratio:.2}"),
    }
}

/// Of the ratios that there are, with their number.
fn mean(results: &PeerResults, peer: &PeerRecord, group: Group) -> String {
    let items = results.items.iter().filter(|item| item.group == group);
    let logarithms: Vec<f64> = items.filter_map(|item| Some(peer.rows.get(&item.id)?.ratio?.ln())).collect();
    match logarithms.len() {
        0 => cells::NONE.to_owned(),
        n => format!("{} ({n})", number((logarithms.iter().sum::<f64>() / n as f64).exp())),
    }
}

/// Times of each race, ours and the engine's.
fn write_times(results: &PeerResults, text: &mut String) {
    let keys: Vec<&str> = results.peers.keys().map(String::as_str).collect();
    let _ = writeln!(
        text,
        "\nTimes of the engines, in brackets ours of the same race, in ms:\n\n| | {} |",
        keys.join(" | ")
    );
    let _ = writeln!(text, "|---|{}", "--:|".repeat(keys.len()));
    for item in &results.items {
        let times: Vec<String> = results
            .peers
            .values()
            .map(|peer| {
                let row = peer.rows.get(&item.id);
                let both = row.and_then(|row| Some((row.theirs?.median, row.ours?.median)));
                both.map_or_else(String::new, |(theirs, ours)| {
                    format!("{} ({})", milliseconds(theirs), milliseconds(ours))
                })
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", cell(&item.title), times.join(" | "));
    }
}

fn milliseconds(seconds: f64) -> String {
    match seconds * 1e3 {
        ms if ms >= 99.95 => format!("{ms:.0}"),
        ms if ms >= 9.995 => format!("{ms:.1}"),
        ms => format!("{ms:.2}"),
    }
}

fn write_reasons(results: &PeerResults, text: &mut String) {
    let mut reasons = Vec::new();
    for (key, peer) in &results.peers {
        for item in &results.items {
            if let Some(PeerRow { status, reason: Some(reason), .. }) = peer.rows.get(&item.id) {
                reasons.push(format!("- {key}, {}: {}: {}", item.id, status.name(), cell(reason)));
            }
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(text, "\n{}", reasons.join("\n"));
    }
}
