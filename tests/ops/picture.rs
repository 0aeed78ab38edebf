use aquatint::ops::picture_to_tensor::{Axis, Filter, Outside};
use aquatint::{DType, Graph, Network, Plan, Target, Tensor, Weights};

use crate::harness::{Array, Case, F32, Rng, compare, examined, gpu};

/// Runs a resize of `words` `[n, h, w]` and reads the result.
fn resample(
    words: &[u32],
    [rows, columns]: [&Axis; 2],
    filter: Filter,
    outside: Outside,
    normalise: &[(f32, f32)],
) -> Option<Array> {
    let [h, w] = [rows.source, columns.source];
    let n = words.len() / (h * w);
    let mut g = Graph::new();
    let pictures = g.input("x", [n, h, w], DType::U32);
    let y = g.picture_resample(pictures, [rows, columns], filter, outside, normalise, DType::F32).unwrap();
    g.output("y", y);
    Plan::compile(&g, &Target::typical()).unwrap();
    let network = Network::new(gpu()?, &g).unwrap();
    network.poison().unwrap();
    let words = Tensor::from_u32([n, h, w], words);
    let found = network.run(&[("x", &words)]).unwrap().remove(0);
    examined(gpu()?, "resample", &g, &[("x", &words)]);
    let data = found.to_f32().into_iter().map(f64::from).collect();
    Some(Array { shape: found.desc.shape.to_vec(), data })
}

/// Bytes as they are.
const BYTES: [(f32, f32); 3] = [(255.0, 0.0); 3];

#[test]
fn resized_bit_for_bit_as_in_pillow() {
    let file =
        Weights::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pillow.safetensors")).unwrap();
    let load = |name: &str| {
        let shape = file.shape(name).unwrap().to_vec();
        let data = file.tensor(name, &shape).unwrap().to_f32().into_iter().map(f64::from).collect();
        Array { shape, data }
    };
    let part = [3.25, 4.5, 21.75, 30.125];
    for name in ["shrunk", "enlarged", "rows", "columns", "much", "part", "pixel"] {
        let source = load(&format!("{name}.source"));
        let (h, w) = (source.shape[0], source.shape[1]);
        let word = |p: &[f64]| u32::from_le_bytes([p[0] as u8, p[1] as u8, p[2] as u8, 255]);
        let words: Vec<u32> = source.data.chunks_exact(3).map(word).collect();
        for (kind, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
            let expected = load(&format!("{name}.{kind}"));
            let mut rows = Axis::resized(h, expected.shape[0]);
            let mut columns = Axis::resized(w, expected.shape[1]);
            if name == "part" {
                (rows.part, columns.part) = ([part[1], part[3]], [part[0], part[2]]);
            }
            let Some(found) = resample(&words, [&rows, &columns], filter, Outside::Edge, &BYTES) else {
                return;
            };
            assert_eq!(found.shape[1..], expected.shape);
            for (i, (f, e)) in found.data.iter().zip(&expected.data).enumerate() {
                // b / 255 · 255 is off by an ulp; a byte is not.
                assert!((f - e).abs() < 1e-3, "{name}, {kind}, number {i}: {f}, expected {e}");
            }
        }
    }
}

/// A part of the result in a larger frame, of several pictures, in every form of normalisation, is that of the whole.
#[test]
fn frames_show_what_the_whole_has() {
    let imagenet =
        [(1.0 / 0.229, -0.485 / 0.229), (1.0 / 0.224, -0.456 / 0.224), (1.0 / 0.225, -0.406 / 0.225)];
    let mut rng = Rng::new("frames");
    for (n, h, w, resized, first, out) in [
        (2, 37, 53, [8, 11], [0, 0], [8, 11]),
        (1, 9, 8, [9, 8], [-3, 2], [16, 5]),
        (3, 5, 7, [16, 9], [4, -2], [8, 16]),
        (1, 1, 1, [1, 1], [-1, 0], [3, 2]),
        (1, 12, 300, [3, 5], [0, 1], [3, 2]),
    ] {
        let words: Vec<u32> = (0..n * h * w).map(|_| rng.bits() as u32).collect();
        let whole = [Axis::resized(h, resized[0]), Axis::resized(w, resized[1])];
        let frame = |d: usize| Axis { first: first[d], out: out[d], ..Axis::resized([h, w][d], resized[d]) };
        let Some(bytes) = resample(&words, [&whole[0], &whole[1]], Filter::Bicubic, Outside::Edge, &BYTES)
        else {
            return;
        };
        for outside in [Outside::Fill(114), Outside::Edge] {
            for normalise in [&imagenet[..], &[(2.0, -1.0)]] {
                let channels = normalise.len();
                let expected = Array::from_fn(&[n, out[0], out[1], channels], |i| {
                    let at = [i[1] as isize + first[0], i[2] as isize + first[1]];
                    let inside = (0..2).all(|d| (0..resized[d] as isize).contains(&at[d]));
                    let clamped = [0, 1].map(|d| at[d].clamp(0, resized[d] as isize - 1) as usize);
                    let byte = |c: usize| match outside {
                        Outside::Fill(fill) if !inside => f64::from(fill),
                        _ => bytes.at(&[i[0], clamped[0], clamped[1], c]).round(),
                    };
                    let value = match channels {
                        1 => 0.299 * byte(0) + 0.587 * byte(1) + 0.114 * byte(2),
                        _ => byte(i[3]),
                    };
                    value / 255.0 * f64::from(normalise[i[3]].0)
                });
                let axes = [&frame(0), &frame(1)];
                let Some(found) = resample(&words, axes, Filter::Bicubic, outside, normalise) else { return };
                // Before what is added: where all of a picture is about grey, that leaves little but the rounding of both.
                let added = |k: usize| f64::from(normalise[k % channels].1);
                let found: Vec<f64> = found.data.iter().enumerate().map(|(k, &x)| x - added(k)).collect();
                compare(&format!("{h}×{w} in a frame"), &found, &expected, F32);
            }
        }
    }
}

