//! What the commands on pictures share: which files, which network, and work in three stages that overlap: CPU threads
//! decode, the GPU computes, CPU threads encode. A file that fails is reported and the others are done.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Result, bail};
use aquatint::formats::picture;
use aquatint::models::vision::VisionModel;
use aquatint::models::{self, letters};
use aquatint::{Error, Gpu};
use image::{DynamicImage, RgbImage};
use serde::Serialize;

use super::{make_folder_of, progress};

/// Names of files that are read in a folder.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];

#[derive(clap::Args)]
pub struct PictureArgs {
    /// Pictures, folders of them, or patterns such as `'photos/*.jpg'`
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Network: a bundled one's name, an .onnx or .safetensors file, or a folder of timm's
    /// [default: the bundled one for this]
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// Names of the network's classes, a line each, or a JSON list
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Most pictures of one size that the GPU takes at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl PictureArgs {
    /// The network that is asked for, or the one for the task.
    pub fn open(&self, default: &str) -> Result<VisionModel, Error> {
        let labels = self.labels.as_deref().map(models::read_labels).transpose()?;
        match self.model.as_deref().unwrap_or(default) {
            "letters-classifier" => {
                let mut model = letters::letters_classifier()?;
                model.labels = labels.unwrap_or(model.labels);
                Ok(model)
            }
            name => models::open_with(name, labels),
        }
    }
}

/// A file to be read, or why it cannot be.
pub type Entry = (PathBuf, Result<(), Error>);

/// Names as given; folders and patterns replaced by what is in them.
pub fn expand(images: &[String]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for image in images {
        let path = PathBuf::from(image);
        if path.is_dir() {
            entries.extend(pictures_in(&path));
        } else if !image.contains(['*', '?', '[']) || path.exists() {
            entries.push((path, Ok(())));
        } else {
            entries.extend(matches(image));
        }
    }
    entries
}

fn bad(path: &Path, message: &str) -> Entry {
    (path.to_owned(), Err(Error::Format { path: path.to_owned(), message: message.to_owned() }))
}

/// The pictures in a folder, by name.
fn pictures_in(folder: &Path) -> Vec<Entry> {
    let found = match std::fs::read_dir(folder) {
        Ok(found) => found,
        Err(source) => return vec![(folder.to_owned(), Err(Error::Io { path: folder.to_owned(), source }))],
    };
    let is_picture = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && path.is_file()
    };
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).filter(is_picture).collect();
    paths.sort();
    match paths.is_empty() {
        true => vec![bad(folder, "no picture in this folder")],
        false => paths.into_iter().map(|path| (path, Ok(()))).collect(),
    }
}

fn matches(pattern: &str) -> Vec<Entry> {
    let path = Path::new(pattern);
    let found = match glob::glob(pattern) {
        Ok(found) => found,
        Err(error) => return vec![bad(path, &format!("bad pattern: {error}"))],
    };
    let entries: Vec<Entry> = found
        .map(|entry| match entry {
            Ok(path) => (path, Ok(())),
            Err(e) => {
                let path = e.path().to_owned();
                (path.clone(), Err(Error::Io { path, source: e.into() }))
            }
        })
        .collect();
    if entries.is_empty() { vec![bad(path, "no file matches")] } else { entries }
}

/// What a file holds.
pub struct Decoded {
    /// Usually one; several of a contact sheet.
    pub pictures: Vec<RgbImage>,
    /// What each was asked to be, where a contact sheet says so.
    pub asked: Vec<Option<String>>,
}

/// The one picture of a file.
pub fn decode_one(path: &Path) -> Result<Decoded, Error> {
    Ok(Decoded { pictures: vec![picture::open(path)?], asked: vec![None] })
}

/// What came of one file.
#[derive(Serialize)]
pub struct Row<R> {
    pub path: PathBuf,
    #[serde(flatten)]
    pub result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

type Compute<'a, O> = dyn FnMut(&[RgbImage]) -> Result<Vec<O>, Error> + 'a;
type Finish<'a, O, R> = dyn Fn(usize, Decoded, Vec<O>) -> Result<R, Error> + Sync + 'a;

/// The three stages. A command says how to do each.
pub struct Stages<'a, O, R> {
    pub gpu: &'a Gpu,
    /// Pictures that are waited for before the GPU begins.
    pub batch: usize,
    /// Whether a picture must fit into one buffer.
    pub whole: bool,
    pub decode: &'a (dyn Fn(&Path) -> Result<Decoded, Error> + Sync),
    /// A result for each picture.
    pub compute: &'a mut Compute<'a, O>,
    /// From the index of the file and its results to what is reported; encodes and writes.
    pub finish: &'a Finish<'a, O, R>,
}

