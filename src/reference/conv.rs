//! Convolutions, and the orders of their weights.

use half::f16;

use super::approx::{Approx, Sum, expression};
use super::winograd::{AtPoints, Form};
use super::{Element, Task, Values, map, unravel};
use crate::ops::conv_transpose2d::ConvTranspose2d;
use crate::ops::conv_weight::ConvWeight;
use crate::ops::conv2d::{Conv2d, Method};
use crate::ops::epilogue::Step;
use crate::ops::packed_weight::{PackedWeight, Scale};
use crate::ops::quantized::{BLOCK, BlockFormat};
use crate::tensor::{DType, TensorDesc};

/// A weight's number for an output channel, an input channel of its group, and a tap `[ky, kx]`.
pub(crate) type Weight<'a> = Box<dyn Fn(usize, usize, [usize; 2]) -> f64 + Sync + 'a>;

/// Where `ConvWeight::Tiles` puts a number.
fn place_in_tiles(
    [c_in, kh, kw]: [usize; 3],
    [taps, quads]: [usize; 2],
    [co, ci]: [usize; 2],
    [ky, kx]: [usize; 2],
) -> usize {
    let channels = 4 * quads;
    let row = ((co / channels * kh + ky) * (kw / taps) + kx / taps) * c_in.div_ceil(4) + ci / 4;
    ((row * taps + kx % taps) * 4 + ci % 4) * channels + co % channels
}

/// Where `ConvWeight::Matrices` puts a number.
fn place_in_matrices(
    [c_in, taps]: [usize; 2],
    [columns, depth]: [usize; 2],
    [co, ci]: [usize; 2],
    tap: usize,
) -> usize {
    ((co / columns * taps + tap) * c_in.next_multiple_of(depth) + ci) * columns + co % columns
}

/// Words of a record of `ConvWeight::Blocks`: where it begins, and the place of a tap and a quad of output channels in it.
fn place_in_blocks(
    [c_in, kh, kw]: [usize; 3],
    [taps, quads]: [usize; 2],
    format: BlockFormat,
    [co, ci]: [usize; 2],
    [ky, kx]: [usize; 2],
) -> [usize; 2] {
    let record = taps * quads * (2 + 4 * format.words());
    let row = ((co / (4 * quads) * kh + ky) * (kw / taps) + kx / taps) * c_in.div_ceil(BLOCK) + ci / BLOCK;
    [row * record, kx % taps * quads + co / 4 % quads]
}

/// The weight of a convolution in the order of its method.
pub(crate) fn weight_of<'a>(conv: &Conv2d, weight: &'a Values) -> Weight<'a> {
    let [kh, kw] = conv.kernel;
    let c_in = conv.c_in / conv.options.groups;
    let (size, c_out) = ([c_in, kh, kw], conv.c_out);
    match conv.method.and_then(|method| conv.packing(method)) {
        None => Box::new(move |co, ci, [ky, kx]| weight.at(((co * c_in + ci) * kh + ky) * kw + kx)),
        Some(ConvWeight::Depthwise) => {
            Box::new(move |co, _, [ky, kx]| weight.at((ky * kw + kx) * c_out + co))
        }
        Some(ConvWeight::Tiles { taps, quads }) => {
            Box::new(move |co, ci, tap| weight.at(place_in_tiles(size, [taps, quads], [co, ci], tap)))
        }
        Some(ConvWeight::Matrices { columns, depth }) => Box::new(move |co, ci, [ky, kx]| {
            weight.at(place_in_matrices([c_in, kh * kw], [columns, depth], [co, ci], ky * kw + kx))
        }),
        Some(ConvWeight::Winograd { squares, quads }) => {
            let (form, size) = (Form::new(squares), [c_in, c_out.div_ceil(4 * quads), quads]);
            Box::new(move |co, ci, tap| form.tap(|point| weight.at(form.place(size, [co, ci], point)), tap))
        }
        Some(ConvWeight::Blocks { taps, quads, format }) => Box::new(move |co, ci, tap| {
            let [first, at] = place_in_blocks(size, [taps, quads], format, [co, ci], tap);
            let (lane, k, pairs) = (co % 4, ci % BLOCK, taps * quads);
            let scale = weight.word(first + 2 * at + lane / 2) >> (16 * (lane % 2));
            let word = first + 2 * pairs + (k / 4 * pairs + at) * format.words() / 2;
            let integer = match format {
                BlockFormat::Q8_0 => (weight.word(word + k % 4) << (24 - 8 * lane)) as i32 >> 24,
                BlockFormat::Q4_0 => {
                    (weight.word(word + k % 4 / 2) >> (16 * (k % 2) + 4 * lane) & 15) as i32 - 8
                }
            };
            f16::from_bits(scale as u16).to_f64() * f64::from(integer)
        }),
    }
}

