//! How far around a pixel a network looks: read off its graph, by following which numbers a change can touch.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::models::vision::VisionModel;
use crate::ops::Op;
use crate::ops::elementwise::broadcast;
use crate::ops::norm::Over;
use crate::ops::pad::PadMode;
use crate::ops::pool::Windows;
use crate::ops::resize::Interpolation;
use crate::tasks::sized::wanted;
use crate::tensor::{DType, Shape};

/// What a network from pictures to pictures does to places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Pixels of the result for one of the input.
    pub factor: usize,
    /// Input pixels that the result can depend on, beyond its own place.
    pub margin: usize,
    /// The network does the same to pictures that are moved by a multiple of this.
    pub period: usize,
}

/// Sides of the inputs on which a network is looked at; a margin is found up to nearly half of the last.
const SIDES: [usize; 3] = [64, 128, 256];

/// The reach of a network, `None` if all of the picture counts everywhere, or nearly so.
pub(crate) fn reach(model: &VisionModel) -> Result<Option<Reach>> {
    for side in SIDES {
        let side = side.next_multiple_of(model.preprocess.multiple.max(1));
        let mut g = Graph::new();
        let x = g.input("x", [1, side, side, model.preprocess.mean.len()], DType::F32);
        let outputs = model.build(&mut g, x)?;
        let y = wanted(model, &outputs, "picture")?;
        let [_, height, width, _] = g.shape(y)[..] else { return Ok(None) };
        if height != width || !height.is_multiple_of(side) {
            return Ok(None);
        }
        let factor = height / side;
        let constant = g.constants();
        let maps = g.values().filter(|(id, v)| !constant[id.index()] && v.desc.shape.len() == 4);
        let smallest = maps.map(|(_, v)| v.desc.shape[1].min(v.desc.shape[2])).min().unwrap_or(side).max(1);
        let period = side.div_ceil(smallest).next_power_of_two();
        let edge = (side / 2).next_multiple_of(period);
        // What lies before the edge is unknown, and then what lies behind it.
        let before = touched(&g, x, y, |at| at < edge);
        let behind = touched(&g, x, y, |at| at >= edge);
        let (Some(before), Some(behind)) = (before, behind) else { return Ok(None) };
        let channels = g.shape(y)[3];
        let clean =
            |map: &[bool], at: usize| !map[(at * width + at) * channels..][..channels].contains(&true);
        let first = (0..height).find(|&at| (at..height).all(|at| clean(&before, at)));
        let last = (0..height).rev().find(|&at| (0..=at).all(|at| clean(&behind, at)));
        if let (Some(first), Some(last)) = (first, last) {
            let margin = first.saturating_sub(edge * factor).max((edge * factor).saturating_sub(last + 1));
            return Ok(Some(Reach { factor, margin: margin.div_ceil(factor), period }));
        }
    }
    Ok(None)
}

/// Which numbers of `y` may change when pixels change of whose two coordinates one is `unknown`; `None` for all,
/// and where an operation mixes what is far apart.
fn touched(g: &Graph, x: ValueId, y: ValueId, unknown: impl Fn(usize) -> bool) -> Option<Vec<bool>> {
    let mut maps: Vec<Option<Vec<bool>>> = Vec::new();
    for (id, value) in g.values() {
        let shape = &value.desc.shape;
        maps.push(match &value.source {
            _ if id == x => Some(from_pixels(shape, |y, x| unknown(y) || unknown(x))),
            Source::Op { op, inputs } => {
                let sources: Vec<(&Shape, &Option<Vec<bool>>)> =
                    inputs.iter().map(|i| (g.shape(*i), &maps[i.index()])).collect();
                match sources.iter().all(|(_, map)| map.is_none()) {
                    true => None,
                    false => Some(after(op, &sources, shape)?),
                }
            }
            // Known: it does not come from the picture.
            _ => None,
        });
        if id == y {
            break;
        }
    }
    maps.pop().flatten()
}

