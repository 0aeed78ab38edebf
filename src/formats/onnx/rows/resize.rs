//! Resize: along each axis by a matrix of weights, worked out when the network is loaded; height and
//! width by the engine's own kernel where its grid of pixels is the one that is asked for.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, axis, plain, size};
use super::pools::through_floats;
use crate::ops::resize::{Coordinates, Interpolation};
use crate::tensor::Tensor;

/// What is asked for along one axis.
struct Axis {
    input: usize,
    output: usize,
    /// Output pixels to an input pixel; their product with `input` need not be whole.
    scale: f64,
    /// Part of the input that is shown, 0 to 1.
    roi: [f64; 2],
}

struct Modes {
    mode: String,
    coordinates: String,
    rounding: String,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
}

pub fn resize(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    // The nearest element is one that is there.
    if matches!(value.elem(), Elem::I8 | Elem::U8) && node.string("mode", "nearest") == "nearest" {
        return through_floats(import, node, resize);
    }
    if !value.elem().is_float() {
        return Err(format!("{} is not supported", value.elem()));
    }
    let upsample = node.proto.op_type == "Upsample" || import.opset < 11;
    let axes = axes(node, value.shape(), upsample)?;
    let modes = Modes {
        mode: node.string("mode", "nearest"),
        coordinates: node
            .string("coordinate_transformation_mode", if upsample { "asymmetric" } else { "half_pixel" }),
        rounding: node.string("nearest_mode", if upsample { "floor" } else { "round_prefer_floor" }),
        cubic: f64::from(node.float("cubic_coeff_a", -0.75)),
        exclude_outside: node.int("exclude_outside", 0) != 0,
        antialias: node.int("antialias", 0) != 0,
        extrapolation: f64::from(node.float("extrapolation_value", 0.0)),
    };
    if let Some((interpolation, coordinates)) = kernel(&axes, &modes) {
        let x = import.channels_last(value)?;
        let target = [axes[2].output, axes[3].output];
        let y = import.graph.resize(x, target, interpolation, coordinates).map_err(plain)?;
        return Ok(vec![import.channels_last_result(y, value.elem())]);
    }
    let mut value = value.clone();
    for (a, along) in axes.iter().enumerate() {
        let rows: Vec<Row> = (0..along.output).map(|i| row(along, &modes, i)).collect::<Result<_>>()?;
        if along.input == along.output && rows.iter().enumerate().all(|(i, r)| r.is_pixel(i)) {
            continue;
        }
        value = apply(import, &value, a, along, &rows)?;
    }
    Ok(vec![value])
}

