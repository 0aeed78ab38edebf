//! Operators that read feature maps at computed places, and that put them together from blocks.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{Import, Node, Result, Value, checked_elements, ints, plain, size, with_ints};
use super::Row;
use super::layers::{convolved, pads, pair, positive};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::deform_columns::DeformColumns;
use crate::ops::fold_columns::FoldColumns;
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::resize::Interpolation;
use crate::ops::roi_align::{RoiAlign, Samples};
use crate::tensor::DType;

pub const ROWS: &[(&str, Row)] = &[
    ("AffineGrid", affine_grid),
    ("Col2Im", column_to_image),
    ("DeformConv", deform_conv),
    ("GridSample", grid_sample),
    ("RoiAlign", roi_align),
];

/// Refuses what is not a feature map of floating-point numbers with two spatial axes.
fn picture(value: &Value) -> Result<()> {
    match value.rank() {
        _ if !value.elem().is_float() => Err(format!("{} is not supported", value.elem())),
        4 => Ok(()),
        _ => Err(format!("wants two spatial axes, found shape {:?}", value.shape())),
    }
}

fn grid_sample(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, grid) = (node.input(0)?, node.input(1)?);
    picture(value)?;
    let mode = node.string("mode", "linear");
    let interpolation = match mode.as_str() {
        "bilinear" | "linear" => Interpolation::Bilinear,
        "nearest" => Interpolation::Nearest,
        "bicubic" | "cubic" => Interpolation::Bicubic { a: -0.75 },
        _ => return Err(format!("mode \"{mode}\" is not supported")),
    };
    let padding = node.string("padding_mode", "zeros");
    let outside = match padding.as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => return Err(format!("padding_mode \"{padding}\" is not supported")),
    };
    let align_corners = node.int("align_corners", 0) != 0;
    let (x, grid) = (import.channels_last(value)?, import.plain(grid)?);
    let options = GridSample { interpolation, outside, align_corners };
    let y = import.graph.grid_sample(x, grid, options).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

fn roi_align(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, regions, pictures) = (node.input(0)?, node.input(1)?, node.input(2)?);
    picture(value)?;
    if pictures.elem().dtype() != DType::I32 {
        return Err(format!("indices of pictures must be integers, found {}", pictures.elem()));
    }
    // Before version 16 pixel centres were not at halves.
    let default = if import.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let coordinates = node.string("coordinate_transformation_mode", default);
    let half_pixel = match coordinates.as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        _ => return Err(format!("coordinate_transformation_mode \"{coordinates}\" is not supported")),
    };
    let mode = node.string("mode", "avg");
    let reduce = match mode.as_str() {
        "avg" => Samples::Mean,
        "max" => Samples::Max,
        _ => return Err(format!("mode \"{mode}\" is not supported")),
    };
    let options = RoiAlign {
        size: [size(node.int("output_height", 1))?, size(node.int("output_width", 1))?],
        samples: size(node.int("sampling_ratio", 0))?,
        scale: node.float("spatial_scale", 1.0),
        half_pixel,
        reduce,
    };
    let (x, regions, pictures) =
        (import.channels_last(value)?, import.plain(regions)?, import.plain(pictures)?);
    let y = import.graph.roi_align(x, regions, pictures, options).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

/// Most pixels of a grid whose places are worked out here.
const MOST_PIXELS: usize = 1 << 22;

