//! Pictures out of pictures: larger, cleaner, or in another style. What is large goes through the network in
//! overlapping tiles.

use image::{GenericImage, RgbImage};

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::vision::VisionModel;
use crate::ops::strided::Range;
use crate::plan::Plan;
use crate::tasks::reach::{Reach, reach};
use crate::tasks::sized::{Size, SizedNetworks, invalid, picture, size_of, wanted, words};
use crate::tensor::DType;

/// Device memory that one tile may take.
const TILE_BYTES: u64 = 256 << 20;

/// Device memory that a picture may take which cannot be cut into tiles.
const WHOLE_BYTES: u64 = 4 << 30;

/// Sides of tiles that are tried, input pixels.
const TILES: [usize; 6] = [1024, 768, 512, 384, 256, 128];

/// Appends a network from pictures to pictures: `pictures` `[n, h, w]` (u32, red in the lowest byte) to such words of
/// `[n, h · factor, w · factor]`; what the network wants as padding is cut off again.
///
/// # Errors
/// Those of the network, and [`Error::Invalid`] for one that makes no `picture`, or at another scale than a whole number.
pub fn redraw(g: &mut Graph, model: &VisionModel, pictures: ValueId) -> Result<ValueId> {
    let [n, height, width] = g.shape(pictures)[..] else {
        return Err(invalid("pictures", "[n, h, w]", g.shape(pictures).to_string()));
    };
    let x = model.preprocess.append(g, pictures, DType::F32)?;
    let [_, padded, ..] = g.shape(x)[..] else { return Err(invalid("input", "[n, h, w, c]", String::new())) };
    let outputs = model.build(g, x)?;
    let y = wanted(model, &outputs, "picture")?;
    let y = g.cast(y, DType::F32)?;
    let out = g.shape(y).clone();
    let factor = out.get(1).map_or(0, |h| h / padded);
    let scaled = [n, g.shape(x)[1] * factor, g.shape(x)[2] * factor];
    if factor == 0 || out.len() != 4 || out[..3] != scaled {
        let expected = "[n, h, w, c] at a whole multiple of the input's size";
        return Err(invalid(&format!("picture of network {}", model.name), expected, out.to_string()));
    }
    // A network of a fixed size makes pictures of that size.
    let y = match model.preprocess.size {
        Some(_) => y,
        None => {
            let until = |stop| Range { start: 0, stop: Some(stop), step: 1 };
            g.slice(y, &[Range::all(), until(height * factor), until(width * factor), Range::all()])?
        }
    };
    g.picture_from_tensor(y, 0, 1.0, 0.0)
}

fn graph(model: &VisionModel, n: usize, [height, width]: Size) -> Result<Graph> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [n, height, width], DType::U32);
    let redrawn = redraw(&mut g, model, pictures)?;
    g.output("picture", redrawn);
    Ok(g)
}

/// A part of an axis that goes through the network, and what of it is kept; input pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    start: usize,
    end: usize,
    keep: [usize; 2],
}

/// Cuts `length` into tiles of `side` that start at multiples of `period` and overlap so that each pixel is kept from a
/// tile in which `margin` pixels around it are there, unless the picture ends before. The last may be `period` longer.
fn tiles(length: usize, side: usize, Reach { margin, period, .. }: Reach) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    let mut kept = 0;
    while kept < length {
        let start = kept.saturating_sub(margin) / period * period;
        let last = start + side >= length;
        // The last is as long as the others, so that one network serves it.
        let start = if last { length.saturating_sub(side) / period * period } else { start };
        let end = if last { length } else { start + side };
        let until = if last { length } else { end - margin };
        tiles.push(Tile { start, end, keep: [kept, until] });
        kept = until;
    }
    tiles
}

/// A network from pictures to pictures on a device.
#[derive(Debug)]
pub struct Redrawer {
    gpu: Gpu,
    model: VisionModel,
    reach: Option<Reach>,
    /// Side of the tiles, once it is known.
    side: Option<usize>,
    networks: SizedNetworks,
}

impl Redrawer {
    /// Networks are made when they are first needed.
    ///
    /// # Errors
    /// Those of the network, and [`Error::Invalid`] for one that makes no `picture`.
    pub fn new(gpu: &Gpu, model: VisionModel) -> Result<Self> {
        let reach = match model.preprocess.size {
            Some(_) => None,
            None => reach(&model)?,
        };
        Ok(Redrawer { gpu: gpu.clone(), reach, model, side: None, networks: SizedNetworks::new(gpu, 1)? })
    }

    pub fn model(&self) -> &VisionModel {
        &self.model
    }

    /// Pixels around a pixel that its new colour depends on; `None` if that is the whole picture, which then
    /// cannot be cut into tiles.
    pub fn margin(&self) -> Option<usize> {
        self.reach.map(|r| r.margin)
    }

    /// Uses tiles of this side, input pixels, instead of the largest that memory allows.
    ///
    /// # Errors
    /// [`Error::Invalid`] if nothing would be left between the margins, or the network cannot work in tiles.
    pub fn set_tile(&mut self, side: usize) -> Result<()> {
        let Some(Reach { margin, period, .. }) = self.reach else {
            return Err(invalid(
                "tiles",
                "a network that does not look at the whole picture",
                self.model.name.clone(),
            ));
        };
        let unit = self.unit(period);
        if side <= 2 * margin + unit || !side.is_multiple_of(unit) {
            let expected = format!("more than {} pixels, a multiple of {unit}", 2 * margin + unit);
            return Err(invalid("side of a tile", &expected, side.to_string()));
        }
        self.side = Some(side);
        Ok(())
    }

