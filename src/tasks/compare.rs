//! The two families of network side by side on one device, measured in one run:
//! a CNN that reads characters and a diffusion model that draws them.

use std::time::Instant;

use image::{DynamicImage, RgbImage};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::formats::sheet::Cell;
use crate::formats::table::Table;
use crate::gpu::Gpu;
use crate::graph::{Graph, Source};
use crate::tasks::{self, Classifier, DiffusionModel, Generator};
use crate::units;

/// 24 complete faces of font families that neither model was trained on:
/// a cell of 32 × 32 for each character, a row for each face.
const HELD_OUT: &[u8] = include_bytes!("../../models/letters-heldout.png");

/// Side of a cell of [`HELD_OUT`].
const CELL: u32 = 32;

/// Characters that many faces draw alike.
const PAIRS: [[&str; 2]; 2] = [["O", "0"], ["I", "1"]];

/// How often the classifier's answer was the label.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reading {
    pub pictures: usize,
    /// Share of answers that are the very label.
    pub strict: f64,
    /// The same with `O` and `0`, and `I` and `1`, as one label each.
    pub paired: f64,
}

impl Reading {
    /// Of pairs of what was meant and what was read.
    pub fn of<'a>(answers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Reading {
        let (mut pictures, mut strict, mut paired) = (0, 0, 0);
        for (meant, read) in answers {
            pictures += 1;
            strict += usize::from(meant == read);
            paired += usize::from(pair(meant) == pair(read));
        }
        let share = |n: usize| n as f64 / pictures.max(1) as f64;
        Reading { pictures, strict: share(strict), paired: share(paired) }
    }
}

/// The first label of the pair that a label is in, else the label itself.
fn pair(label: &str) -> &str {
    PAIRS.iter().find(|p| p.contains(&label)).map_or(label, |p| p[0])
}

/// The held-out pictures, row by row, and how many of them there are for each label in turn.
pub fn held_out() -> Result<(Vec<RgbImage>, usize)> {
    let sheet = image::load_from_memory(HELD_OUT)
        .map_err(|error| Error::Format { path: "letters-heldout.png".into(), message: error.to_string() })?;
    let sheet = sheet.into_rgb8();
    let columns = sheet.width() / CELL;
    let cell = |i: u32| {
        image::imageops::crop_imm(&sheet, i % columns * CELL, i / columns * CELL, CELL, CELL).to_image()
    };
    Ok(((0..columns * (sheet.height() / CELL)).map(cell).collect(), columns as usize))
}

/// What was measured of one network.
#[derive(Clone, Debug, Serialize)]
pub struct Family {
    pub model: String,
    pub family: &'static str,
    pub purpose: &'static str,
    /// Operations that have weights, and attention, by name.
    pub layers: Vec<(&'static str, usize)>,
    pub parameters: u64,
    /// Times that the network is evaluated for a picture.
    pub passes_per_picture: usize,
    /// Floating-point operations; a multiply-add counts as two.
    pub flops_per_pass: u64,
    pub flops_per_picture: u64,
    /// Time of one picture alone, from the call to its result on the host: median.
    pub latency_seconds: f64,
    pub latency_runs: usize,
    /// Pictures computed together for the rate below.
    pub batch: usize,
    pub pictures_per_second: f64,
    pub flops_per_second: f64,
    /// The most device memory that the network holds at that batch, and what it holds between runs.
    pub peak_bytes: u64,
    pub resident_bytes: u64,
    pub quality: Reading,
    pub quality_of: &'static str,
}

/// A picture with what it should be and what the classifier reads.
#[derive(Clone, Debug)]
pub struct Sample {
    pub picture: RgbImage,
    pub label: String,
    pub read: String,
}

/// Both networks on one device.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub version: &'static str,
    pub device: String,
    pub backend: String,
    pub driver: String,
    /// How pictures were drawn.
    pub sampling: String,
    pub classifier: Family,
    pub generator: Family,
    /// Held-out pictures and drawn ones.
    #[serde(skip)]
    pub samples: [Vec<Sample>; 2],
}

/// Operations that have weights of their own, and attention, in the order of their first use.
/// Element-wise ones (bias, batch norm) belong to the one before them.
fn layers(graph: &Graph) -> Vec<(&'static str, usize)> {
    let constant = graph.constants();
    let mut layers: Vec<(&'static str, usize)> = Vec::new();
    for (id, value) in graph.values() {
        let Source::Op { op, inputs } = &value.source else { continue };
        let weighted = inputs.iter().any(|i| constant[i.index()]) && op.name() != "Elementwise";
        if constant[id.index()] || !(weighted || op.name() == "Attention") {
            continue;
        }
        match layers.iter_mut().find(|(name, _)| *name == op.name()) {
            Some((_, count)) => *count += 1,
            None => layers.push((op.name(), 1)),
        }
    }
    layers
}

/// Median time of `run`: at least `least` times, and until two seconds are over or it ran 50 times.
fn median_seconds(least: usize, mut run: impl FnMut() -> Result<()>) -> Result<(f64, usize)> {
    // The first is warm-up: drivers finish compiling when a kernel first runs.
    run()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < least || (start.elapsed().as_secs_f64() < 2.0 && times.len() < 50) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times.len()))
}

