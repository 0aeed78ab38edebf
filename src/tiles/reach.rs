//! Which numbers that a network makes of a tile are those that it makes of the whole picture there: read off its graph, an
//! operation at a time, each side of the picture by itself.

use super::family::{Family, Ratio};
use crate::graph::Source;
use crate::ops::Op;
use crate::ops::conv2d::Method;
use crate::ops::norm::Over;
use crate::ops::pool::Windows;
use crate::ops::resize::Interpolation;
use crate::ops::strided::Strided;
use crate::tensor::Shape;

/// How far a network looks along a side; pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Pictures that are moved by multiples of it give results that are moved, to the last bit.
    pub period: usize,
    /// Pixels at the beginning and at the end of a tile whose results are not those of the whole picture.
    pub before: usize,
    pub after: usize,
}

/// An operation that cannot be computed in tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub op: &'static str,
    pub node: String,
    pub why: String,
}

/// A value of a tile that was cut out of a picture.
#[derive(Clone, Copy, Debug)]
struct Along {
    dim: usize,
    /// Its elements along the side for a pixel of the picture.
    scale: Ratio,
    /// Of its elements along the side, those at both ends that are not the whole picture's.
    before: i64,
    after: i64,
}

/// Quads of element-wise operations begin at multiples of it.
const QUAD: usize = 4;

/// The reach of a network along a side (0: down, 1: across), with its convolutions computed so.
pub(crate) fn reach(family: &Family, methods: &[Option<Method>], side: usize) -> Result<Reach, Unfit> {
    let graph = &family.graph;
    let mut maps: Vec<Option<Along>> = Vec::new();
    let mut period = 1;
    for (id, value) in graph.values() {
        let unfit = |why: &str| {
            let op = match &value.source {
                Source::Op { op, .. } => op.name(),
                _ => "Input",
            };
            Unfit { op, node: value.name.clone(), why: why.to_owned() }
        };
        let scale = family.scales[side][id.index()];
        let map = match &value.source {
            Source::Op { op, inputs } => {
                let sources: Vec<Input> = inputs.iter().map(|i| (graph.shape(*i), maps[i.index()])).collect();
                match sources.iter().any(|(_, map)| map.is_some()) {
                    true => Some(
                        after(op, methods[id.index()], side, &sources, &value.desc.shape).map_err(unfit)?,
                    ),
                    false => None,
                }
            }
            _ => scale.map(|(dim, scale)| Along { dim, scale, before: 0, after: 0 }),
        };
        if map.map(|map| (map.dim, map.scale)) != scale {
            return Err(unfit("is another at another size of the picture"));
        }
        if let Some(Along { scale, .. }) = map {
            let unit = match (&value.source, methods[id.index()]) {
                (Source::Op { op: Op::Conv2d(_), .. }, Some(Method::Winograd { squares, .. })) => {
                    squares.results()
                }
                (Source::Op { op: Op::Elementwise(_) | Op::Typed(_), .. }, _)
                    if !value.desc.shape.last().is_multiple_of(QUAD) =>
                {
                    QUAD
                }
                _ => 1,
            };
            // The least number of pixels that is a whole number of units.
            period = lcm(period, scale.den * unit / gcd(scale.num, unit));
        }
        maps.push(map);
    }
    let mut reach = Reach { period, before: 0, after: 0 };
    for (name, id) in graph.outputs() {
        let unfit = |why: &str| Unfit { op: "Output", node: name.clone(), why: why.to_owned() };
        let map = maps[id.index()].ok_or_else(|| unfit("is the same for all pixels"))?;
        if map.dim != side + 1 {
            return Err(unfit("is no feature map [n, h, w, c]"));
        }
        let pixels = |elements: i64| (elements.max(0) as usize * map.scale.den).div_ceil(map.scale.num);
        reach.before = reach.before.max(pixels(map.before));
        reach.after = reach.after.max(pixels(map.after));
    }
    Ok(reach)
}

type Input<'a> = (&'a Shape, Option<Along>);

