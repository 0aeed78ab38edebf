//! One page with everything: no script, nothing fetched, light and dark.

use std::fmt::Write;

use super::{cells, plots};
use crate::bench::record::{Group, LimitKind, Results, Row, Status};
use crate::bench::statistics::Outliers;
use crate::units;

const STYLE: &str = include_str!("page.css");

pub fn render(results: &Results) -> String {
    let mut page = String::new();
    let device = escape(&results.machine.adapter.name);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>aquatint bench: {device}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    top(&mut page, results);
    roofline(&mut page, results);
    rows(&mut page, results);
    distributions(&mut page, results);
    kernels(&mut page, results);
    canary(&mut page, results);
    errors(&mut page, results);
    let command = escape(&results.program.command.join(" "));
    let _ = write!(page, "<footer>{command}</footer>\n</main>\n</body>\n</html>\n");
    page
}

fn top(page: &mut String, results: &Results) {
    let adapter = &results.machine.adapter;
    let _ = writeln!(page, "<h1>{}</h1>", escape(&adapter.name));
    let about = format!(
        "aquatint {} bench, {} suite, {}",
        results.program.version, results.settings.suite, results.started
    );
    let _ = writeln!(page, "<p class=\"lead\">{}</p>", escape(&about));
    for warning in cells::warnings(results) {
        let loud = if warning.starts_with("software") { " software" } else { "" };
        let _ =
            writeln!(page, "<p class=\"warning{loud}\" role=\"alert\">{}</p>", escape(&capital(&warning)));
    }
    page.push_str("<div class=\"tiles\">\n");
    for (status, count) in cells::counts(results) {
        let name = status.name();
        let _ = writeln!(page, "<div class=\"{name}\"><b>{count}</b><span>{name}</span></div>");
    }
    for (kind, name) in [
        (LimitKind::F32Arithmetic, "f32, measured"),
        (LimitKind::F16Arithmetic, "f16, measured"),
        (LimitKind::CopyBandwidth, "copy, measured"),
    ] {
        if let Some(value) = results.roof.value(kind) {
            let _ = writeln!(page, "<div><b>{}</b><span>{name}</span></div>", kind.value(value));
        }
    }
    page.push_str("</div>\n<dl class=\"facts\">\n");
    for (name, value) in cells::facts(results) {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    }
    for (name, value) in cells::limits(&results.roof) {
        let _ = match value {
            Ok(value) => writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value)),
            Err(reason) => {
                writeln!(page, "<div><dt>{name}</dt><dd class=\"none\">– {}</dd></div>", escape(&reason))
            }
        };
    }
    page.push_str("</dl>\n");
}

fn roofline(page: &mut String, results: &Results) {
    let Some(plot) = plots::roofline(results) else { return };
    section(
        page,
        "Roofline",
        "Every row by the work that it does per byte and per second, under the limits measured on this device by kernels that do \
         nothing else. Numbers are those of the rows below. A row far under the roof waits for something else: launches, \
         latency, a lack of work. One above the slope finds its data in a cache.",
    );
    page.push_str(
        "<ul class=\"key\"><li style=\"color:var(--f32)\"><i></i>f32</li><li style=\"color:var(--f16)\"><i></i>f16</li>\
         <li>● kernel</li><li>▲ network</li><li>■ diffusion</li></ul>\n",
    );
    let _ = writeln!(page, "{plot}");
}

fn rows(page: &mut String, results: &Results) {
    section(
        page,
        "Rows",
        "Times are medians of one run, with half the width of their 95 % interval. The limit is the one that would take longest \
         for this work, and the share of it that the row reaches. The error is the largest one over the largest number of the \
         reference.",
    );
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th class=\"n\">#</th><th>row</th><th>status</th><th class=\"n\">time</th>\
         <th class=\"n\"></th><th class=\"n\">FLOP/s</th><th class=\"n\">B/s</th><th>limit</th><th>error</th>\
         <th class=\"n\">memory</th><th class=\"n\">first answer</th></tr></thead>\n<tbody>\n",
    );
    for group in Group::ALL {
        let mut numbered = results.rows.iter().enumerate().filter(|(_, row)| row.group == group).peekable();
        if numbered.peek().is_some() {
            let _ =
                writeln!(page, "<tr class=\"group\"><th colspan=\"11\">{}</th></tr>", capital(group.name()));
        }
        for (i, row) in numbered {
            row_line(page, i + 1, row);
        }
    }
    page.push_str("</tbody></table></div>\n");
}

fn row_line(page: &mut String, number: usize, row: &Row) {
    let status = row.status.name();
    let name = format!("{}<span class=\"id\">{}</span>", escape(&row.title), escape(&row.id));
    let _ = write!(
        page,
        "<tr class=\"{}\"><td class=\"n\">{number}</td><td>{name}</td><td><span class=\"status {status}\">{status}</span></td>",
        escape(&row.precision)
    );
    let error = row.check.as_ref().map_or_else(|| cells::NONE.to_owned(), cells::error);
    if row.times.is_none() {
        let reason = escape(row.reason.as_deref().unwrap_or(cells::NONE));
        let _ = writeln!(
            page,
            "<td class=\"wide reason\" colspan=\"5\">{reason}</td><td>{}</td><td></td><td></td></tr>",
            escape(&error)
        );
        return;
    }
    let share = row.rates.and_then(|r| r.share.zip(r.bound));
    let limit = share.map_or_else(
        || cells::NONE.to_owned(),
        |(share, bound)| {
            let width = (100.0 * share).clamp(0.0, 100.0);
            format!(
                "<span class=\"meter\"><i style=\"width:{width:.0}%\"></i></span>{:.0} % {}",
                100.0 * share,
                bound.name()
            )
        },
    );
    let memory = row.memory.map_or_else(|| cells::NONE.to_owned(), |m| units::bytes(m.held));
    let start = row.start.map_or_else(
        || cells::NONE.to_owned(),
        |s| units::seconds(s.plan + s.compile + s.load + s.first_run),
    );
    let _ = writeln!(
        page,
        "<td class=\"n\">{}</td><td class=\"n reason\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{limit}</td>\
         <td>{}</td><td class=\"n\">{memory}</td><td class=\"n\">{start}</td></tr>",
        cells::time(row),
        cells::precision(row),
        cells::flops(row),
        cells::bandwidth(row),
        escape(&error),
    );
}

