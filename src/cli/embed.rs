//! `aquatint embed`: pictures as vectors.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aquatint::formats::{arrow, npy};
use aquatint::tasks::{Embedder, cosine};
use aquatint::{AdapterOptions, Gpu};
use serde::Serialize;

use super::make_folder_of;
use super::pictures::{PictureArgs, Row, Stages, conclude, decode_one, expand, lines};

#[derive(clap::Args)]
pub struct Embed {
    #[command(flatten)]
    pictures: PictureArgs,
    /// Layer whose result is the vector, averaged over the pixels of a feature map
    /// [default: the network's embedding, or what its last linear layer reads]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// File for the vectors, a row for each picture that could be read: .npy (f32), .arrow (with the paths) or .json
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print how alike two pictures are: the cosine of the angle between their vectors, −1 to 1
    #[arg(long, conflicts_with = "out")]
    compare: bool,
}

/// Of the file with all vectors.
#[derive(Clone, Copy)]
enum Format {
    Npy,
    Arrow,
    Json,
}

#[derive(Serialize)]
struct Vector {
    vector: Vec<f32>,
}

#[derive(Serialize)]
struct Alike<'a> {
    a: &'a Path,
    b: &'a Path,
    cosine: f64,
}

pub fn run(args: &Embed, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let entries = expand(&args.pictures.images);
    if args.compare && entries.len() != 2 {
        bail!("--compare takes two pictures, found {}", entries.len());
    }
    let format = args.out.as_deref().map(|path| {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("npy") => Ok(Format::Npy),
            Some("arrow") => Ok(Format::Arrow),
            Some("json") => Ok(Format::Json),
            _ => bail!("--out {}: expected a name that ends in .npy, .arrow or .json", path.display()),
        }
    });
    let format = format.transpose()?;
    let model = args.pictures.open("letters-classifier")?;
    if let Some(path) = &args.out {
        make_folder_of(path)?;
    }
    let gpu = Gpu::with_options(options)?;
    let batch = args.pictures.batch.into();
    let mut embedder = Embedder::new(&gpu, model, args.layer.as_deref(), batch)?;
    let rows = Stages {
        gpu: &gpu,
        batch,
        whole: true,
        decode: &decode_one,
        compute: &mut |pictures| embedder.embed(pictures),
        finish: &|_, _, mut vectors: Vec<Vec<f32>>| Ok(Vector { vector: vectors.swap_remove(0) }),
    }
    .run(&entries)?;
    if let (Some(path), Some(format)) = (&args.out, format) {
        write(path, format, &rows).with_context(|| path.display().to_string())?;
    }
    if args.compare
        && let [a, b] = &rows[..]
        && let (Some(va), Some(vb)) = (&a.result, &b.result)
    {
        let cosine = cosine(&va.vector, &vb.vector);
        match args.pictures.json {
            true => {
                let alike = Alike { a: &a.path, b: &b.path, cosine };
                writeln!(out, "{}", serde_json::to_string_pretty(&alike)?)?;
            }
            false => writeln!(out, "{cosine:.4}")?,
        }
        return Ok(());
    }
    conclude(&rows, args.pictures.json, out, print)
}

/// All vectors as one file.
fn write(path: &Path, format: Format, rows: &[Row<Vector>]) -> Result<()> {
    let read: Vec<(String, &[f32])> = rows
        .iter()
        .filter_map(|row| Some((row.path.display().to_string(), &row.result.as_ref()?.vector[..])))
        .collect();
    let (names, vectors): (Vec<String>, Vec<&[f32]>) = read.into_iter().unzip();
    let columns = vectors.first().map_or(0, |v| v.len());
    match format {
        Format::Npy => npy::save(path, [vectors.len(), columns], &vectors.concat())?,
        Format::Arrow => arrow::save(path, &names, columns, &vectors.concat())?,
        Format::Json => npy::save_text(path, &serde_json::to_string(rows)?)?,
    }
    Ok(())
}

fn print(rows: &[Row<Vector>], out: &mut dyn Write) -> io::Result<()> {
    lines(rows, out, |v| {
        let first: Vec<String> = v.vector.iter().take(4).map(|x| format!("{x:.4}")).collect();
        format!("{} numbers: {} …", v.vector.len(), first.join(" "))
    })
}
