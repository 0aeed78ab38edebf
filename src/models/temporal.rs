//! What networks for sequences have in common. What they know of the frames before is in the graph's states; each frame
//! reads it where motion says that its pixels come from, and leaves out what the frame before did not show: what was
//! beyond the picture's edges, or hidden by something of another depth.

use super::path_denoise::channels;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::expr::{Expr, Unary};
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::pool::PoolOptions;
use crate::ops::reduce::Reduction;
use crate::ops::resize::Interpolation;
use crate::ops::typed::Function;
use crate::tensor::{DType, Tensor};

/// Nothing that is kept is larger: the largest number of f16.
pub(super) const LARGEST: f32 = 65504.0;

/// What pictures are moved with, frame after frame: Keys' cubic, of a slope at which a move by half a pixel raises no frequency by
/// more than a hundredth, and damps those up to half of the highest by less than a tenth. At −0.75 pictures ring, at −0.5 they blur.
pub(super) const CUBIC: Interpolation = Interpolation::Bicubic { a: -0.6 };

/// A surface is the same if its depth is off by no more than this share.
const DEPTH_SHARE: f32 = 0.1;

/// Where all within two pixels moves by less than this, in pixels, an edge is where it was, and what the pixels beside it show
/// may be on either side of it.
const STILL: f32 = 0.25;

/// No depth and no motion is larger.
const FARTHEST: f32 = 1e9;

/// What a frame of a sequence says beside its picture. All f32:
///
/// | input | | values |
/// |---|---|---|
/// | `motion` | `[1, h, w, 3]`: where what the pixel shows was in the frame before, less where it is: pixels to the right, pixels down, and depth. Without jitter | any |
/// | `depth` | `[1, h, w, 1]`: how far it is along the camera's axis, in any unit; 0 for the sky and where nothing is known | 0 and up |
/// | `reset` | `[1]`: 0 goes on from the frame before, any other number forgets it: after a cut, and after frames that were left out | |
///
/// Third numbers of `motion` that are 0 are right for cameras that turn, and for slow ones: depths may differ by a tenth.
pub(super) struct Moved {
    /// `[1, h, w, 4]`: motion in pictures' halves, one by the depth in the frame before, and 1 where something near moves, else 0.
    pixels: ValueId,
    /// One by this frame's depth, and its largest and negated smallest in squares of 3×3 pixels, `[1, h, w, 3]`.
    depths: ValueId,
    /// 1 to forget, `[1]`.
    reset: ValueId,
}

impl Moved {
    pub fn input(g: &mut Graph, [h, w]: [usize; 2]) -> Result<Moved> {
        let motion = g.input("motion", [1, h, w, 3], DType::F32);
        let depth = g.input("depth", [1, h, w, 1], DType::F32);
        let reset = g.input("reset", [1], DType::F32);
        let [x0, x1] = [Expr::input(0), Expr::input(1)];
        let motion = finite(g, motion, -FARTHEST, FARTHEST)?;
        let depth = finite(g, depth, 0.0, FARTHEST)?;
        let reset = finite(g, reset, -1.0, 1.0)?;
        let reset = g.elementwise(some(Expr::unary(Unary::Abs, x0.clone())), &[reset])?;

        let across = channels(g, motion, 0, 2)?;
        let away = channels(g, motion, 2, 1)?;
        let halves = g.weight("halves", Tensor::from_f32([2], &[2.0 / w as f32, 2.0 / h as f32]));
        let halves = g.mul(across, halves)?;
        let length = g.reduce(across, Reduction::L2, &[3], true)?;
        let length = g.max_pool(length, around(5))?;
        let moves = g.elementwise(some(x0.clone() - STILL), &[length])?;
        // What has no depth is infinitely far.
        let one_by = |depth: Expr| (some(x0.clone()) / depth.max(1.0 / LARGEST)).min(LARGEST);
        let before = g.elementwise(one_by(x0.clone() + x1), &[depth, away])?;
        let now = g.elementwise(one_by(x0.clone()), &[depth])?;
        let negated = g.affine(now, -1.0, 0.0)?;
        let both = g.concat(&[now, negated], 3)?;
        let range = g.max_pool(both, around(3))?;
        let pixels = g.concat(&[halves, before, moves], 3)?;
        let depths = g.concat(&[now, range], 3)?;
        Ok(Moved { pixels, depths, reset })
    }