/// Places of pixels, from -1 to 1, moved by an affine map each.
fn affine_grid(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let map = node.input(0)?;
    let wanted = node.ints(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let axes = wanted.len().saturating_sub(2);
    let [n, _, sizes @ ..] = &wanted[..] else {
        return Err(format!("size {wanted:?} is not one of pictures"));
    };
    if map.elem() != Elem::F32 || map.shape() != [*n, axes, axes + 1] || !(2..=3).contains(&axes) {
        return Err(format!("{}{:?} does not map {axes} axes of {n} pictures", map.elem(), map.shape()));
    }
    let count = checked_elements(sizes)?;
    if count > MOST_PIXELS {
        return Err(format!("a grid of {count} pixels is not supported, {MOST_PIXELS} are"));
    }
    let corners = node.int("align_corners", 0) != 0;
    let place = |i: usize, n: usize| match corners {
        true if n == 1 => -1.0,
        true => 2.0 * i as f64 / (n - 1) as f64 - 1.0,
        false => (2 * i + 1) as f64 / n as f64 - 1.0,
    };
    // The last axis comes first, and a one for the translation last.
    let mut places = Vec::with_capacity(count * (axes + 1));
    for pixel in 0..count {
        let mut rest = pixel;
        for &size in sizes.iter().rev() {
            places.push(place(rest % size, size));
            rest /= size;
        }
        places.push(1.0);
    }
    let places = Value::Host(Host::floats(Elem::F32, vec![1, count, axes + 1], places));
    let turned = import.call("Transpose", &[map], vec![with_ints("perm", &[0, 2, 1])])?;
    let y = import.call("MatMul", &[&places, &turned], vec![])?;
    let dims: Vec<i64> = [&[*n], sizes, &[axes]].concat().into_iter().map(|d| d as i64).collect();
    Ok(vec![import.call("Reshape", &[&y, &ints(&dims)], vec![])?])
}

/// What the taps read, then a product with the weights.
fn deform_conv(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, weight, offsets) = (node.input(0)?, node.input(1)?, node.input(2)?);
    picture(value)?;
    let (x, options) = convolved(import, node, value, weight)?;
    let &[outputs, each, kh, kw] = weight.shape() else {
        return Err(format!("weight {:?} is not for two spatial axes", weight.shape()));
    };
    let sets = size(node.int("offset_group", 1))?;
    let offsets = import.channels_last(offsets)?;
    let mask = node.optional(4).map(|mask| import.channels_last(mask)).transpose()?;
    let columns = DeformColumns { options, kernel: [kh, kw], sets };
    let columns = import.graph.deform_columns(x, offsets, mask, columns).map_err(plain)?;
    let w = import.ordered(weight, &[0, 2, 3, 1])?;
    let w = import.graph.reshape(w, [outputs, kh * kw * each, 1, 1]).map_err(plain)?;
    let bias = node.optional(3).map(|b| import.plain(b)).transpose()?;
    let product = Conv2dOptions::default().groups(options.groups);
    let y = import.graph.conv2d(columns, w, bias, product).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

fn column_to_image(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let (image, block) = (node.ints(1)?, node.ints(2)?);
    let (&[h, w], &[kh, kw]) = (&image[..], &block[..]) else {
        return Err(format!("wants two spatial axes, found an image of {image:?} and blocks of {block:?}"));
    };
    let &[n, taps, count] = value.shape() else {
        return Err(format!("wants [n, c · taps, blocks], found {:?}", value.shape()));
    };
    if !value.elem().is_float() {
        return Err(format!("{} is not supported", value.elem()));
    }
    let (size, kernel) = ([size(h)?, size(w)?], [size(kh)?, size(kw)?]);
    let (stride, dilation) = (pair(node, "strides", 1, 2)?, pair(node, "dilations", 1, 2)?);
    positive(&[kernel, stride, dilation].concat())?;
    let padding = pads(node, 2)?;
    let reach = dilation[1].saturating_mul(kernel[1] - 1).saturating_add(1);
    let room = (size[1] + padding[1] + padding[3]).checked_sub(reach);
    let columns = room.map_or(1, |room| room / stride[1] + 1);
    let x = import.ordered(value, &[0, 2, 1])?;
    let options = FoldColumns { size, kernel, stride, dilation, padding };
    let build = || {
        let x = import.graph.reshape(x, [n, count / columns, columns, taps])?;
        import.graph.fold_columns(x, options)
    };
    let y = build().map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}