/// Pictures that the classifier takes at a time, and that are drawn together.
const BATCH: usize = 36;

/// Seed of the first picture drawn for the quality figure.
const SEED: u64 = 0;

/// Most samples kept for the picture.
const SHOWN: usize = 36;

/// What the classifier reads in each picture, and how long it took for all.
fn read(classifier: &mut Classifier, pictures: &[RgbImage]) -> Result<(Vec<String>, f64)> {
    let start = Instant::now();
    let answers = classifier.classify(pictures)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((answers.into_iter().map(|mut answers| answers.swap_remove(0).label).collect(), seconds))
}

/// Measures both bundled models on a device. `samples` pictures are drawn, all labels in turn;
/// `progress` hears how many are done.
///
/// # Errors
/// Those of [`Classifier::letters`] and [`Generator::new`]; [`Error::Interrupted`] when `progress` says to stop.
pub fn compare(gpu: &Gpu, samples: usize, progress: &mut dyn FnMut(usize) -> bool) -> Result<Comparison> {
    let (pictures, kinds) = held_out()?;

    let mut single = Classifier::letters(gpu, 1)?;
    let (reading_latency, reading_runs) = median_seconds(5, || single.classify(&pictures[..1]).map(drop))?;
    drop(single);
    let mut classifier = Classifier::letters(gpu, BATCH)?;
    let labels = classifier.model().labels.clone();
    let label = |i: usize| labels[i % kinds].as_str();
    // Once before it counts.
    read(&mut classifier, &pictures[..BATCH])?;
    let (answers, seconds) = read(&mut classifier, &pictures)?;
    let quality = Reading::of(answers.iter().enumerate().map(|(i, read)| (label(i), read.as_str())));
    let sample = |pictures: &[RgbImage], answers: &[String], i: usize| Sample {
        picture: pictures[i].clone(),
        label: label(i).to_owned(),
        read: answers[i].clone(),
    };
    // A face of its own for each character.
    let faces = pictures.len() / kinds;
    let held_out_samples =
        (0..SHOWN.min(kinds)).map(|i| sample(&pictures, &answers, i * 7 % faces * kinds + i)).collect();
    let model = classifier.model().clone();
    let size = [CELL as usize; 2];
    let graph = tasks::classifier_graph(&model, 1, size)?;
    let work = graph.flops();
    let plan = classifier.plan(size)?;
    let rate = pictures.len() as f64 / seconds;
    let classifier_family = Family {
        model: model.name.clone(),
        family: "convolutional network (CNN)",
        purpose: "names the capital letter or digit in a picture",
        layers: layers(&graph),
        parameters: plan.parameters,
        passes_per_picture: 1,
        flops_per_pass: work,
        flops_per_picture: work,
        latency_seconds: reading_latency,
        latency_runs: reading_runs,
        batch: BATCH,
        pictures_per_second: rate,
        flops_per_second: rate * work as f64,
        peak_bytes: plan.peak_bytes(),
        resident_bytes: plan.resident_bytes(),
        quality,
        quality_of: "held-out pictures are read right",
    };

    let model = DiffusionModel::letters()?;
    let options = model.options();
    let mut single = Generator::new(gpu, &model, 1, &options)?;
    let (drawing_latency, drawing_runs) =
        median_seconds(3, || single.start(&[label(0)], &[SEED])?.pictures().map(drop))?;
    let steps = single.model_calls();
    let step_flops = single.plan().flops();
    let graph = model.step_graph(1, &options)?;
    drop(single);
    let batch = BATCH.min(samples);
    let mut generator = Generator::new(gpu, &model, batch, &options)?;
    let mut drawn = Vec::with_capacity(samples);
    let mut seconds = 0.0;
    while drawn.len() < samples {
        let range = drawn.len()..(drawn.len() + batch).min(samples);
        let seeds: Vec<u64> = range.clone().map(|i| SEED + i as u64).collect();
        let asked: Vec<&str> = range.map(label).collect();
        let start = Instant::now();
        drawn.extend(generator.start(&asked, &seeds)?.pictures()?);
        seconds += start.elapsed().as_secs_f64();
        if !progress(drawn.len()) {
            return Err(Error::Interrupted);
        }
    }
    let (answers, _) = read(&mut classifier, &drawn)?;
    let quality = Reading::of(answers.iter().enumerate().map(|(i, read)| (label(i), read.as_str())));
    let drawn_samples = (0..SHOWN.min(drawn.len())).map(|i| sample(&drawn, &answers, i)).collect();
    let guided = if options.guidance == 1.0 { 1 } else { 2 };
    let plan = generator.plan();
    let rate = samples as f64 / seconds;
    let work = step_flops * steps as u64;
    let generator_family = Family {
        model: model.name().to_owned(),
        family: "diffusion model",
        purpose: "draws a capital letter or digit out of noise",
        layers: layers(&graph),
        parameters: plan.parameters,
        passes_per_picture: guided * steps,
        flops_per_pass: step_flops / guided as u64,
        flops_per_picture: work,
        latency_seconds: drawing_latency,
        latency_runs: drawing_runs,
        batch,
        pictures_per_second: rate,
        flops_per_second: rate * work as f64,
        peak_bytes: plan.peak_bytes(),
        resident_bytes: plan.resident_bytes(),
        quality,
        quality_of: "drawn pictures are read as asked",
    };

    let info = gpu.info();
    Ok(Comparison {
        version: env!("CARGO_PKG_VERSION"),
        device: info.name.clone(),
        backend: info.backend.to_str().to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        sampling: format!("{} steps of {}, guidance {}", options.steps, options.sampler, options.guidance),
        classifier: classifier_family,
        generator: generator_family,
        samples: [held_out_samples, drawn_samples],
    })
}

