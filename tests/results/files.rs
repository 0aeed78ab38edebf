//! Forms of results: what is written can be read, what cannot be is refused, and nothing is made up.

use aquatint::bench::record::{FORMAT, Results, Status};
use aquatint::bench::report::{csv, html, json, junit, markdown, table};
use aquatint::bench::synthetic::{Device, Noise, results};

fn discrete() -> Results {
    results(Device::Discrete, 1, Noise::default())
}

/// Whether two values are the same but for the last bits of their numbers.
fn alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(x), Number(y)) => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            (x - y).abs() <= 1e-15 * x.abs().max(y.abs())
        }
        (Array(x), Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| alike(x, y)),
        (Object(x), Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| alike(v, w)))
        }
        _ => a == b,
    }
}

#[test]
fn json_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let written = discrete();
    json::write(&path, &written).unwrap();
    let read = json::read(&path).unwrap();
    let value = |results: &Results| serde_json::to_value(results).unwrap();
    assert!(alike(&value(&written), &value(&read)));
    // Nothing but the file is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn other_formats_are_told_what_to_do() {
    let text = json::to_string(&discrete());
    let with_format =
        |format: u32| text.replacen(&format!("\"format\": {FORMAT}"), &format!("\"format\": {format}"), 1);
    let refused = |text: &str| json::parse(text).unwrap_err();
    let newer = refused(&with_format(FORMAT + 1));
    assert!(newer.contains("format 2") && newer.contains("newer aquatint"), "{newer}");
    let older = refused(&with_format(0));
    assert!(older.contains("format 0") && older.contains("measure again"), "{older}");
    // A newer format is told by its number, whatever else it has.
    assert_eq!(refused("{\"format\": 2, \"rows\": 7}"), newer);
    for text in ["", "[]", "{}", "{\"format\": \"1\"}", "not json"] {
        assert!(refused(text).starts_with("no results of aquatint bench: "), "{text}");
    }
    let message = refused("{\"format\": 1}");
    assert!(message.starts_with("damaged results: missing field"), "{message}");
    let path = std::path::Path::new("/nonexistent/results.json");
    assert!(matches!(json::read(path), Err(aquatint::Error::Io { .. })));
}

#[test]
fn what_cannot_be_is_refused() {
    type Spoil = fn(&mut Results);
    let cases: [(&str, Spoil); 6] = [
        ("two rows are called", |r| r.rows[1].id = r.rows[0].id.clone()),
        ("it is ok and has no times", |r| r.rows[0].times = None),
        ("it is wrong and has times", |r| r.rows[0].status = Status::Wrong),
        ("a time of NaN s", |r| r.rows[0].times.as_mut().unwrap().main.median = f64::NAN),
        ("a time of -1 s", |r| r.rows[0].times.as_mut().unwrap().samples[0] = -1.0),
        ("samples, and a summary of", |r| r.rows[0].times.as_mut().unwrap().samples.truncate(2)),
    ];
    for (wanted, spoil) in cases {
        let mut spoilt = discrete();
        spoil(&mut spoilt);
        let message = json::check(&spoilt).unwrap_err();
        assert!(message.contains(wanted), "{wanted}: {message}");
        let folder = tempfile::tempdir().unwrap();
        assert!(json::write(folder.path().join("r.json"), &spoilt).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{wanted}: nothing is written");
    }
}

/// `UPDATE_SCHEMA=1 cargo test --test results` writes it anew.
#[test]
fn the_schema_in_the_repository_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bench.schema.json");
    let current = format!("{:#}\n", json::schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), current, "docs/bench.schema.json is stale");
}

#[test]
fn csv_has_a_line_a_row_and_nothing_for_what_was_not_measured() {
    let results = discrete();
    let text = csv::render(&results);
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(lines.count(), results.rows.len());
    let column = header.iter().position(|&name| name == "median_s").unwrap();
    assert!(text.contains("0.31"), "errors of wrong rows are there");
    for (line, row) in text.lines().skip(1).zip(&results.rows).filter(|(line, _)| !line.contains('"')) {
        let cell = line.split(',').nth(column).unwrap();
        match &row.times {
            Some(times) => assert_eq!(cell.parse(), Ok(times.main.median), "{line}"),
            None => assert_eq!(cell, "", "{line}"),
        }
    }
}