/// Sizes and scales of each axis, in the forms of all versions.
fn axes(node: &Node, shape: &[usize], upsample: bool) -> Result<Vec<Axis>> {
    let rank = shape.len();
    let known = |i: usize| -> Result<Option<Vec<f64>>> {
        match node.optional(i) {
            Some(Value::Host(h)) if h.elements() == 0 => Ok(None),
            Some(_) => Ok(Some(node.host(i)?.to_floats())),
            None => Ok(None),
        }
    };
    let scales = match node.floats("scales").filter(|s| !s.is_empty()) {
        Some(scales) => Some(scales.iter().map(|&v| f64::from(v)).collect()),
        None => known(if upsample { 1 } else { 2 })?,
    };
    let sizes = if upsample { None } else { known(3)? };
    let roi = if upsample { None } else { known(1)? };
    let list: Vec<usize> = match node.list("axes") {
        Some(list) => list.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let mut axes: Vec<Axis> =
        shape.iter().map(|&n| Axis { input: n, output: n, scale: 1.0, roi: [0.0, 1.0] }).collect();
    match (&scales, &sizes) {
        (Some(scales), None) if scales.len() == list.len() => {
            for (&a, &s) in list.iter().zip(scales) {
                // The product in f32, as the scale is given.
                axes[a].output = size((shape[a] as f32 * s as f32).floor() as i64)?;
                axes[a].scale = s;
            }
        }
        (None, Some(sizes)) if sizes.len() == list.len() => {
            let ratio = |(&a, &s): (&usize, &f64)| s / shape[a] as f64;
            let policy = node.string("keep_aspect_ratio_policy", "stretch");
            let common = match policy.as_str() {
                "stretch" => None,
                "not_larger" => list.iter().zip(sizes).map(ratio).reduce(f64::min),
                "not_smaller" => list.iter().zip(sizes).map(ratio).reduce(f64::max),
                other => return Err(format!("aspect ratio policy {other} is not known")),
            };
            for (&a, &s) in list.iter().zip(sizes) {
                axes[a].scale = common.unwrap_or(s / shape[a] as f64);
                axes[a].output = match common {
                    Some(scale) => size((scale * shape[a] as f64 + 0.5).floor() as i64)?,
                    None => size(s as i64)?,
                };
            }
        }
        _ => return Err("wants either scales or sizes, one for each axis".to_owned()),
    }
    if let Some(roi) = roi.filter(|r| r.len() == 2 * list.len()) {
        for (i, &a) in list.iter().enumerate() {
            axes[a].roi = [roi[i], roi[i + list.len()]];
        }
    }
    match axes.iter().find(|a| a.output == 0 || a.input == 0 || a.input > 1 << 15 || a.output > 1 << 15) {
        Some(a) => Err(format!("cannot resize {} to {} pixels", a.input, a.output)),
        None => Ok(axes),
    }
}

/// How the engine's kernel does it, if it does.
fn kernel(axes: &[Axis], modes: &Modes) -> Option<(Interpolation, Coordinates)> {
    let whole = |a: &Axis| (a.input as f64 * a.scale - a.output as f64).abs() < 1e-6;
    let plain = axes.len() == 4
        && axes[..2].iter().all(|a| a.input == a.output)
        && axes.iter().all(whole)
        && !modes.antialias
        && !modes.exclude_outside;
    let coordinates = match modes.coordinates.as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "pytorch_half_pixel" if axes.iter().skip(2).all(|a| a.output > 1) => Coordinates::HalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        _ => return None,
    };
    let interpolation = match modes.mode.as_str() {
        "nearest" => Interpolation::Nearest,
        "linear" | "bilinear" => Interpolation::Bilinear,
        "cubic" => Interpolation::Bicubic { a: modes.cubic as f32 },
        _ => return None,
    };
    let same = interpolation != Interpolation::Nearest
        || match coordinates {
            // Halves never arise where each pixel is repeated a whole number of times.
            Coordinates::HalfPixel => {
                axes.iter().all(|a| a.output.is_multiple_of(a.input)) && modes.rounding.starts_with("round")
            }
            Coordinates::Asymmetric => modes.rounding == "floor",
            Coordinates::AlignCorners => modes.rounding == "round_prefer_ceil",
        };
    (plain && same).then_some((interpolation, coordinates))
}

/// What one output pixel is made of: weights of input pixels, or a number of its own.
enum Row {
    Taps(Vec<(usize, f64)>),
    Outside(f64),
}

impl Row {
    fn is_pixel(&self, i: usize) -> bool {
        self.pixel() == Some(i)
    }

    fn pixel(&self) -> Option<usize> {
        match self {
            Row::Taps(taps) => match taps[..] {
                [(at, 1.0)] => Some(at),
                _ => None,
            },
            Row::Outside(_) => None,
        }
    }
}

