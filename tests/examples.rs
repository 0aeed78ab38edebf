//! Every example as a user runs it: what it prints, and its pictures, held to what the library's tasks make of the same input,
//! to the references that examples draw themselves, to plain arithmetic, or to a picture that is kept here.

mod hashed;
#[allow(dead_code)]
#[path = "../examples/path_tracer/likeness.rs"]
mod likeness;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use aquatint::models;
use aquatint::tasks::{Classifier, DiffusionModel, GenerateOptions, Generator, Redrawer};
use hashed::gpu;
use image::{RgbImage, imageops};
use likeness::psnr;

/// The command of an example, built as this test was; that takes no time where it is built already, and cannot run an old one.
fn example(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_aquatint")).parent().unwrap();
    let profile = match built.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo says of this test to this test would have build scripts run anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|of| text.starts_with(of))
        {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--quiet", "--locked", "--profile", profile, "--example", name]);
    let output = cargo.arg("--target-dir").arg(built.parent().unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command =
        Command::new(built.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_BACKTRACE");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs, expects success and returns stdout.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs an example that writes a picture; what it prints, and the picture.
fn drawn(name: &str, arguments: &[&str], out: &[&str]) -> (String, RgbImage) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.png");
    let said = run(example(name).args(arguments).args(out).arg(&file));
    (said, image::open(file).unwrap().into_rgb8())
}

/// Parts of a picture that is `columns` wide and `rows` high, row by row.
fn parts(sheet: &RgbImage, columns: u32, rows: u32) -> Vec<RgbImage> {
    let [width, height] = [sheet.width() / columns, sheet.height() / rows];
    assert_eq!([columns * width, rows * height], [sheet.width(), sheet.height()]);
    let place = |i| (i % columns * width, i / columns * height);
    let part = |i| imageops::crop_imm(sheet, place(i).0, place(i).1, width, height).to_image();
    (0..columns * rows).map(part).collect()
}

/// Most that two pictures are apart anywhere, of 255.
fn apart(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures").join(name)
}

#[test]
fn no_example_is_left_out() {
    let tests = include_str!("examples.rs");
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let runs = ["example", "drawn"].map(|function| format!("{function}(\"{name}\""));
            assert!(
                runs.iter().any(|run| tests.contains(run)),
                "examples/{name}.rs is not run by tests/examples.rs"
            );
        }
    }
}

#[test]
fn bare() {
    if gpu().is_none() {
        return;
    }
    let (_, embossed) = drawn("bare", &[], &[]);
    let source = image::open(picture("coffee.jpg")).unwrap().into_rgb8();
    let kernel = [[-2., -1., 0.], [-1., 1., 1.], [0., 1., 2.]];
    let expected = RgbImage::from_fn(source.width(), source.height(), |x, y| {
        let mut sums = [0.0; 3];
        for (dy, line) in kernel.iter().enumerate() {
            for (dx, weight) in line.iter().enumerate() {
                let place = [x + dx as u32, y + dy as u32].map(|at| at.wrapping_sub(1));
                if let Some(pixel) = source.get_pixel_checked(place[0], place[1]) {
                    (0..3).for_each(|c| sums[c] += weight * f64::from(pixel[c]));
                }
            }
        }
        image::Rgb(sums.map(|sum| sum.clamp(0.0, 255.0).round() as u8))
    });
    assert!(apart(&embossed, &expected) <= 1);
}

#[test]
fn own_device() {
    if gpu().is_none() {
        return;
    }
    let said = run(&mut example("own_device"));
    let lines: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(lines.len(), 16);
    let white = |x: i32, y: i32| (0..64).contains(&x) && (0..64).contains(&y) && (x / 16 + y / 16) % 2 == 1;
    for (row, line) in (0..).zip(lines) {
        for (column, shade) in (0..).zip(line.chars()) {
            let around = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (2 * column + dx, 4 * row + dy)));
            let share = around.filter(|&(x, y)| white(x, y)).count() as f64 / 25.0;
            let shown = " .:o@".find(shade).unwrap() as f64;
            // A share that lies between two shades may be either.
            let [low, high] = [-1e-4, 1e-4].map(|off| (5.0 * (share + off)).floor().clamp(0.0, 4.0));
            assert!(shown == low || shown == high, "{shade:?} for {share} at {column}, {row}");
        }
    }
}