impl<O: Send, R: Send> Stages<'_, O, R> {
    /// Does all files. Fails only when the device does.
    pub fn run(self, entries: &[Entry]) -> Result<Vec<Row<R>>, Error> {
        let rows: Vec<Row<R>> = entries
            .iter()
            .map(|(path, entry)| Row {
                path: path.clone(),
                result: None,
                error: entry.as_ref().err().map(ToString::to_string),
            })
            .collect();
        let rows = Mutex::new(rows);
        let bar = progress::pictures(entries.iter().filter(|(_, entry)| entry.is_ok()).count() as u64);
        let report = |file: usize, result: Result<R, Error>| {
            let mut rows = rows.lock().unwrap_or_else(|e| e.into_inner());
            match result {
                Ok(result) => rows[file].result = Some(result),
                Err(error) => {
                    let (path, message) = (rows[file].path.display().to_string(), error.to_string());
                    let named = message.contains(&path);
                    rows[file].error = Some(if named { message } else { format!("{path}: {message}") });
                }
            }
            bar.inc(1);
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(entries.len().max(1));
        let next = AtomicUsize::new(0);
        let (decode, finish) = (self.decode, self.finish);
        let (gpu, whole, compute) = (self.gpu, self.whole, self.compute);
        std::thread::scope(|scope| -> Result<(), Error> {
            let (send_done, done) = sync_channel::<(usize, Decoded, Vec<O>)>(2 * threads);
            let done = std::sync::Arc::new(Mutex::new(done));
            let report = &report;
            for _ in 0..threads {
                let done = done.clone();
                scope.spawn(move || {
                    loop {
                        let received = done.lock().unwrap_or_else(|e| e.into_inner()).recv();
                        let Ok((file, decoded, outputs)) = received else { break };
                        report(file, finish(file, decoded, outputs));
                    }
                });
            }
            let mut waiting: Vec<(usize, Decoded)> = Vec::new();
            let mut work = |waiting: Vec<(usize, Decoded)>| -> Result<(), Error> {
                for (file, result) in computed(waiting, compute)? {
                    match result {
                        // The receivers live until this sender goes.
                        Ok((decoded, outputs)) => drop(send_done.send((file, decoded, outputs))),
                        Err(error) => report(file, Err(error)),
                    }
                }
                Ok(())
            };
            for (file, result) in decode_all(scope, entries, &next, threads, decode) {
                match result.and_then(|decoded| if whole { fits(gpu, decoded) } else { Ok(decoded) }) {
                    Ok(decoded) => waiting.push((file, decoded)),
                    Err(error) => report(file, Err(error)),
                }
                if waiting.iter().map(|(_, d)| d.pictures.len()).sum::<usize>() >= self.batch {
                    work(std::mem::take(&mut waiting))?;
                }
            }
            work(waiting)
        })?;
        bar.finish_and_clear();
        Ok(rows.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}

type Computed<O> = Vec<(usize, Result<(Decoded, Vec<O>), Error>)>;

/// Computes a batch; when that fails, file by file, so that only those fail that must.
fn computed<O>(waiting: Vec<(usize, Decoded)>, compute: &mut Compute<O>) -> Result<Computed<O>, Error> {
    let fatal = |error: &Error| matches!(error, Error::DeviceLost { .. } | Error::Interrupted);
    if waiting.len() > 1 {
        let mut places = Vec::new();
        let mut pictures = Vec::new();
        let (mut files, mut decoded): (Vec<usize>, Vec<Decoded>) = waiting.into_iter().unzip();
        for d in &mut decoded {
            places.push(d.pictures.len());
            pictures.append(&mut d.pictures);
        }
        let result = compute(&pictures);
        let mut pictures = pictures.into_iter();
        for (d, &count) in decoded.iter_mut().zip(&places) {
            d.pictures.extend(pictures.by_ref().take(count));
        }
        return match result {
            Ok(outputs) => {
                let mut outputs = outputs.into_iter();
                let each = files.into_iter().zip(decoded);
                Ok(each
                    .map(|(file, d)| {
                        let own = outputs.by_ref().take(d.pictures.len()).collect();
                        (file, Ok((d, own)))
                    })
                    .collect())
            }
            Err(error) if fatal(&error) => Err(error),
            Err(_) => {
                let mut all = Vec::new();
                for (file, d) in files.drain(..).zip(decoded) {
                    all.extend(computed(vec![(file, d)], compute)?);
                }
                Ok(all)
            }
        };
    }
    let mut all = Vec::new();
    for (file, d) in waiting {
        match compute(&d.pictures) {
            Ok(outputs) => all.push((file, Ok((d, outputs)))),
            Err(error) if fatal(&error) => return Err(error),
            Err(error) => all.push((file, Err(error))),
        }
    }
    Ok(all)
}

/// Decodes on all CPU threads, a few files ahead of whoever receives.
fn decode_all<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    entries: &'scope [Entry],
    next: &'scope AtomicUsize,
    threads: usize,
    decode: &'scope (dyn Fn(&Path) -> Result<Decoded, Error> + Sync),
) -> Receiver<(usize, Result<Decoded, Error>)> {
    let (send, receive) = sync_channel(2 * threads);
    for _ in 0..threads {
        let send = send.clone();
        scope.spawn(move || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some((path, entry)) = entries.get(i) else { break };
                // Nobody listens any more after an error of the device.
                if entry.is_ok() && send.send((i, decode(path))).is_err() {
                    break;
                }
            }
        });
    }
    receive
}

