//! The picture that a painting begins with, and its mask.

use std::path::Path;

use anyhow::Result;
use aquatint::Error;
use aquatint::formats::picture;
use aquatint::tasks::{Canvas, StartFrom};
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

use super::MAX_SIDE;

/// A picture to begin with and where it is painted over.
pub struct Begin {
    pub picture: RgbImage,
    pub mask: Option<GrayImage>,
}

impl Begin {
    pub fn canvas(&self) -> Canvas<'_> {
        Canvas { picture: &self.picture, mask: self.mask.as_ref() }
    }

    /// What a painter must be made for.
    pub fn kind(&self) -> StartFrom {
        if self.mask.is_some() { StartFrom::Masked } else { StartFrom::Picture }
    }
}

/// Reads the picture to begin with and its mask; `extend` makes it larger, and a mask of what is new.
pub fn read(picture: &Path, mask: Option<&Path>, extend: Option<&[u32]>) -> Result<Begin> {
    let whole = picture::open(picture)?;
    if let Some(sides) = extend {
        let &[left, top, right, bottom] = sides else {
            let found = format!("{} numbers", sides.len());
            let expected = "four: left, top, right, bottom".to_owned();
            return Err(Error::Invalid { what: "--extend".to_owned(), expected, found }.into());
        };
        let (w, h) = whole.dimensions();
        let size = |a: u32, b: u32, c: u32| a.saturating_add(b).saturating_add(c);
        let (width, height) = (size(w, left, right), size(h, top, bottom));
        if width.max(height) as usize > MAX_SIDE {
            let found = format!("{width}×{height}");
            let expected = format!("a picture of at most {MAX_SIDE} pixels a side");
            return Err(Error::Invalid { what: "--extend".to_owned(), expected, found }.into());
        }
        // What is new begins as the nearest edge.
        let near = |at: u32, before: u32, size: u32| at.saturating_sub(before).min(size - 1);
        let picture =
            RgbImage::from_fn(width, height, |x, y| *whole.get_pixel(near(x, left, w), near(y, top, h)));
        let inside = |x: u32, y: u32| (left..left + w).contains(&x) && (top..top + h).contains(&y);
        let mask =
            GrayImage::from_fn(width, height, |x, y| image::Luma([if inside(x, y) { 0 } else { 255 }]));
        return Ok(Begin { picture, mask: Some(mask) });
    }
    let mask = mask.map(|mask| Ok::<_, Error>(imageops::grayscale(&picture::open(mask)?))).transpose()?;
    Ok(Begin { picture: whole, mask })
}

pub fn sized(begin: Begin, width: u32, height: u32) -> Begin {
    let Begin { picture, mask } = begin;
    let is_size = |size: (u32, u32)| size == (width, height);
    Begin {
        picture: match is_size(picture.dimensions()) {
            true => picture,
            false => imageops::resize(&picture, width, height, FilterType::Lanczos3),
        },
        mask: mask.map(|mask| match is_size(mask.dimensions()) {
            true => mask,
            false => imageops::resize(&mask, width, height, FilterType::Nearest),
        }),
    }
}