#[test]
fn quickstart() {
    if gpu().is_none() {
        return;
    }
    let inside = |x: i32, y: i32| ((f64::from(x) + 0.5 - 20.0) / 2.0).hypot(f64::from(y) + 0.5 - 10.0) < 8.0;
    let near = |x: i32, y: i32| (-1..=1).all(|dy| (-1..=1).all(|dx| inside(x + dx, y + dy)));
    let edge = |x, y| if inside(x, y) && !near(x, y) { '#' } else { '.' };
    let line = |y| (0..40).map(|x| edge(x, y)).chain(['\n']).collect::<String>();
    assert_eq!(run(&mut example("quickstart")), (0..20).map(line).collect::<String>());
}

#[test]
fn generate() {
    if gpu().is_none() {
        return;
    }
    let (said, letter) = drawn("generate", &["R"], &[]);
    assert!(said.contains("drawn as R, read as R"), "{said}");
    assert_eq!(letter.dimensions(), (32, 32));
}

#[test]
fn chain() {
    if gpu().is_none() {
        return;
    }
    let truth: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(picture("letters.json")).unwrap()).unwrap();
    let truth = truth.as_array().unwrap();
    let said = run(&mut example("chain"));
    // How many of the letters both networks saw where they are, and named rightly.
    let (mut found, mut read) = (0, 0);
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = [0, 1].map(|i| words[i].parse::<f64>().unwrap());
        let there = truth.iter().find(|thing| {
            let corner = |i: usize| thing["box"][i].as_f64().unwrap();
            (corner(0) - place[0]).abs() < 8.0 && (corner(1) - place[1]).abs() < 8.0
        });
        let is = |name: &str| there.is_some_and(|thing| thing["label"] == name);
        found += usize::from(is(words[4]));
        read += usize::from(is(words[words.len() - 1]));
    }
    // The networks have not seen these fonts.
    assert!(
        3 * found >= 2 * truth.len() && 2 * read >= truth.len(),
        "{found}, {read} of {}:\n{said}",
        truth.len()
    );
}

