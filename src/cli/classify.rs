//! `aquatint classify`: names for pictures.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use aquatint::formats::picture;
use aquatint::tasks::{Answer, Classifier};
use aquatint::{AdapterOptions, Error, Gpu};
use serde::Serialize;

use super::pictures::{Decoded, PictureArgs, Row, Stages, conclude, expand};
use super::recipe::Recipe;

/// Name what is in pictures; contact sheets of `generate` are read picture by picture
#[derive(clap::Args)]
pub struct Classify {
    #[command(flatten)]
    pictures: PictureArgs,
    /// How many answers for each picture
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
}

#[derive(Serialize)]
struct File {
    /// One for each picture: several for a contact sheet.
    pictures: Vec<PictureRow>,
}

#[derive(Serialize)]
struct PictureRow {
    /// What the picture was asked to be, where a contact sheet says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    answers: Vec<Answer>,
}

/// The pictures of a file: one, or those of a contact sheet.
fn read(path: &Path) -> Result<Decoded, Error> {
    let picture = picture::open(path)?;
    // Only a PNG can have a recipe; a picture without one is a picture all the same.
    if let Some(recipe) = Recipe::read(path).ok().flatten()
        && let Some(pictures) = recipe.sheet.as_ref().and_then(|layout| layout.cut(&picture))
    {
        let asked = recipe.labels.into_iter().map(Some).cycle().take(pictures.len()).collect();
        return Ok(Decoded { pictures, asked });
    }
    Ok(Decoded { pictures: vec![picture], asked: vec![None] })
}

pub fn run(args: &Classify, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let entries = expand(&args.pictures.images);
    let model = args.pictures.open("letters-classifier")?;
    let gpu = Gpu::with_options(options)?;
    let batch = args.pictures.batch.into();
    let mut classifier = Classifier::new(&gpu, model, batch)?;
    let finish = |_, decoded: Decoded, answers: Vec<Vec<Answer>>| {
        let row = |(asked, mut answers): (Option<String>, Vec<Answer>)| {
            answers.truncate(args.top.into());
            PictureRow { asked, answers }
        };
        Ok(File { pictures: decoded.asked.into_iter().zip(answers).map(row).collect() })
    };
    let rows = Stages {
        gpu: &gpu,
        batch,
        whole: true,
        decode: &read,
        compute: &mut |pictures| classifier.classify(pictures),
        finish: &finish,
    }
    .run(&entries)?;
    conclude(&rows, args.pictures.json, out, print)
}

fn print(rows: &[Row<File>], out: &mut dyn Write) -> io::Result<()> {
    let width = rows.iter().map(|row| row.path.display().to_string().chars().count()).max().unwrap_or(0);
    for row in rows {
        let path = row.path.display().to_string();
        match row.result.as_ref().map(|file| &file.pictures[..]) {
            None | Some([]) => {}
            Some([picture]) => writeln!(out, "{path:<width$}  {}", line(picture))?,
            Some(pictures) => {
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
