use aquatint::ops::best_boxes::{Classes, Selection};
use aquatint::ops::picture_crops::PictureCrops;
use aquatint::ops::picture_to_tensor::Axis;
use aquatint::{DType, Graph, Network, Plan, Target, Tensor};

use crate::harness::{Array, Case, F32, Rng, compare, examined, gpu};

fn overlap(a: &[f64], b: &[f64]) -> f64 {
    let area = |b: &[f64]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let common = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    area(&common) / (area(a) + area(b) - area(&common)).max(1e-12)
}

/// Boxes of a picture of 64 × 48 (w × h), some of them partly outside. No two of a picture overlap by so nearly the threshold that
/// rounding decides which of them is left: of thousands some pair would.
fn boxes(rng: &mut Rng, n: usize, candidates: usize) -> Array {
    let mut boxes = Array::zeros(&[n, candidates, 4]);
    for picture in boxes.data.chunks_exact_mut(candidates * 4) {
        for i in 0..candidates {
            let (before, rest) = picture.split_at_mut(i * 4);
            let borderline = |b: &[f64]| {
                let near = |other| (overlap(other, b) - f64::from(SELECTION.overlap)).abs() < 4e-5;
                before.chunks_exact(4).any(near)
            };
            loop {
                let (x, y) = (rng.uniform(-5.0, 60.0), rng.uniform(-5.0, 40.0));
                rest[..4].copy_from_slice(&[x, y, x + rng.uniform(5.0, 30.0), y + rng.uniform(5.0, 30.0)]);
                if !borderline(&rest[..4]) {
                    break;
                }
            }
        }
    }
    boxes
}

/// Score, class and edges.
type Candidate<'a> = (f64, usize, &'a [f64]);

/// The candidates of a picture whose score reaches the threshold, an f32.
fn candidates<'a>([boxes, scores]: [&'a Array; 2], picture: usize, s: &Selection) -> Vec<Candidate<'a>> {
    let (count, classes) = (scores.shape[1], scores.shape[2]);
    let known = usize::from(s.background)..classes;
    let mut all: Vec<Candidate> = Vec::new();
    for c in picture * count..(picture + 1) * count {
        let scores = &scores.data[c * classes..][..classes];
        let edges = &boxes.data[c * 4..][..4];
        let best = known.clone().rev().max_by(|&x, &y| scores[x].total_cmp(&scores[y])).unwrap();
        let counts = |class: &usize| s.classes != Classes::Best || *class == best;
        all.extend(known.clone().filter(counts).map(|class| (scores[class], class, edges)));
    }
    all.retain(|(score, ..)| *score >= f64::from(s.least));
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    if let Classes::Each(most) = s.classes {
        let mut seen = vec![0; classes];
        all.retain(|(_, class, _)| {
            seen[*class] += 1;
            seen[*class] <= most
        });
    }
    all
}

fn check_boxes(name: &str, [boxes, scores]: [&Array; 2], selection: Selection) {
    let rows = Axis { first: -3, out: 48, ..Axis::resized(80, 42) };
    let columns = Axis::resized(30, 64);
    Case::new(name).input(boxes).input(scores).f32_only().check(
        |g, v| g.best_boxes(v[0], v[1], [&rows, &columns], selection),
        |a| {
            let (n, keep) = (a[0].shape[0], selection.keep);
            let mut result = Array::zeros(&[n, keep, 6]);
            for i in 0..n {
                let mut rest = candidates([&a[0], &a[1]], i, &selection);
                for k in 0..keep {
                    if rest.is_empty() {
                        break;
                    }
                    let (score, class, b) = rest.remove(0);
                    let apart = |c: usize| c != class && !selection.across_classes;
                    rest.retain(|(_, c, other)| {
                        apart(*c) || overlap(other, b) <= f64::from(selection.overlap)
                    });
                    let x = |v: f64| (v * 30.0 / 64.0).clamp(0.0, 30.0);
                    let y = |v: f64| ((v - 3.0) * 80.0 / 42.0).clamp(0.0, 80.0);
                    let row = [x(b[0]), y(b[1]), x(b[2]), y(b[3]), score, class as f64];
                    result.data[(i * keep + k) * 6..][..6].copy_from_slice(&row);
                }
            }
            result
        },
    );
}