fn from_pixels(shape: &Shape, f: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let [n, h, w, c] = [shape[0], shape[1], shape[2], shape[3]];
    let pixel = |p: usize| f(p / w % h, p % w);
    (0..n * h * w).flat_map(|p| std::iter::repeat_n(pixel(p), c)).collect()
}

/// The map of an operation's result from those of its inputs (`None`: nothing is touched); `None` if it mixes
/// what is far apart.
fn after(op: &Op, sources: &[(&Shape, &Option<Vec<bool>>)], out: &Shape) -> Option<Vec<bool>> {
    let (shape, map) = sources[0];
    let map = map.as_ref();
    // Whether any channel of a pixel of the first input is touched.
    let pixels = || -> Option<Vec<bool>> {
        Some(map?.chunks_exact(shape.last()).map(|pixel| pixel.contains(&true)).collect())
    };
    // From windows: `range(axis, i)` are the pixels that pixel `i` of the result reads.
    let windows = |range: &dyn Fn(usize, usize) -> (isize, isize, usize)| -> Option<Vec<bool>> {
        let (h, w) = (shape[1], shape[2]);
        let source = pixels()?;
        let reads = |axis: usize, i: usize, size: usize| {
            let (first, last, step) = range(axis, i);
            (first..=last)
                .step_by(step.max(1))
                .filter_map(move |s| usize::try_from(s).ok().filter(|s| *s < size))
        };
        // Rows first, then columns.
        let rows: Vec<bool> = (0..out[1])
            .flat_map(|y| (0..w).map(move |x| (y, x)))
            .map(|(y, x)| reads(0, y, h).any(|s| source[s * w + x]))
            .collect();
        let columns: Vec<Vec<usize>> = (0..out[2]).map(|x| reads(1, x, w).collect()).collect();
        Some(from_pixels(out, |y, x| columns[x].iter().any(|&s| rows[y * w + s])))
    };
    match op {
        Op::Reshape(_) | Op::Unpack(_) => map.cloned(),
        Op::Elementwise(_) => {
            let mut result = vec![false; out.elements()];
            for (shape, map) in sources {
                let Some(map) = map else { continue };
                broadcast(shape, out).ok()?;
                let strides = shape.strides();
                let skipped = out.len() - shape.len();
                for (i, touched) in result.iter_mut().enumerate() {
                    let (mut rest, mut at) = (i, 0);
                    for d in (0..out.len()).rev() {
                        let index = rest % out[d];
                        rest /= out[d];
                        if d >= skipped && shape[d - skipped] != 1 {
                            at += index * strides[d - skipped];
                        }
                    }
                    *touched |= map[at];
                }
            }
            Some(result)
        }
        Op::Strided(strided) => {
            let (_, base, strides) = strided.layout(shape).ok()?;
            let map = map?;
            let at = |i: usize| {
                let (mut rest, mut at) = (i, base as i64);
                for d in (0..out.len()).rev() {
                    at += (rest % out[d]) as i64 * strides[d];
                    rest /= out[d];
                }
                map[at as usize]
            };
            Some((0..out.elements()).map(at).collect())
        }
        Op::Concat(concat) => {
            let inner: usize = out[concat.axis + 1..].iter().product();
            let outer: usize = out[..concat.axis].iter().product();
            let mut result = Vec::with_capacity(out.elements());
            for o in 0..outer {
                for (shape, map) in sources {
                    let size = shape[concat.axis] * inner;
                    match map {
                        Some(map) => result.extend_from_slice(&map[o * size..(o + 1) * size]),
                        None => result.extend(std::iter::repeat_n(false, size)),
                    }
                }
            }
            Some(result)
        }
        Op::Conv2d(conv) => {
            let o = &conv.options;
            let up = conv.upsample.max(1) as isize;
            windows(&|axis, i| {
                let first = (i * o.stride[axis]) as isize - o.padding[axis] as isize;
                let last = first + (o.dilation[axis] * (conv.kernel[axis] - 1)) as isize;
                (first.div_euclid(up), last.div_euclid(up), if up == 1 { o.dilation[axis] } else { 1 })
            })
        }
        Op::ConvTranspose2d(conv) => {
            let o = &conv.options;
            // The weight is `[c_in, kh, kw, c_out / groups]`.
            let kernel = [sources[1].0[1], sources[1].0[2]];
            windows(&|axis, i| {
                let at = (i + o.padding[axis]) as isize;
                let stride = o.stride[axis] as isize;
                let reach = (o.dilation[axis] * (kernel[axis] - 1)) as isize;
                (-((reach - at).div_euclid(stride)), at.div_euclid(stride), 1)
            })
        }
        Op::Pool(pool) => match &pool.windows {
            Windows::Sliding(o) => windows(&|axis, i| {
                let first = (i * o.stride[axis]) as isize - o.padding[axis] as isize;
                (first, first + (o.dilation[axis] * (o.kernel[axis] - 1)) as isize, o.dilation[axis])
            }),
            Windows::Adaptive(_) => None,
        },
        Op::Resize(resize) => {
            // Taps of the filter on each side of where the pixel lies, whatever the convention of coordinates.
            let taps = match resize.interpolation {
                Interpolation::Nearest => 1,
                Interpolation::Bilinear => 1,
                Interpolation::Bicubic { .. } => 2,
            };
            let whole = resize.interpolation == Interpolation::Nearest
                && (0..2).all(|d| resize.size[d].is_multiple_of(shape[d + 1]));
            windows(&|axis, i| {
                let at = (i * shape[axis + 1] / resize.size[axis]) as isize;
                if whole { (at, at, 1) } else { (at - taps, at + taps, 1) }
            })
        }
        Op::Pad(pad) if shape.len() == 4 => {
            let constant = matches!(pad.mode, PadMode::Constant(_));
            windows(&|axis, i| {
                let size = shape[axis + 1] as isize;
                let at = i as isize - pad.padding[axis + 1][0] as isize;
                let at = match pad.mode {
                    _ if constant || (0..size).contains(&at) => at,
                    PadMode::Reflect if at < 0 => -at,
                    PadMode::Reflect => 2 * (size - 1) - at,
                    _ => at.clamp(0, size - 1),
                };
                (at, at, 1)
            })
        }
        Op::Norm(norm) if !matches!(norm.over, Over::Groups(_)) => {
            let map = map?;
            let row = shape.last();
            Some(map.chunks_exact(row).flat_map(|r| std::iter::repeat_n(r.contains(&true), row)).collect())
        }
        Op::Softmax(softmax) if softmax.axis + 1 == shape.len() => {
            let map = map?;
            let row = shape.last();
            Some(map.chunks_exact(row).flat_map(|r| std::iter::repeat_n(r.contains(&true), row)).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{bundled, upscale};

    #[test]
    fn margins_of_the_bundled_networks() {
        // 5×5, six times 3×3 and one 3×3: 2 + 6 + 1; the enlargement reaches one pixel.
        let found = reach(&upscale::upscale_x2().unwrap()).unwrap().unwrap();
        assert_eq!(found, Reach { factor: 2, margin: 9, period: 1 });
        // On every 2nd pixel 1 + 2 + 2 + 1, on every 4th 2 + 2, on every 8th 2.
        let found = reach(&bundled::bundled("denoise").unwrap().unwrap()).unwrap().unwrap();
        assert_eq!((found.factor, found.period), (1, 8));
        assert!((2 * 6 + 4 * 4 + 8 * 2..=64).contains(&found.margin), "{found:?}");
        // Instance norm sees everything.
        assert_eq!(reach(&bundled::bundled("style-engraving").unwrap().unwrap()).unwrap(), None);
    }
}
