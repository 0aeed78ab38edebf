//! A picture of any size four times as large, by the ×4 upscaler in tiles that overlap.

use image::RgbImage;
use image::imageops::crop_imm;

use super::small::{RGB, channels_last};
use super::{Painter, StartFrom, Wish};
use crate::diffusion::{CpuGenerator, cuda_normal};
use crate::error::{Error, Result};
use crate::tasks::sampling::NoiseSource;

/// Sides of the result over those of the picture.
const FACTOR: usize = 4;

impl Painter {
    /// Enlarges a picture that is at least as large as the painter's small ones, in tiles of that size which overlap
    /// by `overlap` of its pixels. The noise of the first step belongs to the whole picture, so tiles agree where they
    /// overlap; there the one passes into the other. A picture of one tile is what [`Painter::start`] makes of it.
    ///
    /// # Errors
    /// As [`Painter::start`], and [`Error::Invalid`] for pictures that are too small and tiles that hardly advance.
    pub fn enlarge(
        &mut self,
        wish: &Wish,
        seed: u64,
        picture: &RgbImage,
        overlap: usize,
    ) -> Result<RgbImage> {
        let invalid = |what: &str, expected: String, found: String| {
            Err(Error::Invalid { what: what.to_owned(), expected, found })
        };
        if self.canvas != StartFrom::Small {
            return invalid("painter to enlarge", "one for Small".to_owned(), format!("{:?}", self.canvas));
        }
        let [h, w, c] = self.parts().latent();
        let [height, width] = [picture.height() as usize, picture.width() as usize];
        if height < h || width < w {
            return invalid("picture", format!("at least {w}×{h} pixels"), format!("{width}×{height}"));
        }
        if 2 * overlap > h.min(w) {
            return invalid("overlap of tiles", format!("at most {}", h.min(w) / 2), overlap.to_string());
        }
        let whole = [height, width];
        let [noise, latents] = self.whole_noise(seed, whole, [RGB, c]);
        let scale = self.around.table.init_noise_scale as f32;
        let mut tiles = Vec::new();
        for top in places(height, h, overlap) {
            tiles.extend(places(width, w, overlap).into_iter().map(|left| [top, left]));
        }
        let mut result = Blend::new(whole.map(|side| FACTOR * side));
        for (chunk, some) in tiles.chunks(self.batch()).enumerate() {
            let first = chunk * self.batch();
            let seeds: Vec<u64> = (0..some.len()).map(|i| seed.wrapping_add((first + i) as u64)).collect();
            self.tell(&vec![wish.clone(); some.len()], &seeds)?;
            self.around.rewind(&seeds, 0)?;
            // What the batch has too many repeats the last.
            let tile = |i: usize| some[i.min(some.len() - 1)];
            let smalls: Vec<RgbImage> = (0..self.batch())
                .map(|i| {
                    let [top, left] = tile(i).map(|at| at as u32);
                    crop_imm(picture, left, top, w as u32, h as u32).to_image()
                })
                .collect();
            let of_tile =
                |values: &[f32], channels: usize, i: usize| crop(values, [width, channels], tile(i), [h, w]);
            let noise = (0..self.batch()).flat_map(|i| of_tile(&noise, RGB, i)).collect();
            let latents: Vec<f32> =
                (0..some.len()).flat_map(|i| of_tile(&latents, c, i)).map(|v| v * scale).collect();
            self.around.begin_from(&latents)?;
            self.show_small(&smalls.iter().collect::<Vec<_>>(), &seeds, Some(noise))?;
            let pictures = self.sampling(seeds, 0).pictures()?;
            for (picture, tile) in pictures.iter().zip(some) {
                result.add(picture, tile.map(|at| FACTOR * at), FACTOR * overlap);
            }
        }
        Ok(result.picture())
    }

