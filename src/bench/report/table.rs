//! A table for the terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::cells;
use crate::bench::record::{Results, Status};

/// Machine, limits and all rows.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    for warning in cells::warnings(results) {
        let _ = writeln!(text, "WARNING: {warning}");
    }
    for (name, value) in cells::facts(results) {
        let _ = writeln!(text, "{name:9} {value}");
    }
    let limits: Vec<String> = cells::limits(&results.roof)
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.ok()?)))
        .collect();
    if !limits.is_empty() {
        let _ = writeln!(text, "limits    {}", limits.join(", "));
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["row", "status", "time", "", "FLOP/s", "B/s", "limit", "error"]);
    for row in &results.rows {
        table.add_row([
            row.id.clone(),
            row.status.name().to_owned(),
            cells::time(row),
            cells::precision(row),
            cells::flops(row),
            cells::bandwidth(row),
            cells::share(row),
            row.check.as_ref().map_or_else(|| cells::NONE.to_owned(), cells::error),
        ]);
    }
    for column in [2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let _ = writeln!(text, "{table}");
    for row in results.rows.iter().filter(|row| row.status != Status::Ok) {
        if let Some(reason) = &row.reason {
            let _ = writeln!(text, "{} {}: {reason}", row.status.name(), row.id);
        }
    }
    let _ = writeln!(text, "{}", cells::counted(results));
    text
}
