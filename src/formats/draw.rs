//! Rectangles, pictures and an 8×8 font: all that sheets and tables are drawn with.

use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

/// Colours of everything that is drawn.
pub const PAPER: Rgb<u8> = Rgb([0xf6, 0xf3, 0xec]);
pub const INK: Rgb<u8> = Rgb([0x2b, 0x2a, 0x28]);
pub const QUIET: Rgb<u8> = Rgb([0x8b, 0x85, 0x7a]);
pub const LINE: Rgb<u8> = Rgb([0xdd, 0xd7, 0xca]);

/// Side of a character in font pixels, its margin included.
const GLYPH: u32 = 8;

/// Where the glyph of a character that the font lacks would be.
const MISSING: [u8; 8] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0];

/// Width of `text` in pixels when each font pixel is `scale` wide.
pub fn text_width(text: &str, scale: u32) -> u32 {
    // The last column of a glyph is empty.
    (text.chars().count() as u32 * GLYPH).saturating_sub(1) * scale
}

/// Height of a line of text, descenders included.
pub const fn text_height(scale: u32) -> u32 {
    GLYPH * scale
}

/// A picture under the brush. What falls outside is cut off.
pub struct Canvas(pub RgbImage);

impl Canvas {
    pub fn new(width: u32, height: u32) -> Self {
        Canvas(RgbImage::from_pixel(width, height, PAPER))
    }

    pub fn rectangle(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Rgb<u8>) {
        for y in y..(y + height).min(self.0.height()) {
            for x in x..(x + width).min(self.0.width()) {
                self.0.put_pixel(x, y, colour);
            }
        }
    }

    /// `text` with its top left corner at `x`, `y`.
    pub fn text(&mut self, x: u32, y: u32, scale: u32, colour: Rgb<u8>, text: &str) {
        for (i, c) in text.chars().enumerate() {
            let glyph = BASIC_FONTS.get(c).or_else(|| LATIN_FONTS.get(c)).unwrap_or(MISSING);
            for (row, bits) in (0..).zip(glyph) {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    let x = x + (i as u32 * GLYPH + column) * scale;
                    self.rectangle(x, y + row * scale, scale, scale, colour);
                }
            }
        }
    }

    /// `text` centred on `x`.
    pub fn text_centred(&mut self, x: u32, y: u32, scale: u32, colour: Rgb<u8>, text: &str) {
        self.text(x.saturating_sub(text_width(text, scale) / 2), y, scale, colour, text);
    }

    /// A picture `scale` times as large, with its top left corner at `x`, `y`.
    pub fn picture(&mut self, x: u32, y: u32, scale: u32, picture: &RgbImage) {
        let (x, y) = (i64::from(x), i64::from(y));
        if scale == 1 {
            imageops::replace(&mut self.0, picture, x, y);
            return;
        }
        let (width, height) = (picture.width() * scale, picture.height() * scale);
        // An interpolating filter: with an odd scale the pixel in the middle of each block is the original.
        let enlarged = imageops::resize(picture, width, height, FilterType::CatmullRom);
        imageops::replace(&mut self.0, &enlarged, x, y);
    }
}