fn row(axis: &Axis, modes: &Modes, i: usize) -> Result<Row> {
    let (input, length) = (axis.input as f64, axis.input as f64 * axis.scale);
    let i = i as f64;
    let x = match modes.coordinates.as_str() {
        "align_corners" if length == 1.0 => 0.0,
        "align_corners" => i * (input - 1.0) / (length - 1.0),
        "asymmetric" => i / axis.scale,
        "pytorch_half_pixel" if length == 1.0 => -0.5,
        "half_pixel" | "pytorch_half_pixel" => (i + 0.5) / axis.scale - 0.5,
        "half_pixel_symmetric" => {
            let offset = input / 2.0 * (1.0 - axis.output as f64 / length);
            offset + (i + 0.5) / axis.scale - 0.5
        }
        "tf_crop_and_resize" => {
            let [start, end] = axis.roi;
            let step = match length == 1.0 {
                true => (end - start) * (input - 1.0) / 2.0,
                false => i * (end - start) * (input - 1.0) / (length - 1.0),
            };
            let x = start * (input - 1.0) + step;
            if x < 0.0 || x > input - 1.0 {
                return Ok(Row::Outside(modes.extrapolation));
            }
            x
        }
        other => return Err(format!("coordinates {other} are not supported")),
    };
    // What is rounded to a whole number at the last digits is one.
    let x = if (x - x.round()).abs() < 1e-9 { x.round() } else { x };
    let cell = x.floor();
    let fraction = x - cell;
    let shrink = if modes.antialias { axis.scale.min(1.0) } else { 1.0 };
    let taps: Vec<(i64, f64)> = match modes.mode.as_str() {
        "nearest" => {
            let up = match modes.rounding.as_str() {
                "round_prefer_floor" => fraction > 0.5,
                "round_prefer_ceil" => fraction >= 0.5,
                "floor" => false,
                "ceil" => fraction > 0.0,
                other => return Err(format!("rounding {other} is not known")),
            };
            vec![(cell as i64 + i64::from(up), 1.0)]
        }
        "linear" | "bilinear" => taps(x, shrink, 1.0, |d| (1.0 - d).max(0.0)),
        "cubic" => {
            let a = modes.cubic;
            taps(x, shrink, 2.0, |d| match d {
                _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            })
        }
        other => return Err(format!("mode {other} is not supported")),
    };
    let inside = |at: i64| (0..axis.input as i64).contains(&at);
    let kept = |at: i64| !modes.exclude_outside || inside(at);
    let total: f64 = taps.iter().filter(|(at, _)| kept(*at)).map(|(_, w)| w).sum();
    let mut row: Vec<(usize, f64)> = Vec::new();
    for (at, weight) in taps.into_iter().filter(|(at, w)| kept(*at) && *w != 0.0) {
        let at = at.clamp(0, axis.input as i64 - 1) as usize;
        // They come in order, so that only the last can be the same.
        match row.last_mut().filter(|(known, _)| *known == at) {
            Some((_, sum)) => *sum += weight / total,
            None => row.push((at, weight / total)),
        }
    }
    Ok(Row::Taps(row))
}

/// Input pixels within `radius / shrink` of `x` and the filter's weight of each.
fn taps(x: f64, shrink: f64, radius: f64, filter: impl Fn(f64) -> f64) -> Vec<(i64, f64)> {
    let reach = radius / shrink;
    let (first, last) = ((x - reach).ceil() as i64, (x + reach).floor() as i64);
    (first..=last).map(|at| (at, filter((at as f64 - x).abs() * shrink))).collect()
}

fn apply(import: &mut Import, value: &Value, a: usize, along: &Axis, rows: &[Row]) -> Result<Value> {
    let elem = value.elem();
    // Each a pixel: a gather along the axis where it lies.
    if let Some(pixels) = rows.iter().map(Row::pixel).collect::<Option<Vec<_>>>() {
        let x = import.device(value)?;
        let dim = x.axes.iter().position(|&b| a == b).ok_or("an axis is missing")?;
        let pixels: Vec<u32> = pixels.into_iter().map(|p| p as u32).collect();
        let table = import.graph.weight("pixels", Tensor::from_u32([pixels.len()], &pixels));
        let y = import.graph.gather(x.id, table, dim).map_err(plain)?;
        return Ok(import.result(y, x.axes, elem));
    }
    if along.input * along.output > 1 << 24 {
        return Err(format!("{} to {} pixels in this mode are too many", along.input, along.output));
    }
    import.room(&[along.input, along.output])?;
    // Else a fully connected layer over the axis, which is made the last.
    let mut matrix = vec![0.0f32; along.output * along.input];
    let mut bias = vec![0.0f32; along.output];
    for (i, row) in rows.iter().enumerate() {
        match row {
            Row::Taps(taps) => {
                taps.iter().for_each(|&(at, w)| matrix[i * along.input + at] = w as f32);
            }
            Row::Outside(value) => bias[i] = *value as f32,
        }
    }
    let device = import.device(value)?;
    let order: Vec<usize> = device.axes.iter().copied().filter(|&b| b != a).chain([a]).collect();
    let x = import.ordered(value, &order)?;
    let g = &mut *import.graph;
    let matrix = g.weight("weights", Tensor::from_f32([along.output, along.input], &matrix));
    let bias =
        bias.iter().any(|&b| b != 0.0).then(|| g.weight("outside", Tensor::from_f32([along.output], &bias)));
    let y = g.linear(x, matrix, bias).map_err(plain)?;
    Ok(import.result(y, order, elem))
}