#[test]
fn tables_name_every_row_and_every_reason() {
    let results = discrete();
    for text in [table::render(&results), markdown::render(&results), html::render(&results)] {
        for row in &results.rows {
            // A narrow terminal breaks names.
            let last = row.id.rsplit('/').nth(2).unwrap();
            assert!(text.contains(last), "{} is missing", row.id);
        }
        assert!(text.contains("the device has no EXPERIMENTAL_COOPERATIVE_MATRIX"), "{text}");
        assert!(!text.contains("0.00 FLOP/s"), "what was not measured is no zero");
    }
}

#[test]
fn a_software_adapter_is_called_one_everywhere() {
    let (software, hardware) = (results(Device::Software, 1, Noise::default()), discrete());
    for render in [table::render, markdown::render, html::render] {
        assert!(render(&software).to_lowercase().contains("software adapter: "));
        assert!(!render(&hardware).to_lowercase().contains("software adapter: "));
    }
    assert!(csv::render(&software).contains(",true,vulkan,"));
}

#[test]
fn junit_counts_failures_errors_and_skips() {
    let results = discrete();
    let text = junit::render(&results);
    let count = |status: Status| results.rows.iter().filter(|row| row.status == status).count();
    let skipped = count(Status::Unsupported) + count(Status::Skipped);
    assert!(count(Status::Wrong) > 0 && count(Status::Error) > 0 && skipped > 0);
    assert_eq!(text.matches("<failure").count(), count(Status::Wrong));
    assert_eq!(text.matches("<error").count(), count(Status::Error));
    assert_eq!(text.matches("<skipped").count(), skipped);
    assert_eq!(text.matches("<testcase").count(), results.rows.len());
    assert!(text.contains("timestamp=\"2026-01-31T12:00:00"), "{text}");
}

/// The page fetches nothing, runs nothing, and takes no markup out of names that others gave.
#[test]
fn the_page_stands_alone() {
    let mut results = discrete();
    results.machine.adapter.name = "<script>alert(1)</script>".to_owned();
    results.rows[0].title = "\"><img src=x>".to_owned();
    results.rows[0].kernels[0].kernel = "<b>".to_owned();
    let page = html::render(&results);
    for never in ["<script", "<img", "<link", "url(", "@import", "<b>&lt;", "NaN", "inf"] {
        let found = page.find(never).map(|at| &page[at.saturating_sub(60)..at + 20]);
        assert_eq!(found, None, "{never}");
    }
    for outside in page.match_indices("http") {
        let rest = &page[outside.0..];
        assert!(rest.starts_with("http://www.w3.org/2000/svg"), "{}", &rest[..40]);
    }
    for section in ["Roofline", "Rows", "Distributions", "Where the time goes", "Canary", "Exactness"] {
        assert!(page.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    // Every stand-in for a colour became a variable of the style sheet that the sheet has.
    assert!(!page.contains("\"#0"), "a colour was left");
    for variable in page.split("\"var(--").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert_eq!(page.matches(&format!("--{variable}: ")).count(), 2, "{variable}, light and dark");
    }
}

/// Whatever is missing from a run, or strange in it, a report can be made of the rest.
#[test]
fn poor_results_make_a_page_too() {
    let mut empty = discrete();
    empty.rows.clear();
    empty.canary.clear();
    empty.errors.clear();
    empty.roof.limits.clear();
    let mut odd = discrete();
    odd.rows.truncate(1);
    odd.canary.truncate(1);
    let row = &mut odd.rows[0];
    (row.flops, row.bytes, row.reason) = (Some(0), Some(0), Some("a\nb | c".to_owned()));
    if let Some(times) = &mut row.times {
        for samples in [&mut times.samples, &mut times.wall_samples, &mut times.encode_samples] {
            samples.clear();
        }
    }
    for results in [empty, odd] {
        json::check(&results).unwrap();
        for render in [table::render, markdown::render, html::render, junit::render] {
            assert!(!render(&results).is_empty());
        }
        assert!(csv::render(&results).lines().count() >= results.rows.len());
    }
}

/// `WRITE_PAGES=folder` keeps the pages, to look at them.
#[test]
fn pages_of_both_kinds_of_device() {
    for (name, device) in [("discrete", Device::Discrete), ("software", Device::Software)] {
        let page = html::render(&results(device, 1, Noise::default()));
        println!("{name}: {} bytes", page.len());
        assert!(page.len() < 2 << 20, "{name}: {} bytes", page.len());
        if let Some(folder) = std::env::var_os("WRITE_PAGES") {
            let path = std::path::Path::new(&folder).join(name);
            std::fs::write(path.with_extension("html"), page).unwrap();
            json::write(path.with_extension("json"), &results(device, 1, Noise::default())).unwrap();
            json::write(path.with_extension("again.json"), &results(device, 2, Noise::default())).unwrap();
        }
    }
}
