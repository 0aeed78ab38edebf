//! Markdown, for issues and pull requests.

use std::fmt::Write;

use super::cells;
use crate::bench::record::{Results, Status};

pub fn render(results: &Results) -> String {
    let mut text = String::from("# Benchmark\n\n");
    for warning in cells::warnings(results) {
        let _ = writeln!(text, "> **Warning:** {}\n", cell(&warning));
    }
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in cells::facts(results) {
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
    for (name, value) in cells::limits(&results.roof) {
        let value = value.unwrap_or_else(|reason| format!("{} ({reason})", cells::NONE));
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
    let _ = writeln!(text, "\n{}.\n", cells::counted(results));
    text.push_str(
        "| row | status | time | | FLOP/s | B/s | limit | error |\n|---|---|--:|--:|--:|--:|---|---|\n",
    );
    for row in &results.rows {
        let error = row.check.as_ref().map_or_else(|| cells::NONE.to_owned(), cells::error);
        let status = match row.status {
            Status::Wrong | Status::Error => format!("**{}**", row.status.name()),
            _ => row.status.name().to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {status} | {} | {} | {} | {} | {} | {error} |",
            cell(&row.id),
            cells::time(row),
            cells::precision(row),
            cells::flops(row),
            cells::bandwidth(row),
            cells::share(row),
        );
    }
    let reasons: Vec<String> = results
        .rows
        .iter()
        .filter(|row| row.status != Status::Ok)
        .filter_map(|row| {
            Some(format!("- {} `{}`: {}", row.status.name(), cell(&row.id), cell(row.reason.as_ref()?)))
        })
        .collect();
    if !reasons.is_empty() {
        let _ = writeln!(text, "\n{}", reasons.join("\n"));
    }
    text
}

/// Text that stays within a cell of a table and is no HTML.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}