fn distributions(page: &mut String, results: &Results) {
    let strips: Vec<(&Row, String)> =
        results.rows.iter().filter_map(|row| Some((row, plots::strip(row)?))).collect();
    if strips.is_empty() {
        return;
    }
    let about = format!(
        "Samples over their median, which is the line in the middle; the box holds the middle half. The ends are {:.0} % faster \
         and slower, marks at an end lie beyond it. Drift is the last third over the first; outliers are further from the \
         quartiles than 1.5 times the distance of these.",
        100.0 * plots::STRIP_REACH
    );
    section(page, "Distributions", &about);
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>row</th><th>samples</th><th class=\"n\">number</th>\
         <th class=\"n\">median</th><th class=\"n\">MAD</th><th class=\"n\">p95</th><th class=\"n\">drift</th>\
         <th class=\"n\">outliers</th><th class=\"n\">encode</th><th>stopped</th></tr></thead>\n<tbody>\n",
    );
    for (row, strip) in strips {
        let Some(times) = &row.times else { continue };
        let outliers = Outliers::of(&times.samples);
        let doubt = match (row.status, &row.reason) {
            (Status::Unstable, Some(reason)) => format!("<span class=\"id\">{}</span>", escape(reason)),
            _ => String::new(),
        };
        let _ = writeln!(
            page,
            "<tr><td>{}{doubt}</td><td>{strip}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1} %</td>\
             <td class=\"n\">{:+.1} %</td><td class=\"n\">{:+.1} %</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&row.id),
            times.main.n,
            cells::time(row),
            100.0 * times.main.mad / times.main.median,
            100.0 * (times.main.p95 / times.main.median - 1.0),
            100.0 * times.drift,
            outliers.low + outliers.high,
            units::seconds(times.encode.median),
            times.stopped.name(),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn kernels(page: &mut String, results: &Results) {
    let named = plots::named_kernels(results);
    let bars: Vec<(&Row, String)> = results
        .rows
        .iter()
        .filter(|row| row.group != Group::Kernel)
        .filter_map(|row| Some((row, plots::kernel_bar(row, &named)?)))
        .collect();
    if bars.is_empty() {
        return;
    }
    section(
        page,
        "Where the time goes",
        "Parts of a run by kernel. What is left empty is no kernel's: gaps between launches, copies, waiting.",
    );
    page.push_str("<ul class=\"key\">");
    for (i, name) in named.iter().enumerate() {
        let _ = write!(page, "<li><i style=\"background:var(--part{i})\"></i>{}</li>", escape(name));
    }
    page.push_str("<li><i style=\"background:var(--part6)\"></i>others</li></ul>\n<div class=\"scroll\"><table>\n<tbody>\n");
    for (row, bar) in bars {
        let parts: Vec<String> =
            row.parts.iter().map(|p| format!("{} {}", escape(&p.name), units::seconds(p.seconds))).collect();
        let parts = match parts.is_empty() {
            true => String::new(),
            false => format!("<span class=\"id\">{}</span>", parts.join(", ")),
        };
        let id = escape(&row.id);
        let _ = writeln!(
            page,
            "<tr><td>{id}{parts}</td><td>{bar}</td><td class=\"n\">{}</td></tr>",
            cells::time(row)
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn canary(page: &mut String, results: &Results) {
    let Some(plot) = plots::canary(&results.canary) else { return };
    section(
        page,
        "Canary",
        "One short kernel, timed after every row, against its median. It always does the same: where it rises, the device has \
         become slower, by heat or by somebody else's work, and so have the rows beside it.",
    );
    let _ = writeln!(page, "{plot}");
}

fn errors(page: &mut String, results: &Results) {
    if results.errors.is_empty() {
        return;
    }
    section(
        page,
        "Exactness",
        "How far operations are from the exact result on this device, in units in the last place (ULP) of the precision in \
         which it is stored, and over the largest number of the result.",
    );
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>operation</th><th>precision</th><th class=\"n\">elements</th>\
         <th class=\"n\">mean ULP</th><th class=\"n\">largest ULP</th><th class=\"n\">largest error</th></tr></thead>\n<tbody>\n",
    );
    for error in &results.errors {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.1}</td>\
             <td class=\"n\">{:.1e}</td></tr>",
            escape(&error.operation),
            escape(&error.precision),
            units::thousands(error.elements),
            error.mean_ulp,
            error.max_ulp,
            error.max_rel,
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn section(page: &mut String, title: &str, about: &str) {
    let _ = writeln!(page, "<h2>{title}</h2>\n<p>{}</p>", escape(about));
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text that is no markup, within elements and within attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