    /// The first two tensors of a seed for a whole picture, `[h, w, c]` each.
    fn whole_noise(&self, seed: u64, [h, w]: [usize; 2], channels: [usize; 2]) -> [Vec<f32>; 2] {
        let mut generator = CpuGenerator::new(seed);
        [0, 1].map(|draw| {
            let count = h * w * channels[draw];
            let values = match self.options.noise {
                NoiseSource::Cpu => generator.normal(count),
                NoiseSource::Cuda => (0..count).map(|i| cuda_normal(seed, draw as u32, i as u32)).collect(),
            };
            channels_last(&values, channels[draw])
        })
    }
}

/// Where tiles of `size` begin that cover `whole`, evenly, and overlap by at least `overlap`.
fn places(whole: usize, size: usize, overlap: usize) -> Vec<usize> {
    let more = (whole - size).div_ceil(size - overlap);
    (0..=more).map(|i| (i * (whole - size)).checked_div(more).unwrap_or(0)).collect()
}

/// A tile of `[h, w, c]`.
fn crop(
    values: &[f32],
    [width, channels]: [usize; 2],
    [top, left]: [usize; 2],
    [h, w]: [usize; 2],
) -> Vec<f32> {
    let row = |y: usize| &values[((top + y) * width + left) * channels..][..w * channels];
    (0..h).flat_map(row).copied().collect()
}

/// The weighted mean of tiles: sums of red, green, blue and of the weights.
struct Blend {
    size: [usize; 2],
    sums: Vec<[f32; 4]>,
}

impl Blend {
    fn new(size: [usize; 2]) -> Self {
        Blend { size, sums: vec![[0.0; 4]; size[0] * size[1]] }
    }

    /// Adds a tile, whose weight grows from its edges over `overlap` pixels, but not from those of the whole.
    fn add(&mut self, tile: &RgbImage, [top, left]: [usize; 2], overlap: usize) {
        let [height, width] = self.size;
        let [h, w] = [tile.height() as usize, tile.width() as usize];
        let ramp = |at: usize, begin: usize, size: usize, whole: usize| {
            let from = if begin == 0 { usize::MAX } else { at };
            let to = if begin + size == whole { usize::MAX } else { size - 1 - at };
            ((from.min(to) as f32 + 0.5) / overlap.max(1) as f32).min(1.0)
        };
        for (x, y, pixel) in tile.enumerate_pixels() {
            let [x, y] = [x as usize, y as usize];
            let weight = ramp(y, top, h, height) * ramp(x, left, w, width);
            let sum = &mut self.sums[(top + y) * width + left + x];
            for (sum, value) in sum.iter_mut().zip(pixel.0.map(f32::from).into_iter().chain([1.0])) {
                *sum += weight * value;
            }
        }
    }

    fn picture(&self) -> RgbImage {
        let [height, width] = self.size;
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let [r, g, b, weight] = self.sums[y as usize * width + x as usize];
            image::Rgb([r, g, b].map(|sum| (sum / weight).round() as u8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_whole_and_overlap() {
        for (whole, size, overlap) in [(10, 10, 2), (11, 10, 2), (64, 16, 4), (100, 16, 8), (33, 16, 0)] {
            let places = places(whole, size, overlap);
            assert_eq!((places[0], places[places.len() - 1]), (0, whole - size));
            assert!(places.windows(2).all(|at| at[0] < at[1] && at[1] + overlap <= at[0] + size));
        }
    }

    #[test]
    fn tiles_of_one_picture_are_that_picture() {
        let whole =
            RgbImage::from_fn(23, 9, |x, y| image::Rgb([(x * 11) as u8, (y * 28) as u8, (x * y) as u8]));
        let mut blend = Blend::new([9, 23]);
        for top in places(9, 6, 2) {
            for left in places(23, 8, 3) {
                blend.add(&crop_imm(&whole, left as u32, top as u32, 8, 6).to_image(), [top, left], 3);
            }
        }
        assert_eq!(blend.picture(), whole);
    }
}
