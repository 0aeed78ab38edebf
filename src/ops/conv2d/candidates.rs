//! The ways to compute a convolution that are worth measuring on a device, and what they are called where that is kept.

use std::fmt;

use super::Conv2d;
use super::method::{MOST_WRITTEN_OUT, Method, Tile};
use super::costs;
use super::winograd::Products;
use crate::ops::epilogue::Step;
use crate::ops::quantized::BlockFormat;
use crate::target::{DeviceClass, Target};
use crate::tensor::TensorDesc;

/// Most quads of results that a thread of a GPU holds.
const MOST_HELD: usize = 16;

/// So few operations are tried a result a thread too, floating point.
const FEW: u64 = 1 << 24;

impl Conv2d {
    /// A handful of methods that are all right, of which the first is taken where nothing was measured.
    pub fn candidates(
        &self,
        target: &Target,
        source: &TensorDesc,
        output: &TensorDesc,
        format: Option<BlockFormat>,
    ) -> Vec<Method> {
        let chosen = self.choose(target, source, output, format);
        let at_points = match format {
            None => self.at_points(target, source, output, target.mappable),
            Some(_) => Vec::new(),
        };
        let quicker = at_points.iter().rev().filter(|offer| offer.is_quicker());
        let tiles = || self.tiles(target, output);
        let flops = 2 * (output.shape.elements() * self.products) as u64;
        let mut found: Vec<Method> = quicker.map(|offer| offer.method).chain([chosen]).collect();
        match chosen {
            Method::Blocks { format, texels, .. } => {
                found.extend(tiles().map(|tile| Method::Blocks { tile, format, texels }));
                found.extend(tiles().take(1).map(|tile| Method::Blocks { tile, format, texels: false }));
            }
            Method::Depthwise => found.push(Method::Direct),
            Method::Direct => {}
            _ => {
                if self.allows_texels(target, source, output) {
                    found.extend(tiles().map(Method::Texels));
                    found.extend(tiles().take(1).map(Method::Rows));
                } else {
                    found.extend(tiles().map(Method::Rows));
                }
                found.extend(self.all_shared(target, output).into_iter().map(Method::Shared));
                found.extend(self.all_blocks(target, output).into_iter().map(Method::Matrices));
                found.extend(at_points.iter().flat_map(|offer| all_tiles(offer.method, target)));
                if flops <= FEW {
                    found.push(Method::Direct);
                }
            }
        }
        let mut distinct = Vec::with_capacity(found.len());
        found.into_iter().for_each(|method| {
            if !distinct.contains(&method) {
                distinct.push(method);
            }
        });
        distinct
    }

    /// The tile that the model of costs takes, and its neighbours: one side of half or double the length, or both so that
    /// the number of pixels stays.
    fn tiles(&self, target: &Target, output: &TensorDesc) -> impl Iterator<Item = Tile> {
        let Tile { pixels, rows, quads } = self.tile(target, output);
        let [_, height, width] = self.extent(output);
        let quads_group = (self.c_out / self.options.groups).div_ceil(4);
        let of_lanes = target.class == DeviceClass::Cpu;
        let taps = self.taps_written_out();
        let (grouped, pointwise) = (self.options.groups > 1, self.is_pointwise());
        let double = |n: usize, most: usize| (2 * n).min(most);
        let half = |n: usize| n.div_ceil(2);
        let (wide, narrow) = (double(pixels, width), half(pixels));
        let (high, low) = (double(rows, if pointwise { 1 } else { height }), half(rows));
        [
            [pixels, rows, quads],
            [wide, rows, quads],
            [narrow, rows, quads],
            [pixels, high, quads],
            [pixels, low, quads],
            [pixels, rows, double(quads, quads_group)],
            [pixels, rows, half(quads)],
            [wide, low, quads],
            [narrow, high, quads],
        ]
        .into_iter()
        .map(|[pixels, rows, quads]| Tile { pixels, rows, quads })
        .filter(move |&Tile { pixels, rows, quads }| {
            let held = pixels * rows * quads;
            let fits = if of_lanes { held * taps <= MOST_WRITTEN_OUT } else { held <= MOST_HELD };
            // No tile may reach into the next group.
            (fits || pixels * rows == 1) && (!grouped || quads_group.is_multiple_of(quads))
        })
    }

    /// What this convolution is called where choices are kept: all that the time of its kernels depends on.
    pub fn key(&self, source: &TensorDesc, output: &TensorDesc, format: Option<BlockFormat>) -> String {
        let o = &self.options;
        let [kh, kw] = self.kernel;
        let mut key = format!(
            "conv2d {source} to {output}, {kh}×{kw}, stride {:?}, padding {:?}, dilation {:?}, {} groups",
            o.stride, o.padding, o.dilation, o.groups
        );
        if self.upsample > 1 {
            key += &format!(", enlarged {}", self.upsample);
        }
        if let Some(format) = format {
            key += &format!(", {format:?}");
        }
        for step in &self.epilogue.steps {
            key += match step {
                Step::AddChannel => ", channels",
                Step::AddSample => ", samples",
                Step::AddTensor => ", tensor",
                Step::MulTensor => ", factor",
                Step::Apply(_) => ", function",
            };
        }
        key
    }

    /// The method that was measured to be the fastest, if there is one, it is known and can be used.
    pub fn tuned(
        &self,
        target: &Target,
        source: &TensorDesc,
        output: &TensorDesc,
        format: Option<BlockFormat>,
    ) -> Option<Method> {
        let name = target.tuning.as_ref()?.get(&self.key(source, output, format))?;
        let candidates = self.candidates(target, source, output, format);
        candidates.into_iter().find(|method| method.to_string() == name)
    }
}

/// Winograd's way on a GPU with each of the tiles of its products; on others none but what is chosen.
fn all_tiles(method: Method, target: &Target) -> Vec<Method> {
    match method {
        Method::Winograd { squares, products: Products::Matrices(_) } => {
            let tiles = costs::products(target).map(|(tile, _)| Products::Matrices(tile));
            tiles.map(|products| Method::Winograd { squares, products }).collect()
        }
        _ => Vec::new(),
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile { pixels, rows, quads } = self;
        write!(f, "{pixels}×{rows}×{quads}")
    }
}

/// What it is called where choices are kept: pixels × rows × quads of a tile.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Rows(tile) => write!(f, "rows {tile}"),
            Method::Texels(tile) => write!(f, "texels {tile}"),
            Method::Blocks { tile, texels: false, .. } => write!(f, "blocks {tile}"),
            Method::Blocks { tile, texels: true, .. } => write!(f, "blocks and texels {tile}"),
            Method::Winograd { squares, products } => {
                let side = squares.results();
                match products {
                    Products::Lanes(tile) => write!(f, "winograd {side}×{side} {tile}"),
                    Products::Matrices(tile) => write!(f, "winograd {side}×{side} for {tile}"),
                }
            }
            Method::Shared(tile) => write!(f, "shared {tile}"),
            Method::Matrices(blocks) => write!(f, "matrices {blocks}"),
            Method::Depthwise => write!(f, "depthwise"),
            Method::Direct => write!(f, "direct"),
        }
    }
}
