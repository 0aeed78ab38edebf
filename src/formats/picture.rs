//! Picture files: decoded with limits, written whole or not at all, with text that says how they were made.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Cursor, Seek, Write};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::limits::{Bound, Limits};

/// Most bytes that a decoder may use besides, and most bytes of text.
const MAX_DECODER_BYTES: u64 = 1 << 30;

fn format_error(path: &Path, message: impl std::fmt::Display) -> Error {
    Error::Format { path: path.to_owned(), message: message.to_string() }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Decodes a PNG, JPEG, WebP, BMP or GIF (its first frame) as 8-bit sRGB, the
/// right way up; what is transparent becomes white.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for what is no picture, [`Error::Bound`] for more than [`Bound::Pixels`].
pub fn open(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    decode(path, BufReader::new(file))
}

/// The same for a file in memory; `name` stands in messages.
///
/// # Errors
/// [`Error::Format`] and [`Error::Bound`], as [`open`].
pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<RgbImage> {
    decode(Path::new(name), Cursor::new(bytes))
}

fn decode(path: &Path, file: impl BufRead + Seek) -> Result<RgbImage> {
    let failed = |error: image::ImageError| match error {
        image::ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            io_error(path, source)
        }
        error => format_error(path, error),
    };
    // The content decides what it is, not the name.
    let mut reader = ImageReader::new(file).with_guessed_format().map_err(|source| io_error(path, source))?;
    if reader.format().is_none() {
        return Err(format_error(path, "not a picture (PNG, JPEG, WebP, BMP or GIF)"));
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let what = || format!("{}, {width} × {height}", path.display());
    Limits::current().check(Bound::Pixels, what, u64::from(width) * u64::from(height))?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    picture.apply_orientation(orientation);
    Ok(flatten(picture))
}

/// Lays the picture on white.
fn flatten(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let rgba = picture.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    })
}

/// The text stored under `keyword` in a PNG, if there is any.
///
/// # Errors
/// [`Error::Io`], and [`Error::Format`] for what is no PNG.
pub fn read_text(path: impl AsRef<Path>, keyword: &str) -> Result<Option<String>> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    text(path, BufReader::new(file), keyword)
}

/// The same for a file in memory; `name` stands in messages.
///
/// # Errors
/// [`Error::Format`] for what is no PNG.
pub fn text_from_bytes(name: &str, bytes: &[u8], keyword: &str) -> Result<Option<String>> {
    text(Path::new(name), Cursor::new(bytes), keyword)
}

fn text(path: &Path, file: impl BufRead + Seek, keyword: &str) -> Result<Option<String>> {
    let failed = |error| format_error(path, error);
    let limits = png::Limits { bytes: MAX_DECODER_BYTES as usize };
    let mut reader = png::Decoder::new_with_limits(file, limits).read_info().map_err(failed)?;
    // Text may stand after the pixels.
    reader.finish().map_err(failed)?;
    let info = reader.info();
    let utf8 = info.utf8_text.iter().filter(|c| c.keyword == keyword).map(|c| c.get_text());
    let latin1 = info.uncompressed_latin1_text.iter().filter(|c| c.keyword == keyword);
    utf8.chain(latin1.map(|c| Ok(c.text.clone()))).next().transpose().map_err(failed)
}

/// Writes an 8-bit grey or RGB picture as PNG, with `(keyword, text)` pairs in its
/// metadata, under a temporary name that is then changed to `path`: nobody ever sees half a file.
///
/// # Errors
/// [`Error::Io`] when the folder is not there or cannot be written, or the disk is full.
pub fn save_png(path: impl AsRef<Path>, picture: &DynamicImage, text: &[(&str, &str)]) -> Result<()> {
    let path = path.as_ref();
    let rgb;
    let (color, pixels): (_, &[u8]) = match picture {
        DynamicImage::ImageLuma8(grey) => (png::ColorType::Grayscale, grey),
        DynamicImage::ImageRgb8(rgb) => (png::ColorType::Rgb, rgb),
        other => {
            rgb = other.to_rgb8();
            (png::ColorType::Rgb, &rgb)
        }
    };
    let encode = |file: &File| -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(BufWriter::new(file), picture.width(), picture.height());
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        for (keyword, text) in text {
            // The plain chunk is what most programs can show.
            match text.is_ascii() {
                true => encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?,
                false => encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?,
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()
    };
    write_whole(path, |file| {
        encode(file).map_err(|error| match error {
            png::EncodingError::IoError(source) => io_error(path, source),
            other => format_error(path, other),
        })
    })
}

/// Writes a file under a temporary name beside `path`, then renames it.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".aquatint-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What any program asks for; the user's mask takes from it.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(|source| io_error(path, source))?;
    write(file.as_file())?;
    file.flush().map_err(|source| io_error(path, source))?;
    file.persist(path).map_err(|e| io_error(path, e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgba, RgbaImage};

    #[test]
    fn pixels_and_text_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = GrayImage::from_fn(5, 3, |x, y| Luma([(40 * x + y) as u8]));
        save_png(&path, &picture.clone().into(), &[("a", "plain"), ("b", "nämlich ∞")]).unwrap();
        assert_eq!(open(&path).unwrap(), DynamicImage::from(picture).into_rgb8());
        assert_eq!(read_text(&path, "a").unwrap().as_deref(), Some("plain"));
        assert_eq!(read_text(&path, "b").unwrap().as_deref(), Some("nämlich ∞"));
        assert_eq!(read_text(&path, "c").unwrap(), None);
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a.png"], "nothing else is left behind");
    }

    #[test]
    fn the_transparent_is_white() {
        let picture = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 0, 100, [255, 0, 51][x as usize]]));
        let pixels: Vec<[u8; 3]> = flatten(picture.into()).pixels().map(|p| p.0).collect();
        assert_eq!(pixels, [[200, 0, 100], [255, 255, 255], [244, 204, 224]]);
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let message = |path: &Path| open(path).unwrap_err().to_string();
        assert!(message(&path).contains("a.png"), "{}", message(&path));
        std::fs::write(&path, "no picture at all").unwrap();
        assert!(message(&path).contains("not a picture"), "{}", message(&path));
        save_png(&path, &RgbImage::new(64, 64).into(), &[]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(open(&path), Err(Error::Format { .. })), "{}", message(&path));
        // The header alone is enough to refuse a picture that is too large.
        let mut huge = whole;
        huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let crc = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        std::fs::write(&path, &huge).unwrap();
        assert!(message(&path).contains("16384 × 16384"), "{}", message(&path));
    }

    /// PNG specification, annex D, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, &b| (0..8).fold(crc ^ u32::from(b), step))
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let path = tempfile::tempdir().unwrap().path().join("gone").join("a.png");
        let error = save_png(&path, &RgbImage::new(1, 1).into(), &[]).unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
    }
}