    /// Least common multiple of the network's period and what sides must be a multiple of.
    fn unit(&self, period: usize) -> usize {
        let multiple = self.model.preprocess.multiple.max(1);
        (1..=multiple).map(|k| k * period).find(|u| u.is_multiple_of(multiple)).unwrap_or(period * multiple)
    }

    /// The largest tile that memory allows.
    fn side(&mut self, Reach { margin, period, factor }: Reach) -> Result<usize> {
        if let Some(side) = self.side {
            return Ok(side);
        }
        let unit = self.unit(period);
        let least = (2 * margin + 2 * unit).next_multiple_of(unit);
        for side in TILES.into_iter().map(|side| side.next_multiple_of(unit)).chain([least]) {
            if side < least {
                continue;
            }
            let plan = graph(&self.model, 1, [side; 2]).and_then(|g| Plan::compile(&g, self.gpu.target()));
            match plan {
                Ok(plan) if plan.peak_bytes() <= TILE_BYTES || side == least => {
                    self.side = Some(side);
                    return Ok(side);
                }
                Ok(_) | Err(Error::Limit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let needed = 4 * (least * factor * least * factor) as u64;
        let available = self.gpu.target().max_binding;
        Err(Error::Limit {
            device: self.gpu.target().name.clone(),
            what: "a tile".to_owned(),
            needed,
            available,
        })
    }

    fn network(&mut self, size: Size) -> Result<&Network> {
        let model = &self.model;
        Ok(self.networks.network(size, 1, &|n, size| graph(model, n, size))?.1)
    }

    /// The picture as the network makes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty picture; [`Error::Limit`] for one that is too large for a network that looks at
    /// all of it at once.
    pub fn redraw(&mut self, source: &RgbImage) -> Result<RgbImage> {
        let size = size_of(source);
        if size.contains(&0) {
            return Err(invalid("picture", "at least one pixel", format!("{} × {}", size[1], size[0])));
        }
        let Some(reach) = self.reach else { return self.whole(source, size) };
        let side = self.side(reach)?;
        // The place of a tile must suit the padding of the whole picture too.
        let period = self.unit(reach.period);
        let [rows, columns] = size.map(|length| tiles(length, side, Reach { period, ..reach }));
        let f = reach.factor as u32;
        let large = |length: u32| length.checked_mul(f).filter(|l| *l <= 1 << 17);
        let (Some(width), Some(height)) = (large(source.width()), large(source.height())) else {
            let found = format!("{} × {}", size[1], size[0]);
            return Err(invalid("picture", &format!("at most {} pixels a side", (1 << 17) / f), found));
        };
        let mut result = RgbImage::new(width, height);
        for row in &rows {
            for column in &columns {
                let size = [row.end - row.start, column.end - column.start];
                let [x, y, h, w] = [column.start, row.start, size[0], size[1]].map(|v| v as u32);
                let part = image::imageops::crop_imm(source, x, y, w, h).to_image();
                let network = self.network(size)?;
                let drawn = picture(&network.run(&[("pictures", &words([&part].into_iter(), 1, size))])?[0]);
                let [left, right] = column.keep.map(|v| v as u32);
                let [top, bottom] = row.keep.map(|v| v as u32);
                let (inner_x, inner_y) = ((left - x) * f, (top - y) * f);
                let kept = image::imageops::crop_imm(
                    &drawn,
                    inner_x,
                    inner_y,
                    (right - left) * f,
                    (bottom - top) * f,
                );
                result
                    .copy_from(&kept.to_image(), left * f, top * f)
                    .map_err(|_| invalid("tile", "inside the picture", format!("{row:?}, {column:?}")))?;
            }
        }
        Ok(result)
    }

    fn whole(&mut self, source: &RgbImage, size: Size) -> Result<RgbImage> {
        let plan = graph(&self.model, 1, size).and_then(|g| Plan::compile(&g, self.gpu.target()));
        match plan {
            Ok(plan) if plan.peak_bytes() <= WHOLE_BYTES => {}
            // Tensors of too many elements are refused when the graph is built.
            Ok(_) | Err(Error::Limit { .. } | Error::Graph { .. }) if size[0] * size[1] > 1 << 20 => {
                let expected = format!(
                    "one small enough to go through {} in one piece: it looks at all of it at once and cannot work in tiles",
                    self.model.name
                );
                return Err(invalid("picture", &expected, format!("{} × {}", size[1], size[0])));
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let network = self.network(size)?;
        Ok(picture(&network.run(&[("pictures", &words([source].into_iter(), 1, size))])?[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_kept_once_with_its_margin() {
        for (length, side, margin, period) in [
            (1, 64, 9, 1),
            (64, 64, 9, 1),
            (65, 64, 9, 1),
            (1000, 64, 9, 1),
            (333, 128, 37, 8),
            (130, 128, 37, 8),
        ] {
            let reach = Reach { factor: 1, margin, period };
            let tiles = tiles(length, side, reach);
            let mut kept = 0;
            for tile in &tiles {
                assert_eq!(tile.keep[0], kept);
                kept = tile.keep[1];
                assert!(tile.start % period == 0 && tile.end <= length);
                assert!(tile.end - tile.start < side + period);
                assert!(tile.start == 0 || tile.start + margin <= tile.keep[0], "{tile:?}");
                assert!(tile.end == length || tile.keep[1] + margin <= tile.end, "{tile:?}");
            }
            assert_eq!(kept, length);
        }
    }
}