#[test]
fn render_scenes() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    run(example("render_scenes").arg("--out").arg(folder.path()).args(["--families", "cells,gallery"]));
    for name in ["cells-0000", "gallery-0000"] {
        let bytes = std::fs::read(folder.path().join(format!("{name}.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("noisy").unwrap().shape(), [2, 24, 24, 9]);
        let target = file.tensor("target").unwrap();
        let target: Vec<f32> = bytemuck::pod_collect_to_vec(target.data());
        let mean = target.iter().sum::<f32>() / target.len() as f32;
        assert!(target.len() == 24 * 24 * 3 && mean > 0.01 && mean < 10.0, "{name}: {mean}");
    }
}

#[test]
fn denoise_path_tracer() {
    if gpu().is_none() {
        return;
    }
    let (said, sheet) = drawn("denoise_path_tracer", &["--reference", "128"], &["--out"]);
    let [noisy, denoised, reference] = &parts(&sheet, 3, 1)[..] else { unreachable!("three parts") };
    let gain = psnr(denoised, reference) - psnr(noisy, reference);
    assert!(gain > 6.0, "{said}");
}

#[test]
fn temporal() {
    if gpu().is_none() {
        return;
    }
    for more in [&[][..], &["--upscale"]] {
        let (said, sheet) =
            drawn("temporal", &[&["--frames", "6", "--reference", "48"], more].concat(), &["--out"]);
        let [given, alone, remembered, reference] = &parts(&sheet, 4, 1)[..] else {
            unreachable!("four parts")
        };
        let [given, alone, remembered] = [given, alone, remembered].map(|frame| psnr(frame, reference));
        assert!(remembered > alone.max(given), "{said}");
    }
}

#[test]
fn upscale_frame() {
    if gpu().is_none() {
        return;
    }
    let (said, sheet) = drawn("upscale_frame", &[], &["--out"]);
    let [bilinear, upscaled, full] = &parts(&sheet, 3, 1)[..] else { unreachable!("three parts") };
    let gain = psnr(upscaled, full) - psnr(bilinear, full);
    assert!(gain > 1.0 && psnr(upscaled, full) > 24.0, "{said}");
}

#[test]
fn stylize_frame() {
    let Some(gpu) = gpu() else { return };
    let (_, sheet) = drawn("stylize_frame", &["--frames", "2"], &["--out"]);
    let [first, second, ..] = &parts(&sheet, 2, 2)[..] else { unreachable!("four parts") };
    assert!(psnr(first, second) < 30.0, "the scene does not move");
    let mut redrawer = Redrawer::new(gpu, models::open("style-engraving").unwrap()).unwrap();
    for (i, frame) in [first, second].into_iter().enumerate() {
        let expected = redrawer.redraw(frame).unwrap();
        // Devices decode textures of sRGB to within half a step of 8 bits, which the network's edges enlarge.
        let alike = psnr(&parts(&sheet, 2, 2)[2 + i], &expected);
        assert!(alike > 45.0, "frame {i} is {alike:.1} dB from what the network makes of it");
    }
}

#[test]
fn diffuse_into_texture() {
    let Some(gpu) = gpu() else { return };
    let (letters, seeds) = (["A", "B", "C", "D", "E", "F"], [7, 8, 9, 10, 11, 12]);
    let (said, sheet) = drawn("diffuse_into_texture", &[], &["--out"]);
    // Below the strip are the faces, each pixel a square of five.
    let faces: Vec<RgbImage> = parts(&sheet, 6, 2)[6..]
        .iter()
        .map(|face| imageops::resize(face, 32, 32, imageops::FilterType::Nearest))
        .collect();
    let model = DiffusionModel::letters().unwrap();
    let options = GenerateOptions { steps: 18, ..model.options() };
    let mut generator = Generator::new(gpu, &model, 6, &options).unwrap();
    let expected = generator.start(&letters, &seeds).unwrap().pictures().unwrap();
    for ((letter, face), expected) in letters.iter().zip(&faces).zip(&expected) {
        let off = apart(face, expected);
        assert!(off <= 2, "{letter} is {off} of 255 off what the task draws\n{said}");
    }
    let answers = Classifier::letters(gpu, 6).unwrap().classify(&faces).unwrap();
    let read: Vec<&str> = answers.iter().map(|answer| answer[0].label.as_str()).collect();
    assert_eq!(read, letters);

    // The strip itself. Edges of the block may be drawn a little otherwise by other devices.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/examples/diffuse_into_texture.png");
    let kept = image::open(kept).unwrap().into_rgb8();
    let strip = imageops::crop_imm(&sheet, 0, 0, sheet.width(), sheet.height() / 2).to_image();
    let small = imageops::resize(&strip, kept.width(), kept.height(), imageops::FilterType::Triangle);
    assert!(psnr(&small, &kept) > 34.0, "{:.1} dB from the picture that is kept", psnr(&small, &kept));
}

#[test]
fn parts_of_steps_give_what_whole_steps_give() {
    if gpu().is_none() {
        return;
    }
    let common = ["--steps", "4", "--letters", "AB"];
    let faces = |more: &[&str]| {
        let (said, sheet) = drawn("diffuse_into_texture", &[&common[..], more].concat(), &["--out"]);
        let height = sheet.height() / 2;
        (said, imageops::crop_imm(&sheet, 0, height, 6 * height, height).to_image())
    };
    let (_, whole) = faces(&[]);
    let (said, sliced) = faces(&["--budget", "60"]);
    let frames: usize = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!(frames > 4, "steps did not go over several frames: {said}");
    assert!(whole == sliced, "{} of 255 apart", apart(&whole, &sliced));
}

fn stream(arguments: &[&str]) -> Command {
    let mut command = example("video_stream");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Writes to a process while it is read.
fn piped(mut child: Child, input: Vec<u8>) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

#[test]
fn video_stream() {
    let Some(gpu) = gpu() else { return };
    let photograph = image::open(picture("coffee.jpg")).unwrap().into_rgb8();
    // Sizes that the networks do not take as they are; more frames than there are buffers, and fewer.
    for (model, rgba, [width, height], count) in [
        ("upscale-x2", false, [33, 21], 5),
        ("denoise", true, [30, 18], 4),
        ("style-engraving", false, [35, 22], 2),
    ] {
        let frame = |i: u32| imageops::crop_imm(&photograph, 200 + 7 * i, 120, width, height).to_image();
        let frames: Vec<RgbImage> = (0..count).map(frame).collect();
        let pack = |frame: &RgbImage| -> Vec<u8> {
            let pixels = frame.pixels();
            match rgba {
                true => pixels.flat_map(|p| [p[0], p[1], p[2], 17]).collect(),
                false => pixels.flat_map(|p| p.0).collect(),
            }
        };
        let pixels = if rgba { "rgba" } else { "rgb24" };
        let size = format!("{width}x{height}");
        let child = stream(&["--model", model, "--size", &size, "--pixels", pixels]).spawn().unwrap();
        let output = piped(child, frames.iter().flat_map(pack).collect());
        assert!(output.status.success(), "{}", text(&output.stderr));

        let mut redrawer = Redrawer::new(gpu, models::open(model).unwrap()).unwrap();
        let expected: Vec<RgbImage> = frames.iter().map(|frame| redrawer.redraw(frame).unwrap()).collect();
        let texel = if rgba { 4 } else { 3 };
        let bytes = texel * (expected[0].width() * expected[0].height()) as usize;
        assert_eq!(output.stdout.len(), expected.len() * bytes, "{model}");
        for (i, (came, expected)) in output.stdout.chunks(bytes).zip(&expected).enumerate() {
            let colours = came.chunks(texel).flat_map(|texel| [texel[0], texel[1], texel[2]]).collect();
            let came = RgbImage::from_raw(expected.width(), expected.height(), colours).unwrap();
            assert!(apart(&came, expected) <= 1, "{model}, frame {i}");
        }
    }
}

#[test]
fn streams_end_well() {
    if gpu().is_none() {
        return;
    }
    let bytes = 3 * 16 * 12;
    let arguments = ["--size", "16x12"];
    // Nothing came.
    let output = piped(stream(&arguments).spawn().unwrap(), vec![]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    // A frame and a half: the frame goes out, the half is an error.
    let output = piped(stream(&arguments).spawn().unwrap(), vec![100; bytes * 3 / 2]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout.len(), 4 * bytes);
    assert!(text(&output.stderr).contains("the last frame has 288 of 576 bytes"), "{}", text(&output.stderr));
    // Nobody reads any more, as `head` and players do it.
    let mut child = stream(&arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while stdin.write_all(&vec![50; bytes]).is_ok() {});
    let mut first = vec![0; 4 * bytes];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    // What was asked for does not exist.
    let output = piped(stream(&["--size", "16x0"]).spawn().unwrap(), vec![]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("as in 640x360"), "{}", text(&output.stderr));
}

#[test]
fn a_stream_to_itself() {
    if gpu().is_none() {
        return;
    }
    let (said, sheet) = drawn("video_stream", &[], &["--out"]);
    assert!(said.starts_with("8 of 8 frames came back, 192 × 144"), "{said}");
    let parts = parts(&sheet, 3, 2);
    for (large, upscaled) in parts[..3].iter().zip(&parts[3..]) {
        let alike = psnr(large, upscaled);
        assert!(alike > 25.0 && alike < 50.0, "{alike} dB");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_display_a_window_is_an_error_that_says_so() {
    for name in ["denoise_path_tracer", "upscale_frame", "stylize_frame", "diffuse_into_texture"] {
        let mut command = example(name);
        command.arg("--window");
        for variable in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
            command.env_remove(variable);
        }
        // Nor where it is named and not there.
        for display in [None, Some(":4711")] {
            let output = command.envs(display.map(|name| ("DISPLAY", name))).output().unwrap();
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert!(
                message.contains("no window can be opened") && !message.contains("panicked"),
                "{message}"
            );
        }
    }
}