/// What the steps make of a result `[n, …, c]`, from the operation's further inputs.
fn epilogue(steps: &[Step], tensors: &[&Values], mut x: Approx, i: usize, place: [usize; 3]) -> Approx {
    let mut tensors = tensors.iter();
    for step in steps {
        if let Step::Apply(f) = step {
            x = expression(f, &|_| x);
            continue;
        }
        let tensor = tensors.next().expect("checked by infer");
        let tensor = Approx::exact(tensor.at(start(step, place).unwrap_or(i)));
        x = if *step == Step::MulTensor { x.times(tensor) } else { x.add(tensor) };
    }
    x
}

pub fn conv2d<'v>(op: &'v Conv2d, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, weight) = (task.inputs[0], weight_of(op, task.inputs[1]));
    let tensors = task.inputs[2..].to_vec();
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    let o = op.options;
    if let Some(Method::Winograd { squares, products }) = op.method {
        let quads = products.quads(op.c_out);
        let size = [op.c_in, op.c_out.div_ceil(4 * quads), quads];
        let at_points = AtPoints::new(Form::new(squares), task.inputs[1], size);
        let results = squares.results();
        return Box::new(move |i| {
            let [n, y, column, co] = unravel(i, shape);
            let first = [y, column].map(|at| at / results * results);
            let pixel = |ci: usize, row: usize, line: usize| {
                let v = (first[0] + row).wrapping_sub(o.padding[0]);
                let u = (first[1] + line).wrapping_sub(o.padding[1]);
                match v < h * op.upsample && u < w * op.upsample {
                    true => x.at(((n * h + v / op.upsample) * w + u / op.upsample) * c + ci),
                    false => 0.0,
                }
            };
            epilogue(
                &op.epilogue.steps,
                &tensors,
                at_points.result(co, [y, column], pixel),
                i,
                [n, co, shape[3]],
            )
        });
    }
    // The source may be enlarged on the way, each pixel repeated.
    let (tall, wide) = (h * op.upsample, w * op.upsample);
    let each = op.c_in / o.groups;
    Box::new(move |i| {
        let [n, y, column, co] = unravel(i, shape);
        let first = co / (op.c_out / o.groups) * each;
        let mut sum = Sum::default();
        for ky in 0..op.kernel[0] {
            let v = (y * o.stride[0] + ky * o.dilation[0]).wrapping_sub(o.padding[0]);
            for kx in 0..op.kernel[1] {
                let u = (column * o.stride[1] + kx * o.dilation[1]).wrapping_sub(o.padding[1]);
                if v < tall && u < wide {
                    let pixel = ((n * h + v / op.upsample) * w + u / op.upsample) * c + first;
                    for ci in 0..each {
                        sum.add(x.at(pixel + ci) * weight(co, ci, [ky, kx]));
                    }
                }
            }
        }
        let place = [n, co, shape[3]];
        // Kernels may begin their sums with what is the same for all pixels.
        let mut starts = 0;
        for (step, tensor) in op.epilogue.steps.iter().zip(&tensors) {
            let Some(at) = start(step, place) else { break };
            sum.add(tensor.at(at));
            starts += 1;
        }
        epilogue(&op.epilogue.steps[starts..], &tensors[starts..], sum.finish(), i, place)
    })
}

/// Which number of its tensor a step adds, if it is the same for all pixels.
fn start(step: &Step, [sample, channel, channels]: [usize; 3]) -> Option<usize> {
    match step {
        Step::AddChannel => Some(channel),
        Step::AddSample => Some(sample * channels + channel),
        Step::AddTensor | Step::MulTensor | Step::Apply(_) => None,
    }
}