const SELECTION: Selection = Selection {
    least: 0.3,
    overlap: 0.4,
    across_classes: false,
    keep: 10,
    classes: Classes::Best,
    background: false,
};

#[test]
fn the_best_boxes_are_kept() {
    let mut rng = Rng::new("boxes");
    for (n, candidates, classes, keep) in
        [(1, 1, 1, 1), (2, 40, 3, 10), (1, 700, 2, 100), (3, 257, 1, 5), (1, 5, 4, 9)]
    {
        for across_classes in [false, true] {
            let boxes = boxes(&mut rng, n, candidates);
            let scores = rng.array_in(&[n, candidates, classes], 0.0, 1.0);
            let background = classes > 2;
            let selection = Selection { keep, across_classes, background, ..SELECTION };
            let name = format!("boxes of {n}×{candidates}×{classes}, {across_classes}");
            check_boxes(&name, [&boxes, &scores], selection);
        }
    }
}

#[test]
fn each_class_has_its_own_boxes() {
    let mut rng = Rng::new("boxes of classes");
    for (n, candidates, classes, most, keep, background) in [
        (1, 1, 1, 1, 1, false),
        // More than 256 classes, and more of a class than count.
        (1, 20, 300, 7, 40, true),
        (2, 700, 3, 100, 60, true),
        (1, 3000, 2, 512, 512, false),
        (1, 513, 2, 300, 100, true),
        (2, 40, 4, 300, 200, false),
    ] {
        let boxes = boxes(&mut rng, n, candidates);
        let scores = rng.array_in(&[n, candidates, classes], 0.0, 1.0);
        let classes_kept = Classes::Each(most);
        let name = format!("boxes of each of {n}×{candidates}×{classes}");
        let selection = Selection { keep, classes: classes_kept, background, ..SELECTION };
        check_boxes(&name, [&boxes, &scores], selection);
    }
}

/// Of candidates with one score the first count, whatever the order of threads.
#[test]
fn equals_are_taken_in_order() {
    let Some(gpu) = gpu() else { return };
    let (count, most) = (1000, 13);
    let mut edges = Array::from_fn(&[1, count, 4], |i| (3 * i[1] + i[2] / 2) as f64);
    edges.data.chunks_exact_mut(4).for_each(|b| b[2] += 1.0);
    // All alike but one in the middle, which is better.
    let scores = Array::from_fn(&[1, count, 1], |i| if i[1] == 500 { 0.75 } else { 0.5 });
    let mut g = Graph::new();
    let [a, b] = [&edges, &scores].map(|t| g.weight("t", crate::harness::tensor(t, DType::F32)));
    let side = Axis::whole(4000);
    let selection = Selection { keep: 20, classes: Classes::Each(most), ..SELECTION };
    let y = g.best_boxes(a, b, [&side, &side], selection).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[]).unwrap()[0].to_f32();
    let left: Vec<f32> = found.chunks_exact(6).map(|b| b[0]).collect();
    let mut expected: Vec<f32> = [1500.0].into_iter().chain((0..12).map(|i| 3.0 * i as f32)).collect();
    expected.resize(20, 0.0);
    assert_eq!(left, expected);
}

#[test]
fn selections_that_make_no_sense_are_refused() {
    let mut g = Graph::new();
    let boxes = g.input("boxes", [1, 5, 4], DType::F32);
    let scores = g.input("scores", [1, 5, 1], DType::F32);
    let side = Axis::whole(10);
    for selection in [
        Selection { least: -0.1, ..SELECTION },
        Selection { overlap: f32::NAN, ..SELECTION },
        Selection { keep: 0, ..SELECTION },
        Selection { background: true, ..SELECTION },
        Selection { classes: Classes::Each(0), ..SELECTION },
        Selection { classes: Classes::Each(513), ..SELECTION },
        Selection { classes: Classes::Each(5), across_classes: true, ..SELECTION },
    ] {
        assert!(g.best_boxes(boxes, scores, [&side, &side], selection).is_err(), "{selection:?}");
    }
    g.best_boxes(boxes, scores, [&side, &side], SELECTION).unwrap();
}