impl Comparison {
    /// Rows of the table: what, classifier, generator.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let row = |what: &str, of: &dyn Fn(&Family) -> String| {
            [what.to_owned(), of(&self.classifier), of(&self.generator)]
        };
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let layers = |f: &Family| {
            let parts: Vec<String> = f.layers.iter().map(|(name, n)| format!("{n}\u{a0}{name}")).collect();
            parts.join(", ")
        };
        vec![
            row("family", &|f| f.family.to_owned()),
            row("purpose", &|f| f.purpose.to_owned()),
            row("layers", &layers),
            row("parameters", &|f| units::thousands(f.parameters)),
            row("passes per picture", &|f| f.passes_per_picture.to_string()),
            row("work per pass", &|f| units::si(f.flops_per_pass as f64, "FLOP")),
            row("work per picture", &|f| units::si(f.flops_per_picture as f64, "FLOP")),
            row("one picture takes", &|f| units::seconds(f.latency_seconds)),
            row("pictures per second", &|f| {
                format!("{} (batches of {})", units::si(f.pictures_per_second, "").trim(), f.batch)
            }),
            row("speed", &|f| units::si(f.flops_per_second, "FLOP/s")),
            row("peak memory (planned)", &|f| units::bytes(f.peak_bytes)),
            row("quality", &|f| {
                format!("{} of {} {}", percent(f.quality.strict), f.quality.pictures, f.quality_of)
            }),
            row("  O/0 and I/1 as pairs", &|f| percent(f.quality.paired)),
        ]
    }

    /// The table as a picture, with samples of both.
    pub fn picture(&self) -> DynamicImage {
        let labels = self.samples.each_ref().map(|samples| {
            let label = |s: &Sample| match s.label == s.read {
                true => s.read.clone(),
                false => format!("{}, not {}", s.read, s.label),
            };
            samples.iter().map(label).collect::<Vec<_>>()
        });
        let cells = |i: usize| -> Vec<Cell> {
            let pairs = self.samples[i].iter().zip(&labels[i]);
            pairs.map(|(sample, label)| Cell { picture: &sample.picture, label }).collect()
        };
        let table = Table {
            title: "Two families of network on one device".to_owned(),
            subtitle: format!(
                "{} · {} · {} · aquatint {}",
                self.device, self.backend, self.driver, self.version
            ),
            header: vec![String::new(), self.classifier.model.clone(), self.generator.model.clone()],
            rows: self.rows().into_iter().map(Vec::from).collect(),
            samples: vec![
                ("held-out pictures, and what the classifier reads".to_owned(), cells(0)),
                ("drawn out of noise, and what the classifier reads".to_owned(), cells(1)),
            ],
            footnote: format!(
                "Drawn in {}. A multiply-add counts as two operations; times are from call to result, medians.",
                self.sampling
            ),
        };
        table.draw().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_count_as_one_label_each() {
        let reading = Reading::of([("O", "0"), ("1", "I"), ("A", "A"), ("0", "1")]);
        assert_eq!(reading, Reading { pictures: 4, strict: 0.25, paired: 0.75 });
    }

    #[test]
    fn there_are_24_faces_of_36_held_out_characters() {
        let (pictures, kinds) = held_out().unwrap();
        assert_eq!((pictures.len(), kinds), (24 * 36, 36));
        assert!(pictures.iter().all(|p| p.pixels().any(|p| p.0[0] > 128)), "no cell is empty");
    }
}
