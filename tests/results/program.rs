//! `aquatint bench compare` and `report` from outside. Neither needs a GPU.

use std::path::Path;
use std::process::{Command, Output};

use aquatint::bench::record::{Results, Status};
use aquatint::bench::report::json;
use aquatint::bench::synthetic::{Device, Noise, results, slow_down};

fn bench(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
    // As on a machine without any driver.
    command.env("VK_ICD_FILENAMES", "/nonexistent").env("VK_DRIVER_FILES", "/nonexistent");
    let Output { status, stdout, stderr } =
        command.current_dir(folder).arg("bench").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code().unwrap(), stdout, stderr)
}

/// A folder with a baseline `a.json`, the same again as `same.json`, with a slower row as `slow.json` and with a wrong one as
/// `wrong.json`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, seed: u64, change: fn(&mut Results)| {
        let mut results = results(Device::Discrete, seed, Noise { process: 0.002, ..Noise::default() });
        results.rows.retain(|row| row.status != Status::Wrong);
        change(&mut results);
        json::write(folder.path().join(name), &results).unwrap();
    };
    write("a.json", 1, |_| ());
    write("same.json", 2, |_| ());
    write("slow.json", 3, |r| slow_down(&mut r.rows[0], 1.3));
    write("wrong.json", 4, |r| {
        r.rows[1].status = Status::Wrong;
        (r.rows[1].times, r.rows[1].rates) = (None, None);
    });
    folder
}

#[test]
fn compare_tells_by_its_code() {
    let folder = folder();
    let run = |arguments: &[&str]| bench(folder.path(), arguments);
    let (code, text, _) = run(&["compare", "a.json", "same.json"]);
    assert_eq!(code, 0, "{text}");
    let (code, text, _) = run(&["compare", "a.json", "slow.json"]);
    assert!(code == 1 && text.contains("SLOWER"), "{text}");
    let (code, text, _) = run(&["compare", "a.json", "same.json", "slow.json", "wrong.json", "--markdown"]);
    assert!(code == 2 && text.contains("**WRONG**") && text.contains("**SLOWER**"), "{text}");
    std::fs::write(folder.path().join("known.txt"), "kernel/matmul/1024/* # both\n").unwrap();
    assert_eq!(run(&["compare", "a.json", "slow.json", "wrong.json", "--expect-fail", "known.txt"]).0, 0);
    assert_eq!(run(&["compare", "a.json", "slow.json", "wrong.json", "--flaky", "known.txt"]).0, 0);
    assert_eq!(run(&["compare", "a.json", "slow.json", "--threshold", "40"]).0, 0);
    let (code, text, _) = run(&["compare", "a.json", "slow.json", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value[0]["exit_code"]), (1, &1.into()));
    assert_eq!(value[0]["rows"][0]["outcome"], "slower");
}

#[test]
fn wrong_usage_is_five() {
    let folder = folder();
    std::fs::write(folder.path().join("new.json"), "{\"format\": 99}").unwrap();
    std::fs::write(folder.path().join("list.txt"), "[a").unwrap();
    for (arguments, wanted) in [
        (&["compare", "a.json"][..], "required"),
        (&["compare", "a.json", "none.json"], "none.json: "),
        (&["compare", "a.json", "new.json"], "a newer aquatint wrote them"),
        (&["compare", "a.json", "same.json", "--threshold", "none"], "between 0 and 100"),
        (&["compare", "a.json", "same.json", "--flaky", "list.txt"], "list.txt: line 1: "),
        (&["compare", "a.json", "same.json", "--json", "--markdown"], "cannot be used with"),
        (&["report"], "required"),
        (&["elephant"], "elephant"),
    ] {
        let (code, stdout, stderr) = bench(folder.path(), arguments);
        assert!(
            code == 5 && stdout.is_empty() && stderr.contains(wanted),
            "{arguments:?}: {code}\n{stdout}{stderr}"
        );
    }
    assert_eq!(bench(folder.path(), &["--help"]).0, 0);
}

#[test]
fn report_prints_a_table_or_writes_files() {
    let folder = folder();
    let (code, text, _) = bench(folder.path(), &["report", "a.json"]);
    assert!(code == 0 && text.contains("Example GPU 20") && text.contains("51 ok"), "{text}");
    let arguments = [
        "report",
        "a.json",
        "--html",
        "out/a.html",
        "--csv",
        "a.csv",
        "--markdown",
        "a.md",
        "--junit",
        "a.xml",
    ];
    let (code, text, _) = bench(folder.path(), &arguments);
    assert_eq!((code, text.as_str()), (0, ""));
    for (file, start) in
        [("out/a.html", "<!doctype html>"), ("a.csv", "id,"), ("a.md", "# "), ("a.xml", "<?xml")]
    {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.starts_with(start), "{file}: {}", &text[..40]);
    }
}