#[test]
fn classes_of_pixels() {
    let mut rng = Rng::new("class map");
    for (n, h, w, classes, rows, columns) in [
        (1, 4, 6, 3, Axis::resized(13, 8), Axis::resized(9, 12)),
        (2, 5, 5, 1, Axis { first: -2, out: 10, ..Axis::resized(21, 6) }, Axis::whole(10)),
        (1, 1, 1, 4, Axis::resized(7, 3), Axis::resized(1, 3)),
        (1, 6, 7, 21, Axis { first: 2, out: 6, ..Axis::resized(40, 10) }, Axis::resized(30, 7)),
    ] {
        // Scores that differ by more than rounding between pixels: whole numbers, no two of a pixel alike.
        let scores =
            Array::from_fn(&[n, h, w, classes], |_| f64::from((rng.bits() >> 44) as u32) - 524_288.5);
        let place = |axis: &Axis, length: usize, p: usize| {
            // Where the middle of the picture's pixel lies in the map, clamped to its pixel centres.
            let in_network = ((p as f64 + 0.5) - axis.to_picture(0.0)) / axis.ratio();
            (in_network * length as f64 / axis.out as f64 - 0.5).clamp(0.0, length as f64 - 1.0)
        };
        Case::new(format!("classes of {h}×{w}×{classes}")).input(&scores).f32_only().check(
            |g, v| g.class_map(v[0], [&rows, &columns]),
            |a| {
                Array::from_fn(&[n, rows.source, columns.source], |i| {
                    let (v, u) = (place(&rows, h, i[1]), place(&columns, w, i[2]));
                    let (y, x) = (v as usize, u as usize);
                    let (ty, tx) = (v - y as f64, u - x as f64);
                    let score = |k: usize| {
                        let at = |y: usize, x: usize| a[0].at(&[i[0], y.min(h - 1), x.min(w - 1), k]);
                        let row = |y: usize| at(y, x) * (1.0 - tx) + at(y, x + 1) * tx;
                        row(y) * (1.0 - ty) + row(y + 1) * ty
                    };
                    match classes {
                        1 => f64::from(score(0) > 0.0),
                        _ => {
                            (0..classes).rev().max_by(|&p, &q| score(p).total_cmp(&score(q))).unwrap() as f64
                        }
                    }
                })
            },
        );
    }
}

#[test]
fn colours_are_laid_over() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng::new("overlay");
    let (n, h, w) = (2, 5, 7);
    let pictures: Vec<u32> = (0..n * h * w).map(|_| rng.bits() as u32 | 0xff00_0000).collect();
    let classes: Vec<u32> = (0..n * h * w).map(|_| rng.below(5) as u32).collect();
    let colours = [0, 0x80_40_20_10, 0xff_00_80_ff, 0x40_ff_ff_00];
    let mut g = Graph::new();
    let [a, b] = ["pictures", "classes"].map(|name| g.input(name, [n, h, w], DType::U32));
    let c = g.weight("colours", Tensor::from_u32([4], &colours));
    let y = g.overlay(a, b, c).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let inputs = [Tensor::from_u32([n, h, w], &pictures), Tensor::from_u32([n, h, w], &classes)];
    let given = [("pictures", &inputs[0]), ("classes", &inputs[1])];
    let found = network.run(&given).unwrap().remove(0);
    examined(gpu, "overlay", &g, &given);
    for (i, word) in found.bytes.chunks_exact(4).enumerate() {
        let [under, over] = [pictures[i], colours[classes[i].min(3) as usize]].map(u32::to_le_bytes);
        for c in 0..3 {
            let share = f64::from(over[3]) / 255.0;
            let mixed = f64::from(under[c]) * (1.0 - share) + f64::from(over[c]) * share;
            // Rounded to a byte, in f32.
            assert!((f64::from(word[c]) - mixed).abs() < 0.501, "{i}: {} for {mixed}", word[c]);
        }
        assert_eq!(word[3], 255);
    }
    let mut g = Graph::new();
    let [a, b] = [("a", [1, 2, 3]), ("b", [1, 3, 2])].map(|(name, shape)| g.input(name, shape, DType::U32));
    let c = g.weight("c", Tensor::from_u32([1], &[0]));
    assert!(g.overlay(a, b, c).is_err());
}