/// Refuses a picture that the device cannot hold, before it stops the whole batch.
fn fits(gpu: &Gpu, decoded: Decoded) -> Result<Decoded, Error> {
    let target = gpu.target();
    let available = target.max_binding.min(target.max_buffer);
    let needed = |p: &RgbImage| 4 * u64::from(p.width()) * u64::from(p.height());
    match decoded.pictures.iter().map(needed).max() {
        Some(needed) if needed > available => Err(Error::Limit {
            device: target.name.clone(),
            what: "the picture".to_owned(),
            needed,
            available,
        }),
        _ => Ok(decoded),
    }
}

/// Prints the rows, as JSON or by `print`, and fails if a file did.
pub fn conclude<R: Serialize>(
    rows: &[Row<R>],
    json: bool,
    out: &mut dyn Write,
    print: impl FnOnce(&[Row<R>], &mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    match json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(rows)?)?,
        false => print(rows, out)?,
    }
    out.flush()?;
    let errors: Vec<&String> = rows.iter().filter_map(|row| row.error.as_ref()).collect();
    match errors[..] {
        [] => Ok(()),
        [error] => bail!("{error}"),
        _ => {
            for error in &errors {
                let _ = writeln!(io::stderr(), "{error}");
            }
            bail!("{} of {} files failed", errors.len(), rows.len())
        }
    }
}

/// Where pictures are written: a file for one input, else a folder.
pub struct Targets {
    /// Without extension, one for each input.
    stems: Vec<PathBuf>,
    inputs: Vec<PathBuf>,
}

impl Targets {
    /// `NAME-word` in the folder `out`, or here; `out` itself if that is a `.png` and there is one input.
    pub fn new(out: Option<&Path>, entries: &[Entry], word: &str) -> Result<Self> {
        let is_file = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        let inputs = entries.iter().filter_map(|(path, _)| path.canonicalize().ok()).collect();
        if let Some(path) = out.filter(|path| is_file(path)) {
            if entries.len() != 1 {
                bail!("--out {}: one file for {} pictures; give a folder", path.display(), entries.len());
            }
            make_folder_of(path)?;
            return Ok(Targets { stems: vec![path.with_extension("")], inputs });
        }
        let folder = out.unwrap_or(Path::new(""));
        make_folder_of(&folder.join("file"))?;
        let mut stems: Vec<PathBuf> = Vec::new();
        for (path, _) in entries {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // Inputs of the same name out of different folders are numbered.
            let numbered = (1..).map(|k| match k {
                1 => folder.join(format!("{name}-{word}")),
                k => folder.join(format!("{name}-{word}-{k}")),
            });
            stems.extend(numbered.into_iter().find(|stem| !stems.contains(stem)));
        }
        Ok(Targets { stems, inputs })
    }

    /// Writes a PNG for input `file`; `part` tells several of one input apart. Inputs are never written over.
    pub fn save(&self, file: usize, part: &str, picture: impl Into<DynamicImage>) -> Result<PathBuf, Error> {
        let mut name = self.stems[file].as_os_str().to_owned();
        name.push(format!("{part}.png"));
        let path = PathBuf::from(name);
        if path.canonicalize().is_ok_and(|path| self.inputs.contains(&path)) {
            return Err(Error::Invalid {
                what: "output".to_owned(),
                expected: "a file that is no input".to_owned(),
                found: path.display().to_string(),
            });
        }
        picture::save_png(&path, &picture.into(), &[])?;
        Ok(path)
    }
}

/// Prints a line for each file that was done: its path, then what `line` says.
pub fn lines<R>(rows: &[Row<R>], out: &mut dyn Write, line: impl Fn(&R) -> String) -> io::Result<()> {
    let width = rows.iter().map(|row| row.path.display().to_string().chars().count()).max().unwrap_or(0);
    for row in rows {
        if let Some(result) = &row.result {
            writeln!(out, "{:<width$}  {}", row.path.display().to_string(), line(result))?;
        }
    }
    Ok(())
}