/// As PyTorch's `interpolate` without `antialias`, but for the rounding to bytes, once an axis.
#[test]
fn two_taps_are_not_widened() {
    let mut rng = Rng::new("two taps");
    for (h, w, size) in [(37, 53, [8, 11]), (9, 8, [16, 13]), (5, 300, [5, 3]), (1, 2, [4, 1])] {
        let words: Vec<u32> = (0..h * w).map(|_| rng.bits() as u32).collect();
        let axes = [Axis::resized(h, size[0]), Axis::resized(w, size[1])];
        let Some(found) = resample(&words, [&axes[0], &axes[1]], Filter::TwoTaps, Outside::Edge, &BYTES)
        else {
            return;
        };
        // The pixels on both sides and the share of the second.
        let taps = |at: usize, source: usize, out: usize| {
            let place = ((at as f64 + 0.5) * source as f64 / out as f64 - 0.5).max(0.0);
            let first = place as usize;
            (first, (first + 1).min(source - 1), place - first as f64)
        };
        for y in 0..size[0] {
            for x in 0..size[1] {
                let ((y0, y1, ty), (x0, x1, tx)) = (taps(y, h, size[0]), taps(x, w, size[1]));
                for c in 0..3 {
                    let byte = |y: usize, x: usize| f64::from(words[y * w + x].to_le_bytes()[c]);
                    let row = |y: usize| byte(y, x0) * (1.0 - tx) + byte(y, x1) * tx;
                    let expected = row(y0) * (1.0 - ty) + row(y1) * ty;
                    let found = found.at(&[0, y, x, c]);
                    assert!((found - expected).abs() < 1.01, "{h}×{w}, {y} {x}: {found}, {expected}");
                }
            }
        }
    }
}

#[test]
fn parts_that_are_not_there_are_refused() {
    for part in [[-1.0, 4.0], [2.0, 2.0], [0.0, 9.0], [f64::NAN, 3.0]] {
        let mut g = Graph::new();
        let pictures = g.input("x", [1, 8, 8], DType::U32);
        let axis = Axis { part, ..Axis::resized(8, 4) };
        let axes = [&axis, &Axis::whole(8)];
        g.picture_resample(pictures, axes, Filter::Bilinear, Outside::Edge, &BYTES, DType::F32).unwrap_err();
    }
}

#[test]
fn tensors_become_bytes() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng::new("picture from tensor");
    for (shape, slot) in
        [(vec![2, 3, 5, 1], 0), (vec![1, 4, 4, 3], 0), (vec![3, 2, 5, 3, 3], 2), (vec![2, 1, 8, 8, 1], 1)]
    {
        // Beyond ±1 on both sides, and well away from the halves between two bytes.
        let size: usize = shape.iter().product();
        let bytes: Vec<i32> = (0..size).map(|_| rng.below(300) as i32 - 20).collect();
        let values: Vec<f32> =
            bytes.iter().map(|&b| ((f64::from(b) + rng.uniform(-0.4, 0.4)) / 127.5 - 1.0) as f32).collect();
        let [.., n, h, w, c] = shape[..] else { panic!() };
        let mut g = Graph::new();
        let x = g.input("x", shape.clone(), DType::F32);
        let y = g.picture_from_tensor(x, slot, 0.5, 0.5).unwrap();
        g.output("y", y);
        let network = Network::new(gpu, &g).unwrap();
        network.poison().unwrap();
        let values = Tensor::from_f32(shape.clone(), &values);
        let found = network.run(&[("x", &values)]).unwrap().remove(0);
        examined(gpu, "picture from tensor", &g, &[("x", &values)]);
        for (pixel, word) in found.bytes.chunks_exact(4).enumerate() {
            let at = |channel: usize| {
                bytes[slot * n * h * w * c + pixel * c + channel.min(c - 1)].clamp(0, 255) as u8
            };
            assert_eq!(word, [at(0), at(1), at(2), 255], "pixel {pixel} of {shape:?}");
        }
    }
}

#[test]
fn borders() {
    let mut rng = Rng::new("border");
    for shape in [[2, 32, 32, 1], [1, 5, 3, 4], [3, 1, 7, 2], [1, 6, 1, 3], [2, 1, 1, 1], [1, 2, 2, 5]] {
        let [n, h, w, c] = shape;
        let x = rng.array(&shape);
        Case::new(format!("border of {shape:?}")).input(&x).check(
            |g, v| g.border_mean(v[0]),
            |a| {
                Array::from_fn(&[n, 1, 1, c], |i| {
                    let (mut sum, mut count) = (0.0, 0.0);
                    for y in 0..h {
                        for x in 0..w {
                            if y == 0 || x == 0 || y + 1 == h || x + 1 == w {
                                sum += a[0].at(&[i[0], y, x, i[3]]);
                                count += 1.0;
                            }
                        }
                    }
                    sum / count
                })
            },
        );
    }
}