/// What is known of an operation's result by what is known of its inputs, some of which come from the picture; or why it
/// cannot be computed in tiles.
fn after(
    op: &Op,
    method: Option<Method>,
    side: usize,
    inputs: &[Input],
    out: &Shape,
) -> Result<Along, &'static str> {
    let first = || inputs[0].1.ok_or("reads pixels where it wants what is the same for all");
    let alone = || match inputs[1..].iter().any(|(_, map)| map.is_some()) {
        true => Err("reads pixels where it wants what is the same for all"),
        false => first(),
    };
    let map = || match alone()? {
        map if map.dim == side + 1 => Ok(map),
        _ => Err("is given no feature map [n, h, w, c]"),
    };
    let length = |shape: &Shape| shape[side + 1] as i64;
    match op {
        Op::Reshape(_) => reshaped(first()?, inputs[0].0, out),
        Op::Unpack(_) => first(),
        Op::PictureFromTensor(_) if inputs[0].0.len() == 4 => map(),
        Op::PictureToTensor(_) if inputs.len() == 1 => map(),
        Op::Elementwise(_) | Op::Typed(_) => joined(inputs, out),
        Op::Concat(concat) => match joined(inputs, out)? {
            map if map.dim == concat.axis => Err("joins pictures along a side"),
            map if inputs.iter().all(|(_, map)| map.is_some()) => Ok(map),
            _ => Err("joins pixels with what is the same for all"),
        },
        Op::Strided(strided) => arranged(first()?, strided, inputs[0].0, out),
        Op::Softmax(softmax) => match first()? {
            map if map.dim == softmax.axis => Err("looks at the whole picture"),
            map => Ok(map),
        },
        Op::Norm(norm) => match alone()? {
            _ if matches!(norm.over, Over::Groups(_)) => Err("takes means over the whole picture"),
            map if map.dim + 1 == out.len() => Err("takes means over the whole picture"),
            map => Ok(map),
        },
        Op::Pad(pad) => {
            let map = first()?;
            let [before, after] = pad.padding[map.dim].map(|n| n as i64);
            Ok(Along { before: map.before + before, after: map.after + after, ..map })
        }
        Op::Conv2d(conv) => {
            let (o, up) = (&conv.options, conv.upsample.max(1));
            let all = [&[inputs[0]], inputs.get(2..).unwrap_or(&[])].concat();
            let [source, extras @ ..] = &all[..] else { return first() };
            if inputs[1].1.is_some() || source.1.is_none_or(|map| map.dim != side + 1) {
                return Err("reads pixels where it wants what is the same for all");
            }
            let map = first()?;
            let large = Along {
                scale: map.scale.times(up),
                before: map.before * up as i64,
                after: map.after * up as i64,
                ..map
            };
            let (size, end) = (length(inputs[0].0) * up as i64, length(out));
            let before = o.padding[side] as i64;
            let result = match method {
                Some(Method::Winograd { squares, .. }) => {
                    // Squares of the result look at squares of the source.
                    let quad = squares.results() as i64;
                    let squares = windows(large, size, end.div_euclid(quad) + 1, [-before, quad, quad + 1]);
                    let last = end.div_euclid(quad) - squares.after;
                    Along {
                        scale: large.scale,
                        before: quad * squares.before,
                        after: (end - quad * (last + 1)).max(0),
                        ..large
                    }
                }
                _ => {
                    let reach = o.dilation[side] * (conv.kernel[side] - 1);
                    windows(large, size, end, [-before, o.stride[side] as i64, reach as i64])
                }
            };
            extras.iter().try_fold(result, |result, (shape, map)| match map {
                Some(map) if *shape == out => both(result, *map),
                Some(_) => Err("adds pixels of another shape"),
                None => Ok(result),
            })
        }
        Op::ConvTranspose2d(conv) => {
            let (map, o) = (map()?, &conv.options);
            // The weight is `[c_in, kh, kw, c_out / groups]`.
            let reach = (o.dilation[side] * (inputs[1].0[1 + side] - 1)) as i64;
            let (stride, padding) = (o.stride[side] as i64, o.padding[side] as i64);
            // Result i is of the pixels from ⌈(i + padding − reach) / stride⌉ to ⌊(i + padding) / stride⌋.
            let first = stride * (map.before - 1) + 1 - padding + reach;
            let last = stride * (length(inputs[0].0) - map.after) - padding - 1;
            Ok(Along {
                scale: map.scale.times(o.stride[side]),
                before: first.max(0),
                after: (length(out) - 1 - last).max(0),
                ..map
            })
        }
        Op::Pool(pool) => match &pool.windows {
            Windows::Sliding(o) => {
                let reach = (o.dilation[side] * (o.kernel[side] - 1)) as i64;
                let places = [-(o.padding[side] as i64), o.stride[side] as i64, reach];
                Ok(windows(map()?, length(inputs[0].0), length(out), places))
            }
            Windows::Adaptive(_) => Err("looks at the whole picture"),
        },
        Op::Resize(resize) => {
            let map = map()?;
            let (size, end) = (length(inputs[0].0), length(out));
            // Result i lies at (a · i + b) / d.
            let [a, b, d] = resize.fraction(size as usize, end as usize);
            if a == 0 {
                return Err("is another at another size of the picture");
            }
            let [below, above] = match resize.interpolation {
                Interpolation::Nearest => [0, 0],
                Interpolation::Bilinear => [0, 1],
                Interpolation::Bicubic { .. } => [1, 2],
            };
            let ceil = |x: i64| -(-x).div_euclid(a);
            let first = ceil(d * (map.before + below) - b);
            let last = ceil(d * (size - map.after - above) - b) - 1;
            Ok(Along {
                scale: map.scale.times(d as usize).over(a as usize),
                before: first.max(0),
                after: (end - 1 - last).max(0),
                ..map
            })
        }
        _ => Err("may look at the whole picture"),
    }
}