pub fn transposed<'v>(op: &ConvTranspose2d, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, weight, bias) = (task.inputs[0], task.inputs[1], task.inputs.get(2).copied());
    let ([_, h, w, c], shape, o) = (task.map(0), map(task.output), op.options);
    let [_, kh, kw, each_out] = task.map(1);
    let each = c / o.groups;
    Box::new(move |i| {
        let [n, y, column, co] = unravel(i, shape);
        let first = co / each_out * each;
        let mut sum = Sum::default();
        // Source pixels whose taps reach this one.
        let from = |at: usize, k: usize, d: usize, size: usize| {
            let place = (at + o.padding[d]).checked_sub(k * o.dilation[d])?;
            (place % o.stride[d] == 0).then_some(place / o.stride[d]).filter(|&p| p < size)
        };
        for ky in 0..kh {
            for kx in 0..kw {
                if let (Some(v), Some(u)) = (from(y, ky, 0, h), from(column, kx, 1, w)) {
                    for ci in first..first + each {
                        let at = ((ci * kh + ky) * kw + kx) * each_out + co % each_out;
                        sum.add(x.at(((n * h + v) * w + u) * c + ci) * weight.at(at));
                    }
                }
            }
        }
        bias.iter().for_each(|bias| sum.add(bias.at(co)));
        sum.finish()
    })
}

/// A weight in another order, of what is in a file.
pub fn packed<'v>(op: &'v PackedWeight, task: &Task<'_, 'v>) -> Element<'v> {
    let src = Values::of(op.stored());
    let shape = super::map(&src.desc);
    let scale = op.scale().map(Scale::numbers);
    // Of two numbers of f32 the product is rounded once.
    let number = move |i: usize| match &scale {
        Some(scale) => f64::from((src.at(i) * f64::from(scale[i / (shape[1] * shape[2] * shape[3])])) as f32),
        None => src.at(i),
    };
    ordered(op.packing(), number, shape, task.output)
}

/// A weight in another order.
pub fn weight<'v>(op: &'v ConvWeight, task: &Task<'_, 'v>) -> Element<'v> {
    let src = task.inputs[0];
    ordered(*op, move |i| src.at(i), task.map(0), task.output)
}

