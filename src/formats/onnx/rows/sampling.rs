//! Operators that read feature maps at computed places.

use super::super::import::{Import, Node, Result, Value, plain, size};
use super::Row;
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::resize::Interpolation;
use crate::ops::roi_align::{RoiAlign, Samples};
use crate::tensor::DType;

pub const ROWS: &[(&str, Row)] = &[("GridSample", grid_sample), ("RoiAlign", roi_align)];

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