#[test]
fn parts_are_cut_out() {
    let mut rng = Rng::new("crops");
    for (n, h, w, size, margin, square, channels) in [
        (1, 40, 30, [8, 8], 0.0, false, 3),
        (2, 17, 23, [5, 9], 0.25, false, 1),
        (1, 33, 50, [16, 16], 0.1, true, 3),
    ] {
        let words: Vec<u32> = (0..n * h * w).map(|_| rng.bits() as u32).collect();
        let (boxes, numbers) = (3, 6);
        let mut edges = rng.array(&[n, boxes, numbers]);
        for b in edges.data.chunks_exact_mut(numbers) {
            let (x, y) = (rng.uniform(-3.0, w as f64 - 2.0), rng.uniform(-3.0, h as f64 - 2.0));
            let corner = [x, y, x + rng.uniform(0.2, w as f64), y + rng.uniform(0.2, h as f64)];
            b[..4].copy_from_slice(&corner.map(|v| f64::from(v as f32)));
        }
        let normalise = vec![(2.0, -1.0); channels];
        let mut g = Graph::new();
        let pictures = g.input("pictures", [n, h, w], DType::U32);
        let places = g.input("boxes", [n, boxes, numbers], DType::F32);
        let crops = PictureCrops { size, margin, square, normalise };
        let y = g.picture_crops(pictures, places, crops).unwrap();
        g.output("y", y);
        Plan::compile(&g, &Target::typical()).unwrap();
        let margin = f64::from(margin);
        let expected = Array::from_fn(&[n * boxes, size[0], size[1], channels], |i| {
            let b = &edges.data[i[0] * numbers..][..4];
            let picture = i[0] / boxes;
            let axis = |low: f64, high: f64, most: usize| {
                (low.clamp(0.0, most as f64), high.clamp(0.0, most as f64))
            };
            let (x, y) = (axis(b[0], b[2], w), axis(b[1], b[3], h));
            let long = |(low, high): (f64, f64)| (high - low).max(1.0) * (1.0 + 2.0 * margin);
            let mut extent = [long(y), long(x)];
            if square {
                extent = [extent[0].max(extent[1]); 2];
            }
            // Weights of all pixels along an axis.
            let weights =
                |(low, high): (f64, f64), extent: f64, at: usize, out: usize, most: usize| -> Vec<f64> {
                    let ratio = extent / out as f64;
                    let centre = (low + high - extent) / 2.0 + (at as f64 + 0.5) * ratio;
                    let centre = centre.clamp(0.5, most as f64 - 0.5);
                    (0..most)
                        .map(|s| (1.0 - (s as f64 + 0.5 - centre).abs() / ratio.max(1.0)).max(0.0))
                        .collect()
                };
            let (wy, wx) = (weights(y, extent[0], i[1], size[0], h), weights(x, extent[1], i[2], size[1], w));
            let (mut sum, mut total) = ([0.0; 3], 0.0);
            for v in 0..h {
                for u in 0..w {
                    let bytes = words[(picture * h + v) * w + u].to_le_bytes();
                    for c in 0..3 {
                        sum[c] += wy[v] * wx[u] * f64::from(bytes[c]) / 255.0;
                    }
                    total += wy[v] * wx[u];
                }
            }
            let [r, g, b] = sum.map(|s| s / total);
            let value = if channels == 1 { 0.299 * r + 0.587 * g + 0.114 * b } else { [r, g, b][i[3]] };
            2.0 * value - 1.0
        });
        let Some(gpu) = gpu() else { return };
        let network = Network::new(gpu, &g).unwrap();
        network.poison().unwrap();
        let boxes = crate::harness::tensor(&edges, DType::F32);
        let inputs = [("pictures", &Tensor::from_u32([n, h, w], &words)), ("boxes", &boxes)];
        let found = network.run(&inputs).unwrap().remove(0);
        examined(gpu, "crops", &g, &inputs);
        // Places are f32: 4e-6 of a pixel at 50, and so far off is a weight.
        compare("crops", &found.to_f32(), &expected, 4.0 * F32);
    }
}
