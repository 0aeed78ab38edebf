//! `aquatint classify`: names for pictures. CPU threads decode while the GPU reads.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Result, bail};
use aquatint::formats::picture;
use aquatint::tasks::{Answer, Classifier};
use aquatint::{AdapterOptions, Error, Gpu};
use image::RgbImage;
use serde::Serialize;

use super::recipe::Recipe;

/// Pictures that the GPU takes at a time.
const BATCH: usize = 32;

#[derive(clap::Args)]
pub struct Classify {
    /// Pictures, or patterns such as `'letters/*.png'`; contact sheets of `generate` are read picture by picture
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// How many answers for each picture
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of one file.
#[derive(Serialize)]
struct FileRow {
    path: PathBuf,
    /// One for each picture: several for a contact sheet, none if the file could not be read.
    pictures: Vec<PictureRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct PictureRow {
    /// What the picture was asked to be, where a contact sheet says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    answers: Vec<Answer>,
}

/// A decoded picture and what it was asked to be.
type Picture = (RgbImage, Option<String>);

/// A file to be read, or why it cannot be.
type Entry = (PathBuf, Result<(), Error>);

/// Names as given, patterns replaced by what they match.
fn expand(images: &[String]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for image in images {
        let path = PathBuf::from(image);
        if !image.contains(['*', '?', '[']) || path.exists() {
            entries.push((path, Ok(())));
            continue;
        }
        let bad = |message: String| Err(Error::Format { path: path.clone(), message });
        match glob::glob(image) {
            Err(error) => entries.push((path.clone(), bad(format!("bad pattern: {error}")))),
            Ok(found) => {
                let before = entries.len();
                entries.extend(found.map(|entry| match entry {
                    Ok(path) => (path, Ok(())),
                    Err(e) => {
                        let path = e.path().to_owned();
                        (path.clone(), Err(Error::Io { path, source: e.into() }))
                    }
                }));
                if entries.len() == before {
                    entries.push((path.clone(), bad("no file matches".to_owned())));
                }
            }
        }
    }
    entries
}

/// The pictures of a file: one, or those of a contact sheet.
fn read(path: &Path) -> Result<Vec<Picture>, Error> {
    let picture = picture::open(path)?;
    // Only a PNG can have a recipe; a picture without one is a picture all the same.
    if let Some(recipe) = Recipe::read(path).ok().flatten()
        && let Some(pictures) = recipe.sheet.as_ref().and_then(|layout| layout.cut(&picture))
    {
        let asked = recipe.labels.into_iter().map(Some).collect::<Vec<_>>();
        return Ok(pictures.into_iter().zip(asked.into_iter().cycle()).collect());
    }
    Ok(vec![(picture, None)])
}

/// Decodes on all CPU threads, a few files ahead of whoever receives.
fn decode<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    entries: &'scope [Entry],
    next: &'scope AtomicUsize,
) -> Receiver<(usize, Result<Vec<Picture>, Error>)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(entries.len());
    let (send, receive) = sync_channel(2 * threads);
    for _ in 0..threads {
        let send = send.clone();
        scope.spawn(move || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some((path, entry)) = entries.get(i) else { break };
                // Nobody listens any more after an error of the device.
                if entry.is_ok() && send.send((i, read(path))).is_err() {
                    break;
                }
            }
        });
    }
    receive
}

/// Refuses a picture that the device cannot hold, before it stops the whole batch.
fn fits(gpu: &Gpu, path: &Path, pictures: Vec<Picture>) -> Result<Vec<Picture>, Error> {
    let target = gpu.target();
    let available = target.max_binding.min(target.max_buffer);
    let needed = |p: &Picture| 4 * u64::from(p.0.width()) * u64::from(p.0.height());
    match pictures.iter().map(needed).max() {
        Some(needed) if needed > available => Err(Error::Limit {
            device: target.name.clone(),
            what: format!("the picture {}", path.display()),
            needed,
            available,
        }),
        _ => Ok(pictures),
    }
}

/// Pictures on their way to the GPU.
struct Reader {
    classifier: Classifier,
    top: usize,
    /// Index of the file, and its pictures.
    waiting: Vec<(usize, Vec<Picture>)>,
}

impl Reader {
    fn waiting(&self) -> usize {
        self.waiting.iter().map(|(_, pictures)| pictures.len()).sum()
    }

    fn read(&mut self, rows: &mut [FileRow]) -> Result<()> {
        let (mut pictures, mut places) = (Vec::new(), Vec::new());
        for (file, decoded) in self.waiting.drain(..) {
            for (picture, asked) in decoded {
                pictures.push(picture);
                places.push((file, asked));
            }
        }
        let answers = self.classifier.classify(&pictures)?;
        for ((file, asked), mut answers) in places.into_iter().zip(answers) {
            answers.truncate(self.top);
            rows[file].pictures.push(PictureRow { asked, answers });
        }
        Ok(())
    }
}

pub fn run(args: &Classify, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let entries = expand(&args.images);
    let gpu = Gpu::with_options(options)?;
    let classifier = Classifier::letters(&gpu, BATCH)?;
    let mut reader = Reader { classifier, top: args.top.into(), waiting: Vec::new() };
    let row = |(path, entry): &Entry| FileRow {
        path: path.clone(),
        pictures: Vec::new(),
        error: entry.as_ref().err().map(ToString::to_string),
    };
    let mut rows: Vec<FileRow> = entries.iter().map(row).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        for (file, result) in decode(scope, &entries, &next) {
            match result.and_then(|pictures| fits(&gpu, &entries[file].0, pictures)) {
                Ok(pictures) => reader.waiting.push((file, pictures)),
                Err(error) => rows[file].error = Some(error.to_string()),
            }
            if reader.waiting() >= BATCH {
                reader.read(&mut rows)?;
            }
        }
        reader.read(&mut rows)
    })?;

    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
        false => print(&rows, out)?,
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
            bail!("{} of {} files could not be read", errors.len(), rows.len())
        }
    }
}

fn print(rows: &[FileRow], out: &mut dyn Write) -> io::Result<()> {
    let width = rows.iter().map(|row| row.path.display().to_string().chars().count()).max().unwrap_or(0);
    for row in rows {
        let path = row.path.display().to_string();
        match &row.pictures[..] {
            [] => {}
            [picture] => writeln!(out, "{path:<width$}  {}", line(picture))?,
            pictures => {
                let best = |p: &PictureRow| p.answers.first().map_or_else(String::new, |a| a.label.clone());
                let word: Vec<String> = pictures.iter().map(best).collect();
                let letters = word.iter().all(|l| l.chars().count() == 1);
                writeln!(out, "{path:<width$}  {}", word.join(if letters { "" } else { " " }))?;
                for picture in pictures {
                    writeln!(out, "{:<width$}    {}", "", line(picture))?;
                }
            }
        }
    }
    Ok(())
}

fn line(picture: &PictureRow) -> String {
    let answer = |a: &Answer| format!("{} {:>5.1} %", a.label, 100.0 * a.probability);
    picture.answers.iter().map(answer).collect::<Vec<_>>().join("   ")
}
