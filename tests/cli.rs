//! The program from outside: what it prints where, its exit codes, the files it leaves.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use aquatint::formats::picture;
use aquatint::limits::{Bound, Limits};

fn aquatint() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
    command.env_remove("RUST_BACKTRACE");
    command
}

/// On a machine without any driver, whatever this one has.
fn without_gpu() -> Command {
    let mut command = aquatint();
    command.env("VK_ICD_FILENAMES", "/nonexistent").env("VK_DRIVER_FILES", "/nonexistent");
    command.args(["--backend", "vulkan"]);
    command
}

fn has_gpu() -> bool {
    let found = !aquatint::gpu::adapters(&aquatint::AdapterOptions::from_env()).unwrap().is_empty();
    if !found {
        assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set, and there is no adapter");
        eprintln!("skipped: no GPU adapter");
    }
    found
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs, expects success and returns stdout.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    stdout(&output).to_owned()
}

/// Runs, expects `code`, one message on stderr and none of the marks of a crash; returns the message.
fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let message = stderr(&output).to_owned();
    assert_eq!(output.status.code(), Some(code), "{}\n{message}", stdout(&output));
    assert_eq!(message.matches("error: ").count(), 1, "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_str(&succeed(command)).unwrap()
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in
        [&["frobnicate"][..], &["devices", "--colour"], &["--backend", "opengl", "devices"], &["classify"]]
    {
        fail(aquatint().args(args), 2);
    }
    let output = aquatint().env("AQUATINT_BACKEND", "glide").arg("devices").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn help_and_version_go_to_stdout() {
    assert!(succeed(aquatint().arg("--help")).contains("generate"));
    assert!(succeed(aquatint().arg("--version")).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn devices_are_listed_and_chosen() {
    if !has_gpu() {
        return;
    }
    let all = json(aquatint().args(["devices", "--json"]));
    let first = &all[0];
    assert_eq!(first["index"], 0);
    assert_eq!(first["chosen"], true);
    assert!(first["limits"]["max_binding"].as_u64().unwrap() >= 1 << 20, "{first}");
    assert!(first["features"]["f16"].is_boolean(), "{first}");
    let name = first["name"].as_str().unwrap();
    let text = succeed(aquatint().arg("devices"));
    assert!(text.contains(name) && text.contains("shared memory"), "{text}");
    // By name, by number, by variable, the option before the variable.
    succeed(aquatint().args(["devices", "--adapter", &name.to_uppercase()]));
    succeed(aquatint().env("AQUATINT_ADAPTER", "0").arg("devices"));
    succeed(aquatint().env("AQUATINT_ADAPTER", "none such").args(["--adapter", "0", "devices"]));
    let message = fail(aquatint().env("AQUATINT_ADAPTER", "none such").arg("devices"), 1);
    assert!(message.contains("none such") && message.contains(name), "{message}");
}

#[test]
fn no_driver_is_one_clear_message() {
    let message = fail(without_gpu().arg("devices"), 1);
    assert!(message.contains("mesa-vulkan-drivers"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = aquatint().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

/// Two steps are enough to see that everything is wired; what comes out is no letter yet.
fn generate(folder: &Path, args: &[&str]) -> Command {
    let mut command = aquatint();
    command.current_dir(folder).args(["generate", "--steps", "2"]).args(args);
    command
}

#[test]
fn a_picture_is_made_again_from_itself() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let paths = succeed(&mut generate(folder.path(), &["q", "--seed", "3", "--out", "new/a.png"]));
    assert_eq!(paths.trim(), "new/a.png");
    let a = picture::open(path("new/a.png")).unwrap();
    assert_eq!(a.dimensions(), (32, 32));
    assert!(a.pixels().any(|p| p.0 != a.get_pixel(0, 0).0), "the picture is not blank");
    let text = picture::read_text(path("new/a.png"), "parameters").unwrap().unwrap();
    assert!(text.starts_with("Q\nSteps: 2, Sampler: dpm++2m") && text.contains("Seed: 3"), "{text}");

    succeed(&mut generate(folder.path(), &["--from", "new/a.png", "--out", "b.png"]));
    assert_eq!(picture::open(path("b.png")).unwrap(), a);
    // Other options change what they name.
    succeed(&mut generate(folder.path(), &["--from", "b.png", "--seed", "4", "--out", "c.png"]));
    assert_ne!(picture::open(path("c.png")).unwrap(), a);
    // Without a seed, each has its own.
    let random = |_| succeed(&mut generate(folder.path(), &["Q"])).trim().to_owned();
    let [first, second] = [0, 1].map(random);
    assert_ne!(first, second);
}

#[test]
fn a_word_is_a_sheet_that_classify_takes_apart() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let word = ["A7", "--count", "2", "--seed", "9"];
    succeed(generate(folder.path(), &word).args(["--out", "word.png"]));
    let files = succeed(generate(folder.path(), &word).args(["--out", "letters/"]));
    let files: Vec<&str> = files.lines().collect();
    let names = ["letters/00-A.png", "letters/01-7.png", "letters/02-A.png", "letters/03-7.png"];
    assert_eq!(files, names);
    // The pattern is expanded by the program: there is no shell here.
    let read = json(aquatint().current_dir(folder.path()).args([
        "classify",
        "--json",
        "--top",
        "2",
        "word.png",
        "letters/*.png",
    ]));
    let sheet = &read[0]["pictures"];
    assert_eq!(sheet.as_array().unwrap().len(), 4);
    for (i, label) in ["A", "7", "A", "7"].into_iter().enumerate() {
        assert_eq!(sheet[i]["asked"], label);
        assert_eq!(sheet[i]["answers"].as_array().unwrap().len(), 2);
        // Cut out of the sheet, each is the picture that the file of its own holds.
        let alone = &read[1 + i];
        assert_eq!(alone["path"], names[i]);
        assert_eq!(alone["pictures"][0]["answers"][0]["label"], sheet[i]["answers"][0]["label"]);
        let probability = |answer: &serde_json::Value| answer["probability"].as_f64().unwrap();
        let [a, b] = [&alone["pictures"][0]["answers"][0], &sheet[i]["answers"][0]].map(probability);
        assert!((a - b).abs() < 1e-4 && (0.0..=1.0).contains(&a), "{a} {b}");
    }
}

#[test]
fn real_pictures_are_read_whatever_their_size_and_colours() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sheet = concat!(env!("CARGO_MANIFEST_DIR"), "/models/letters-heldout.png");
    let sheet = image::open(sheet).unwrap().into_luma8();
    for (column, label) in [(0, "A"), (17, "R"), (33, "7")] {
        let cell = image::imageops::crop_imm(&sheet, column * 32, 0, 32, 32).to_image();
        let mut large = image::imageops::resize(&cell, 200, 200, image::imageops::FilterType::Triangle);
        image::imageops::invert(&mut large);
        large.save(folder.path().join(format!("{label}-dark.jpg"))).unwrap();
        cell.save(folder.path().join(format!("{label}.png"))).unwrap();
    }
    let text =
        succeed(aquatint().current_dir(folder.path()).args(["classify", "*.png", "*.jpg", "--top", "1"]));
    let read: Vec<[&str; 2]> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>()[..2].try_into().unwrap())
        .collect();
    assert_eq!(read.len(), 6, "{text}");
    assert!(read.iter().all(|[path, label]| path.starts_with(label)), "{text}");
}

#[test]
fn one_bad_picture_does_not_stop_the_others() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let good =
        image::GrayImage::from_fn(40, 30, |x, _| image::Luma([if (18..22).contains(&x) { 255 } else { 0 }]));
    good.save(folder.path().join("good.png")).unwrap();
    std::fs::write(folder.path().join("text.png"), "no picture").unwrap();
    let mut command = aquatint();
    command
        .current_dir(folder.path())
        .args(["classify", "--json", "text.png", "good.png", "gone.png", "no*.png"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for wanted in ["text.png: not a picture", "gone.png: ", "no*.png: no file matches", "3 of 4 files"] {
        assert!(stderr(&output).contains(wanted), "no {wanted} in\n{}", stderr(&output));
    }
    let rows: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(rows[1]["pictures"][0]["answers"].as_array().unwrap().len(), 3);
    assert!(rows[0]["error"].is_string() && rows[1].get("error").is_none());
}

#[test]
fn a_device_plays_a_weaker_one() {
    if !has_gpu() {
        return;
    }
    let json = |command: &mut std::process::Command| -> serde_json::Value {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let rows = json(aquatint().args(["devices", "--json", "--as-if", "no-f16,shared=8KiB"]));
    let chosen = rows.as_array().unwrap().iter().find(|row| row["chosen"] == true).unwrap();
    assert_eq!(chosen["as_if"], "no-f16,shared=8KiB");
    assert_eq!(
        (&chosen["features"]["f16"], &chosen["limits"]["shared_memory"]),
        (&false.into(), &8192.into())
    );
    let mut inspect = aquatint();
    let report =
        json(inspect.env("AQUATINT_AS_IF", "webgpu").args(["inspect", "letters-classifier", "--json"]));
    assert_eq!(report["target"]["max_storage_buffers"], 8);
    assert!(report["target"]["name"].as_str().unwrap().ends_with(" as if webgpu"));
    // Set to nothing, it takes nothing away.
    assert_eq!(
        json(aquatint().env("AQUATINT_AS_IF", "").args(["devices", "--json"]))[0]["as_if"],
        serde_json::Value::Null
    );

    let output = aquatint().args(["devices", "--as-if", "no-gravity"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("max-binding=BYTES"), "{}", stderr(&output));
    let output = aquatint().args(["devices", "--as-if", "storage-buffers=1000000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expected at most"), "{}", stderr(&output));
}

#[cfg(feature = "bench")]
#[test]
fn a_run_is_taken_apart() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (trace, flame) = (folder.path().join("new/trace.json"), folder.path().join("flame.svg"));
    let mut command = aquatint();
    command.args(["profile", "letters-classifier", "--runs", "2", "--by", "kernel", "--json", "--trace"]);
    let output = command.arg(&trace).arg("--flame").arg(&flame).output().unwrap();
    if !output.status.success() && stderr(&output).contains("timestamp queries") {
        return; // This device has none, and that was said.
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let sum = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("launches"), json["launches"].as_f64().unwrap());
    assert!((sum("part") - 1.0).abs() < 1e-9 && sum("flops") > 1e6, "{json}");
    assert!(rows[0]["rates"]["share"].as_f64().unwrap() > 0.0 && json["overhead"].is_number());
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let launches = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["cat"] == "launch").count();
    assert_eq!(launches as u64, json["launches"].as_u64().unwrap());
    assert!(std::fs::read_to_string(flame).unwrap().ends_with("</svg>\n"));

    let output = aquatint().args(["profile", "letters-unet", "--as-if", "no-timestamps"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no timestamp queries"), "{}", stderr(&output));
}

#[test]
fn a_picture_too_large_for_the_device_is_named() {
    if !has_gpu() {
        return;
    }
    let adapter = aquatint::gpu::choose_adapter(&aquatint::AdapterOptions::from_env()).unwrap();
    let limits = adapter.limits();
    let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let side = ((bytes / 4) as f64).sqrt() as u32 + 1;
    if u64::from(side) * u64::from(side) > Limits::DEFAULT.of(Bound::Pixels) {
        return; // Refused by its pixels before the device is asked.
    }
    let folder = tempfile::tempdir().unwrap();
    image::GrayImage::new(side, side).save(folder.path().join("huge.png")).unwrap();
    image::GrayImage::new(9, 9).save(folder.path().join("tiny.png")).unwrap();
    let mut command = aquatint();
    let output =
        command.current_dir(folder.path()).args(["classify", "huge.png", "tiny.png"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("huge.png"), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("tiny.png"), "{}", stdout(&output));
}

#[test]
fn what_cannot_be_drawn_is_said_with_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.png");
    image::GrayImage::new(8, 8).save(&plain).unwrap();
    for (args, wanted) in [
        (&["HÉ"][..], "X Y Z 0 1"),
        (&["A", ""], "X Y Z 0 1"),
        (&["A", "--sampler", "leapfrog"], "dpm++2m"),
        (&["A", "--sigmas", "steep"], "karras"),
        (&["A", "--count", "0"], "1 to"),
        (&["A", "--out", "a.jpg"], ".png"),
        (&["--from", "gone.png"], "gone.png"),
        (&["--from", "plain.png"], "no parameters"),
        (&["--model", "gone"], "gone"),
    ] {
        let message = fail(&mut generate(folder.path(), args), 1);
        assert!(message.contains(wanted), "{args:?}: no {wanted} in {message}");
    }
    fail(&mut generate(folder.path(), &["--preview", "perhaps"]), 2);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["plain.png"], "nothing is written");
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_between_steps_and_leaves_no_file() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = aquatint();
    command.current_dir(folder.path()).args(["generate", "A", "--steps", "1000", "--out", "new/a.png"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The folder is made after the program began to listen.
    let start = std::time::Instant::now();
    while !folder.path().join("new").exists() {
        assert!(start.elapsed().as_secs() < 60, "the program never started");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("of 1000 steps"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
}

#[test]
fn models_are_inspected_without_a_gpu() {
    for model in ["letters-unet", "letters-classifier"] {
        let report = json(without_gpu().args(["inspect", model, "--json"]));
        let number = |key: &str| report[key].as_u64().unwrap();
        assert!(number("parameters") > 200_000 && number("flops") > 10_000_000, "{model}");
        assert!(number("peak_bytes") >= number("resident_bytes"), "{model}");
        assert!(!report["run"].as_array().unwrap().is_empty());
        let text = succeed(without_gpu().args(["inspect", model]));
        assert!(text.contains("peak memory") && text.contains("no device"), "{text}");
        let dot = succeed(without_gpu().args(["inspect", model, "--dot"]));
        assert!(dot.starts_with("digraph") && dot.contains("->"), "{dot}");
    }
    let message = fail(without_gpu().args(["inspect", "resnet"]), 1);
    assert!(message.contains("letters-unet, letters-classifier"), "{message}");
    // A folder of the user's own goes the same way as the bundled files.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/letters-unet");
    let own = json(without_gpu().args(["inspect", folder, "--json"]));
    assert_eq!(own["parameters"], 1_476_849);
}

#[test]
fn the_families_are_compared() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = aquatint();
    command.current_dir(folder.path()).args(["compare", "--json", "--samples", "1", "--out", "table.png"]);
    let comparison = json(&mut command);
    let classifier = &comparison["classifier"];
    assert!(classifier["quality"]["paired"].as_f64().unwrap() >= 0.98, "{classifier}");
    assert_eq!(classifier["quality"]["pictures"], 864);
    assert_eq!(comparison["generator"]["passes_per_picture"], 40);
    for family in [classifier, &comparison["generator"]] {
        for figure in
            ["parameters", "flops_per_picture", "latency_seconds", "pictures_per_second", "peak_bytes"]
        {
            assert!(family[figure].as_f64().unwrap() > 0.0, "{figure} of {family}");
        }
    }
    let table = picture::open(folder.path().join("table.png")).unwrap();
    assert!(table.width() > 800 && table.height() > 600);
}

/// Bundled pictures to try things on.
fn example(name: &str) -> String {
    format!("{}/examples/pictures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_task_does_the_good_files_and_names_the_bad() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let small = image::imageops::resize(
        &image::open(example("coffee-small.png")).unwrap().into_rgb8(),
        64,
        48,
        image::imageops::FilterType::Triangle,
    );
    std::fs::create_dir(folder.path().join("in")).unwrap();
    small.save(folder.path().join("in/a.png")).unwrap();
    small.save(folder.path().join("in/b.jpg")).unwrap();
    std::fs::write(folder.path().join("in/c.png"), "no picture").unwrap();
    std::fs::write(folder.path().join("in/notes.txt"), "not even named like one").unwrap();
    for (command, word, size) in [
        (&["upscale", "--tile", "40"][..], "upscaled", (128, 96)),
        (&["denoise"], "denoised", (64, 48)),
        (&["stylize"], "stylized", (64, 48)),
        (&["segment"], "segmented", (64, 48)),
        (&["detect"], "detected", (64, 48)),
    ] {
        let mut run = aquatint();
        run.current_dir(folder.path()).args(command).args(["in", "--out", "out", "--json"]);
        let output = run.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("c.png: not a picture"), "{}", stderr(&output));
        let rows: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
        assert!(rows[2]["error"].is_string() && rows[0].get("error").is_none(), "{rows}");
        for stem in ["a", "b"] {
            let made = picture::open(folder.path().join(format!("out/{stem}-{word}.png"))).unwrap();
            assert_eq!(made.dimensions(), size, "{command:?}");
        }
        match word {
            "segmented" => {
                let areas = rows[0]["areas"].as_array().unwrap();
                let pixels: u64 = areas.iter().map(|a| a["pixels"].as_u64().unwrap()).sum();
                assert_eq!(pixels, 64 * 48);
                assert!(folder.path().join(rows[0]["mask"].as_str().unwrap()).exists());
            }
            "detected" => assert!(rows[0]["detections"].is_array()),
            _ => assert_eq!([&rows[0]["width"], &rows[0]["height"]], [size.0, size.1]),
        }
    }
    assert_eq!(std::fs::read_dir(folder.path().join("in")).unwrap().count(), 4, "inputs stay as they are");
}

#[test]
fn inputs_are_never_written_over() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    image::RgbImage::new(8, 8).save(folder.path().join("a.png")).unwrap();
    let mut run = aquatint();
    run.current_dir(folder.path()).args(["denoise", "a.png", "--out", "a.png"]);
    assert!(fail(&mut run, 1).contains("no input"));
    let mut two = aquatint();
    two.current_dir(folder.path()).args(["denoise", "a.png", "a.png", "--out", "b.png"]);
    assert!(fail(&mut two, 1).contains("give a folder"));
    let mut unknown = aquatint();
    unknown.current_dir(folder.path()).args(["denoise", "a.png", "--model", "nois"]);
    assert!(fail(&mut unknown, 1).contains("denoise"));
}

#[test]
fn vectors_are_written_and_compared() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sheet = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/letters-heldout.png")).unwrap();
    for (name, column, row) in [("a1", 0, 0), ("a2", 0, 1), ("r", 17, 0)] {
        sheet
            .crop_imm(32 * column, 32 * row, 32, 32)
            .save(folder.path().join(format!("{name}.png")))
            .unwrap();
    }
    let embed = |args: &[&str]| {
        let mut command = aquatint();
        command.current_dir(folder.path()).arg("embed").args(args);
        command
    };
    succeed(&mut embed(&["a1.png", "a2.png", "r.png", "--out", "new/v.npy"]));
    let bytes = std::fs::read(folder.path().join("new/v.npy")).unwrap();
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    assert!(header.contains("'shape': (3, 96)") && header.contains("'<f4'"), "{header}");
    assert_eq!(bytes.len(), 128 + 4 * 3 * 96);
    succeed(&mut embed(&["a1.png", "r.png", "--out", "v.json", "--layer", "block1.b"]));
    let text = std::fs::read_to_string(folder.path().join("v.json")).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[1]["vector"].as_array().unwrap().len(), 48);
    let alike =
        |a: &str, b: &str| json(&mut embed(&["--compare", "--json", a, b]))["cosine"].as_f64().unwrap();
    let (same, other) = (alike("a1.png", "a2.png"), alike("a1.png", "r.png"));
    assert!(same > other, "{same} {other}");
    assert!(fail(&mut embed(&["a1.png", "--compare"]), 1).contains("two pictures"));
    succeed(&mut embed(&["a1.png", "a2.png", "r.png", "--out", "new/v.arrow"]));
    let arrow = std::fs::read(folder.path().join("new/v.arrow")).unwrap();
    assert!(arrow.starts_with(b"ARROW1") && arrow.ends_with(b"ARROW1"));
    assert!(fail(&mut embed(&["a1.png", "--out", "v.txt"]), 1).contains(".arrow"));
    assert!(fail(&mut embed(&["a1.png", "gone.png", "--compare"]), 1).contains("gone.png"));
}