/// `src`: numbers of the weight `[c_out, c_in, kh, kw]`.
fn ordered<'v>(
    packing: ConvWeight,
    src: impl Fn(usize) -> f64 + Sync + 'v,
    [c_out, c_in, kh, kw]: [usize; 4],
    output: &TensorDesc,
) -> Element<'v> {
    let at = move |co: usize, ci: usize, ky: usize, kx: usize| match co < c_out && ci < c_in {
        true => src(((co * c_in + ci) * kh + ky) * kw + kx),
        false => 0.0,
    };
    match packing {
        ConvWeight::Depthwise => Box::new(move |i| {
            let tap = i / c_out;
            Approx::exact(at(i % c_out, 0, tap / kw, tap % kw))
        }),
        ConvWeight::Tiles { taps, quads } => {
            let tiles = output.shape[0] / (kh * (kw / taps) * c_in.div_ceil(4));
            let shape = [tiles, kh, kw / taps, c_in.div_ceil(4), taps, 4, 4 * quads];
            Box::new(move |i| {
                let [tile, ky, step, quad, tap, lane, channel] = unravel(i, shape);
                Approx::exact(at(tile * 4 * quads + channel, quad * 4 + lane, ky, step * taps + tap))
            })
        }
        ConvWeight::Matrices { columns, depth } => {
            let shape = [c_out.div_ceil(columns), kh, kw, c_in.next_multiple_of(depth), columns];
            Box::new(move |i| {
                let [tile, ky, kx, ci, column] = unravel(i, shape);
                Approx::exact(at(tile * columns + column, ci, ky, kx))
            })
        }
        ConvWeight::Winograd { squares, quads } => {
            let form = Form::new(squares);
            Box::new(move |i| {
                let (v, u, [co, ci]) = form.unplace([c_in, c_out.div_ceil(4 * quads), quads], i);
                form.weight([v, u], |tap| at(co, ci, tap[0], tap[1]))
            })
        }
        ConvWeight::Blocks { taps, quads, format } => {
            let words = output.shape[1];
            let (pairs, wide) = (taps * quads, format.words() / 2);
            let records = [
                output.shape[0] / (kh * (kw / taps) * c_in.div_ceil(BLOCK)),
                kh,
                kw / taps,
                c_in.div_ceil(BLOCK),
            ];
            Box::new(move |i| {
                let [tile, ky, step, block] = unravel(i / words, records);
                let word = i % words;
                // Scales of two channels, or integers: of which tap and quad, and which of its words.
                let (place, within) = match word < 2 * pairs {
                    true => (word / 2, word % 2),
                    false => ((word - 2 * pairs) / wide % pairs, (word - 2 * pairs) % wide),
                };
                let co = (tile * quads + place % quads) * 4;
                let kx = step * taps + place / quads;
                let numbers = |lane: usize| {
                    let number = |k: usize| at(co + lane, block * BLOCK + k, ky, kx) as f32;
                    (0..BLOCK).map(number).collect::<Vec<f32>>()
                };
                if word < 2 * pairs {
                    let half =
                        |lane: usize| u32::from(f16::from_f32(scale(format, &numbers(lane))).to_bits());
                    let value = half(2 * within) | half(2 * within + 1) << 16;
                    return Approx::exact(f64::from(value));
                }
                let quad = (word - 2 * pairs) / wide / pairs * 4;
                let (mut value, mut decided) = (0u32, true);
                for lane in 0..4 {
                    let numbers = numbers(lane);
                    let d = scale(format, &numbers);
                    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                    // Devices may have no numbers below the normal ones.
                    decided &= d == 0.0 || (1e-35..1e35).contains(&d.abs());
                    for k in 0..4 {
                        let shift = match format {
                            BlockFormat::Q8_0 if k != within => continue,
                            BlockFormat::Q8_0 => 8 * lane,
                            BlockFormat::Q4_0 if k / 2 != within => continue,
                            BlockFormat::Q4_0 => 16 * (k % 2) + 4 * lane,
                        };
                        let x = numbers[quad + k] * inverse;
                        let integer = match format {
                            BlockFormat::Q8_0 => x.round() as i32 as u32 & 0xff,
                            BlockFormat::Q4_0 => (x + 8.5).floor().clamp(0.0, 15.0) as u32,
                        };
                        value |= integer << shift;
                    }
                }
                match decided {
                    true => Approx::exact(f64::from(value)),
                    false => Approx::undecided(f64::from(value)),
                }
            })
        }
    }
}

/// The scale of a block, as ggml has it.
fn scale(format: BlockFormat, numbers: &[f32]) -> f32 {
    let extreme = numbers.iter().fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    match format {
        BlockFormat::Q8_0 => extreme.abs() / 127.0,
        BlockFormat::Q4_0 => extreme / -8.0,
    }
}

/// A convolution's weight as the file has it, `[c_out, c_in / groups, kh, kw]`, out of the order of its method.
pub(crate) fn unpacked(conv: &Conv2d, weight: &Values, dtype: DType) -> crate::tensor::Tensor {
    let each = conv.c_in / conv.options.groups;
    let shape = [conv.c_out, each, conv.kernel[0], conv.kernel[1]];
    let at = weight_of(conv, weight);
    let numbers: Vec<f32> = (0..shape.iter().product())
        .map(|i| {
            let [co, ci, ky, kx] = unravel(i, shape);
            at(co, ci, [ky, kx]) as f32
        })
        .collect();
    crate::tensor::Tensor::from_f32(shape, &numbers).to_dtype(dtype)
}

/// Whether a method can compute this convolution at all.
pub(crate) fn allows(conv: &Conv2d, method: Method) -> bool {
    let groups = conv.options.groups;
    match method {
        Method::Direct => true,
        Method::Depthwise => groups == conv.c_in && conv.c_in == conv.c_out && conv.c_in.is_multiple_of(4),
        Method::Winograd { .. } => conv.allows_winograd(DType::F32),
        Method::Shared(_) => conv.allows_shared(),
        Method::Matrices(blocks) => conv.allows_matrices(DType::F16, blocks.block.side),
        _ => {
            groups == 1 || ((conv.c_in / groups).is_multiple_of(4) && (conv.c_out / groups).is_multiple_of(4))
        }
    }
}
