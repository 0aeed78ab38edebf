//! What two runs say of each other, for the terminal, as Markdown and as JSON.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::cells::NONE;
use super::markdown::cell;
use crate::bench::compare::{Compared, Comparison, Outcome, Side};
use crate::bench::verdict::Basis;
use crate::units;

const HEADER: [&str; 6] = ["row", "verdict", "baseline", "now", "time", "95 % interval"];

/// For the terminal. Rows that are the same are counted, not listed, unless all are asked for.
pub fn table(comparison: &Comparison, all: bool) -> String {
    let mut text = String::new();
    for difference in &comparison.differences {
        let loud = if difference.grave { "DIFFERENT " } else { "different " };
        let what = if difference.grave { difference.what.to_uppercase() } else { difference.what.to_owned() };
        let _ = writeln!(text, "{loud}{what}: {} → {}", difference.baseline, difference.other);
    }
    if comparison.differences.iter().any(|d| d.grave) {
        text.push_str("These runs are not of the same thing: what differs in time may come from that.\n");
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{}", precision(comparison));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(HEADER);
    let listed = |row: &&Compared| all || !matches!(row.outcome, Outcome::Same | Outcome::Untimed);
    let rows: Vec<&Compared> = sorted(comparison).into_iter().filter(listed).collect();
    for row in &rows {
        table.add_row(line(row));
    }
    for column in [2, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if !rows.is_empty() {
        let _ = writeln!(text, "{table}");
    }
    for (row, reason) in rows.iter().filter_map(|row| Some((row, reason(row)?))) {
        let _ = writeln!(text, "{} {}: {reason}", row.outcome.name(), row.id);
    }
    let _ = writeln!(text, "{}", counted(comparison));
    text
}

pub fn markdown(comparison: &Comparison) -> String {
    let mut text = String::from("# Comparison\n\n");
    for difference in &comparison.differences {
        let mark = if difference.grave { "**" } else { "" };
        let (a, b) = (cell(&difference.baseline), cell(&difference.other));
        let _ = writeln!(text, "- {mark}different {}: {a} → {b}{mark}", difference.what);
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "- {}", cell(note));
    }
    let _ = writeln!(text, "- {}\n- {}\n", precision(comparison), counted(comparison));
    let _ = writeln!(text, "| {} | |\n|---|---|--:|--:|--:|---|---|", HEADER.join(" | "));
    for row in sorted(comparison) {
        let [id, verdict, rest @ ..] = line(row);
        let mark = if matches!(row.outcome, Outcome::Same | Outcome::Untimed) { "" } else { "**" };
        let reason = reason(row).map_or_else(String::new, |reason| cell(&reason));
        let _ =
            writeln!(text, "| `{}` | {mark}{verdict}{mark} | {} | {reason} |", cell(&id), rest.join(" | "));
    }
    text
}

/// What differences can be told.
fn precision(comparison: &Comparison) -> String {
    let [threshold, resolution] = [comparison.threshold, comparison.resolution].map(|p| 100.0 * p);
    let mut text = format!("differences of {threshold:.1} % and more are of interest");
    if resolution > threshold {
        text.push_str(&format!(
            "; the rows of these runs scatter so much that less than {resolution:.1} % is the same"
        ));
    }
    if let Some(clock) = comparison.clock.filter(|clock| clock.ln().abs() > 0.01) {
        let way = if clock > 1.0 { "slower" } else { "faster" };
        text.push_str(&format!("; the canary ran {:.1} % {way}", 100.0 * (clock - 1.0).abs()));
    }
    text
}

pub fn counted(comparison: &Comparison) -> String {
    let counts: Vec<String> = comparison
        .counts()
        .iter()
        .map(|(outcome, n)| match outcome {
            Outcome::Untimed => format!("{n} not timed in either"),
            _ => format!("{n} {}", outcome.name()),
        })
        .collect();
    let excused = comparison.rows.iter().filter(|row| row.expected || row.flaky).count();
    let excused = if excused > 0 { format!("; {excused} on lists") } else { String::new() };
    format!("{}{excused}", counts.join(", "))
}

/// The worst first, and the largest changes among the same outcomes.
fn sorted(comparison: &Comparison) -> Vec<&Compared> {
    let mut rows: Vec<&Compared> = comparison.rows.iter().collect();
    let place = |row: &Compared| Outcome::ALL.iter().position(|o| *o == row.outcome);
    let change = |row: &Compared| row.judgement.as_ref().map_or(0.0, |j| -j.ratio.ln().abs());
    rows.sort_by(|a, b| place(a).cmp(&place(b)).then(change(a).total_cmp(&change(b))));
    rows
}

fn line(row: &Compared) -> [String; 6] {
    let side = |side: Side| match (side.seconds, side.status) {
        (Some(seconds), _) => units::seconds(seconds),
        (None, Some(status)) => status.name().to_owned(),
        (None, None) => NONE.to_owned(),
    };
    let mut verdict = row.outcome.name().to_owned();
    if row.expected {
        verdict.push_str(" (expected)");
    } else if row.flaky {
        verdict.push_str(" (flaky)");
    }
    if row.judgement.as_ref().is_some_and(|judgement| judgement.basis == Basis::Fastest) {
        verdict.push_str(" (fastest)");
    }
    let (change, interval) = match &row.judgement {
        Some(j) => (signed(j.ratio), format!("{} to {}", signed(j.interval[0]), signed(j.interval[1]))),
        None => (NONE.to_owned(), NONE.to_owned()),
    };
    [row.id.clone(), verdict, side(row.baseline), side(row.other), change, interval]
}

/// A ratio of times as a difference: `+4.2 %` took longer.
fn signed(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 10.0 => format!("×{ratio:.0}"),
        _ => format!("{:+.1} %", 100.0 * (ratio - 1.0)),
    }
}

fn reason(row: &Compared) -> Option<String> {
    let doubt = row.judgement.as_ref().and_then(|j| j.reason.clone());
    match row.outcome {
        Outcome::Ambiguous => doubt,
        Outcome::Wrong | Outcome::Broken | Outcome::Missing => row.reason.clone(),
        _ => None,
    }
}