/// Of windows, where result `i` is of the pixels from `first + i · stride` on, with so many after it.
fn windows(map: Along, size: i64, out: i64, [first, stride, reach]: [i64; 3]) -> Along {
    let begin = -(first - map.before).div_euclid(stride);
    let last = (size - map.after - 1 - reach - first).div_euclid(stride);
    Along {
        scale: map.scale.over(stride as usize),
        before: begin.max(0),
        after: (out - 1 - last).max(0),
        ..map
    }
}

fn both(a: Along, b: Along) -> Result<Along, &'static str> {
    match a.dim == b.dim && a.scale == b.scale {
        true => Ok(Along { before: a.before.max(b.before), after: a.after.max(b.after), ..a }),
        false => Err("joins what is of different places"),
    }
}

/// Of inputs that are broadcast to one shape.
fn joined(inputs: &[Input], out: &Shape) -> Result<Along, &'static str> {
    let mut result: Option<Along> = None;
    for (shape, map) in inputs {
        let Some(map) = map else { continue };
        let map = Along { dim: map.dim + out.len() - shape.len(), ..*map };
        result = Some(match result {
            None => map,
            Some(result) => both(result, map)?,
        });
    }
    let result = result.ok_or("reads no pixels")?;
    for (shape, _) in inputs.iter().filter(|(_, map)| map.is_none()) {
        let size = (result.dim + shape.len()).checked_sub(out.len()).map_or(1, |dim| shape[dim]);
        if size != 1 {
            return Err("joins pixels with numbers that each have a place of their own");
        }
    }
    Ok(result)
}

fn arranged(map: Along, strided: &Strided, from: &Shape, out: &Shape) -> Result<Along, &'static str> {
    match strided {
        Strided::Slice(ranges) => {
            let range = ranges[map.dim];
            match range.step {
                1.. => {
                    let places = [range.start as i64, range.step as i64, 0];
                    Ok(windows(map, from[map.dim] as i64, out[map.dim] as i64, places))
                }
                _ => Err("turns the picture round"),
            }
        }
        Strided::Transpose(axes) => {
            let dim = axes.iter().position(|&axis| axis == map.dim).ok_or("drops a side of the picture")?;
            Ok(Along { dim, ..map })
        }
        Strided::Broadcast(_) => Ok(Along { dim: map.dim + out.len() - from.len(), ..map }),
    }
}

/// Neighbouring dimensions are joined and split; the side of the picture must be the outermost of those that it is joined with.
fn reshaped(map: Along, from: &Shape, to: &Shape) -> Result<Along, &'static str> {
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        let (first, goal) = (i, j);
        let (mut here, mut there) = (from[i], to[j]);
        (i, j) = (i + 1, j + 1);
        while here != there {
            if here < there {
                here *= from[i];
                i += 1;
            } else {
                there *= to[j];
                j += 1;
            }
        }
        if !(first..i).contains(&map.dim) {
            continue;
        }
        let dim = (goal..j).find(|&dim| to[dim] != 1).unwrap_or(goal);
        if from[first..map.dim].iter().any(|&size| size != 1) {
            return Err("mixes up the sides of the picture");
        }
        let each: usize = from[map.dim + 1..i].iter().product();
        let part: usize = to[dim + 1..j].iter().product();
        let elements = |count: i64| -(-(count * each as i64)).div_euclid(part as i64);
        return Ok(Along {
            dim,
            scale: map.scale.times(each).over(part),
            before: elements(map.before),
            after: elements(map.after),
        });
    }
    Err("drops a side of the picture")
}

pub(super) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

pub(super) fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a, b) * b
}