    /// Where `[1, height, width]` pixels of this frame were in the one before, and which of them that showed.
    pub fn past(&self, g: &mut Graph, size: [usize; 2]) -> Result<Past> {
        let [x0, x1, x2, x3] = [0, 1, 2, 3].map(Expr::input);
        let middles =
            |n: usize| -> Vec<f32> { (0..n).map(|i| ((2 * i + 1) as f64 / n as f64 - 1.0) as f32).collect() };
        let [height, width] = size;
        let pixels = match g.shape(self.pixels)[1..3] == size {
            true => self.pixels,
            false => g.upsample_nearest(self.pixels, height / g.shape(self.pixels)[1])?,
        };
        let mut places = Vec::new();
        for (axis, shape, n) in [(0, [1, 1, width, 1], width), (1, [1, height, 1, 1], height)] {
            let middle = g.weight("middles", Tensor::from_f32(shape, &middles(n)));
            let moved = channels(g, pixels, axis, 1)?;
            places.push(g.add(moved, middle)?);
        }
        let grid = g.concat(&places, 3)?;

        let [h, w] = [g.shape(self.depths)[1], g.shape(self.depths)[2]];
        let depths = g.state("history.depth", Tensor::from_f32([1, h, w, 3], &vec![0.0; h * w * 3]));
        g.update(depths, self.depths)?;
        let found = sampled(g, depths, grid, Interpolation::Bilinear)?;
        let [exact, near, far] = [0, 1, 2].map(|i| channels(g, found, i, 1));
        let (exact, moves) = (exact?, channels(g, pixels, 3, 1)?);
        // Nearest and farthest that it may be.
        let mixed = |exact: Expr| x1.clone() + (exact - x1.clone()) * x2.clone();
        let near = g.elementwise(mixed(x0.clone()), &[exact, near?, moves])?;
        let far = g.elementwise(mixed(x0.clone() * -1.0), &[exact, far?, moves])?;
        let before = channels(g, pixels, 2, 1)?;
        let nearer = x0.clone() - x1.clone() * (1.0 + DEPTH_SHARE);
        let farther = x2.clone() * (DEPTH_SHARE - 1.0) - x0;
        let hidden = g.elementwise(nearer.max(farther), &[before, near, far])?;
        let side = |x: Expr| Expr::unary(Unary::Abs, x) - 1.0;
        let outside = side(Expr::input(1)).max(side(Expr::input(2)));
        let known = none(Expr::input(0).max(outside)) * (Expr::Const(1.0) - x3);
        let known = g.elementwise(known, &[hidden, places[0], places[1], self.reset])?;
        Ok(Past { grid, known })
    }
}

/// Where pixels were in the frame before.
pub(super) struct Past {
    grid: ValueId,
    /// `[1, h, w, 1]`: 1 where that frame showed them, else 0.
    pub known: ValueId,
}

impl Past {
    /// A state of this name, `[1, h, w, c]`, at first 0, and what it holds where each pixel was: 0 where that is not known.
    pub fn of(
        &self,
        g: &mut Graph,
        name: &str,
        shape: [usize; 4],
        interpolation: Interpolation,
    ) -> Result<(ValueId, ValueId)> {
        let state = g.state(name, Tensor::from_f32(shape, &vec![0.0; shape.iter().product()]));
        let found = sampled(g, state, self.grid, interpolation)?;
        let found = g.mul(found, self.known)?;
        Ok((state, found))
    }
}

/// `x` at the places of `grid`, finite whatever it holds: no NaN stays in a sequence.
fn sampled(g: &mut Graph, x: ValueId, grid: ValueId, interpolation: Interpolation) -> Result<ValueId> {
    let options = GridSample { interpolation, outside: Outside::Border, align_corners: false };
    let x = g.grid_sample(x, grid, options)?;
    finite(g, x, -LARGEST, LARGEST)
}

/// Within a range, and 0 for NaN, of which WGSL does not say what a minimum makes.
pub(super) fn finite(g: &mut Graph, x: ValueId, low: f32, high: f32) -> Result<ValueId> {
    let zero = g.weight("zero", Tensor::from_f32([1], &[0.0]));
    let nan = g.typed(Function::IsNan, &[x])?;
    let x = g.choose(nan, zero, x)?;
    g.elementwise(Expr::clamp(Expr::input(0), low, high), &[x])
}

/// 1 for what is above 0, else 0.
pub(super) fn some(x: Expr) -> Expr {
    Expr::unary(Unary::Sign, x).max(0.0)
}

/// 0 for what is above 0, else 1.
pub(super) fn none(x: Expr) -> Expr {
    Expr::Const(1.0) - some(x)
}

/// Squares of `side` pixels round each pixel, those in the picture.
pub(super) fn around(side: usize) -> PoolOptions {
    PoolOptions { stride: [1; 2], padding: [side / 2; 4], ..PoolOptions::square(side) }
}

/// Mean and standard deviation of squares of `side` pixels round each pixel, channel by channel.
pub(super) fn statistics(g: &mut Graph, x: ValueId, side: usize) -> Result<[ValueId; 2]> {
    let [x0, x1] = [Expr::input(0), Expr::input(1)];
    let square = g.unary(Unary::Square, x)?;
    let mean = g.average_pool(x, around(side), false)?;
    let squares = g.average_pool(square, around(side), false)?;
    let variance = (x1 - Expr::unary(Unary::Square, x0)).max(0.0);
    let deviation = g.elementwise(Expr::unary(Unary::Sqrt, variance), &[mean, squares])?;
    Ok([mean, deviation])
}

/// A frame's size and how many frames count at most.
pub(super) fn check([height, width]: [usize; 2], frames: u32) -> Result<()> {
    let invalid = |what: &str, expected: &str, found: String| {
        Err(Error::Invalid { what: what.to_owned(), expected: expected.to_owned(), found })
    };
    if width == 0 || height == 0 {
        return invalid("size of a frame", "at least one pixel", format!("{width} × {height}"));
    }
    if !(1..=1024).contains(&frames) {
        return invalid("frames that are remembered", "1 to 1024", frames.to_string());
    }
    Ok(())
}
