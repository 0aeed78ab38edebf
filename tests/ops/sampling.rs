//! Feature maps read at computed places: grids and regions.

use aquatint::ops::grid_sample::{GridSample, Outside};
use aquatint::ops::resize::Interpolation;
use aquatint::ops::roi_align::{RoiAlign, Samples};
use aquatint::{DType, Graph, Network, Tensor};

use crate::harness::{Array, Case, F16, F32, Rng, compare_in_steps, examined, gpu, smallest_step, tensor};

/// The pixel that is read for `i`, `None` for nothing.
fn outside(i: i64, n: usize, mode: Outside, corners: bool) -> Option<usize> {
    let n = n as i64;
    let i = match mode {
        Outside::Zeros if !(0..n).contains(&i) => return None,
        Outside::Zeros => i,
        Outside::Border => i.clamp(0, n - 1),
        Outside::Reflection if n == 1 => 0,
        Outside::Reflection => {
            // Step by step from one edge to the other.
            let mut i = i;
            while !(0..n).contains(&i) {
                i = match (i < 0, corners) {
                    (true, false) => -1 - i,
                    (true, true) => -i,
                    (false, false) => 2 * n - 1 - i,
                    (false, true) => 2 * n - 2 - i,
                };
            }
            i
        }
    };
    Some(i as usize)
}

fn taps(place: f64, n: usize, o: &GridSample) -> Vec<(i64, f64)> {
    let n = n as f64;
    let at = match o.align_corners {
        true => (place + 1.0) / 2.0 * (n - 1.0),
        false => ((place + 1.0) * n - 1.0) / 2.0,
    };
    let (cell, f) = (at.floor() as i64, at - at.floor());
    match o.interpolation {
        Interpolation::Nearest => vec![(at.round_ties_even() as i64, 1.0)],
        Interpolation::Bilinear => vec![(cell, 1.0 - f), (cell + 1, f)],
        Interpolation::Bicubic { a } => {
            let a = f64::from(a);
            let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            vec![
                (cell - 1, far(1.0 + f)),
                (cell, near(f)),
                (cell + 1, near(1.0 - f)),
                (cell + 2, far(2.0 - f)),
            ]
        }
    }
}

fn sampled(x: &Array, grid: &Array, o: &GridSample) -> Array {
    let [n, h, w, c] = x.shape[..] else { panic!("four dimensions") };
    let [_, oh, ow, _] = grid.shape[..] else { panic!("four dimensions") };
    Array::from_fn(&[n, oh, ow, c], |i| {
        let place = |k: usize| grid.at(&[i[0], i[1], i[2], k]);
        let mut sum = 0.0;
        for (v, wy) in taps(place(1), h, o) {
            for (u, wx) in taps(place(0), w, o) {
                let v = outside(v, h, o.outside, o.align_corners);
                if let (Some(v), Some(u)) = (v, outside(u, w, o.outside, o.align_corners)) {
                    sum += wy * wx * x.at(&[i[0], v, u, i[3]]);
                }
            }
        }
        sum
    })
}

#[test]
fn grids_of_every_mode() {
    let mut rng = Rng::new("grid sample");
    for (shape, size) in [
        ([2usize, 8, 8, 96], [5usize, 3]),
        ([2, 5, 7, 3], [11, 6]),
        ([1, 1, 1, 1], [4, 3]),
        ([3, 6, 1, 5], [1, 1]),
        ([1, 2, 9, 8], [7, 13]),
    ] {
        for interpolation in
            [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic { a: -0.75 }]
        {
            for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
                for align_corners in [false, true] {
                    let o = GridSample { interpolation, outside, align_corners };
                    // Steps of 1/64 are exact in f16, and a few of them, off by a third of a step, far outside.
                    let grid = Array::from_fn(&[shape[0], size[0], size[1], 2], |_| {
                        let far = if rng.below(4) == 0 { 320 } else { 90 };
                        (rng.below(2 * far) as f64 - far as f64 + 0.25) / 64.0
                    });
                    let options = o.clone();
                    Case::new(format!("grid sample {shape:?} at {size:?}, {o:?}"))
                        .input(&rng.array(&shape))
                        .input(&grid)
                        .tolerance(1e-5, F16)
                        .check(
                            move |g, v| g.grid_sample(v[0], v[1], options.clone()),
                            |a| sampled(&a[0], &a[1], &o),
                        );
                }
            }
        }
    }
}

/// Places that are no pixel's, without bounds checks.
#[test]
fn grids_without_sense_read_something() {
    let Some(gpu) = gpu() else { return };
    for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
        for interpolation in [Interpolation::Nearest, Interpolation::Bicubic { a: -0.75 }] {
            let mut graph = Graph::new();
            let x = graph.input("x", [1, 3, 3, 1], DType::F32);
            let grid = graph.input("grid", [1, 1, 5, 2], DType::F32);
            let o = GridSample { interpolation, outside, align_corners: false };
            let y = graph.grid_sample(x, grid, o).unwrap();
            graph.output("y", y);
            let places = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];
            let places: Vec<f32> = places.iter().flat_map(|&p| [p, -p]).collect();
            let given = [
                ("x", &Tensor::from_f32([1, 3, 3, 1], &[1.0; 9])),
                ("grid", &Tensor::from_f32([1, 1, 5, 2], &places)),
            ];
            let network = Network::new(gpu, &graph).unwrap();
            network.poison().unwrap();
            assert_eq!(network.run(&given).unwrap()[0].to_f32().len(), 5);
        }
    }
}

/// Samples of bin `i` of `bins`, and how many there are.
fn samples(low: f64, high: f64, i: usize, bins: usize, o: &RoiAlign) -> Vec<f64> {
    let offset = if o.half_pixel { 0.5 } else { 0.0 };
    let scale = f64::from(o.scale);
    let start = low * scale - offset;
    let mut extent = high * scale - offset - start;
    if !o.half_pixel {
        extent = extent.max(1.0);
    }
    let size = extent / bins as f64;
    let count = if o.samples > 0 { o.samples as i64 } else { size.ceil() as i64 };
    (0..count).map(|s| start + i as f64 * size + (s as f64 + 0.5) * size / count as f64).collect()
}

fn corners(at: f64, n: usize) -> Option<[(usize, f64); 2]> {
    if at < -1.0 || at > n as f64 {
        return None;
    }
    let at = at.max(0.0);
    let low = at.floor() as usize;
    Some(match low >= n - 1 {
        true => [(n - 1, 1.0), (n - 1, 0.0)],
        false => [(low, 1.0 - (at - low as f64)), (low + 1, at - low as f64)],
    })
}

fn aligned(x: &Array, regions: &Array, pictures: &[i32], o: &RoiAlign) -> Array {
    let [_, h, w, c] = x.shape[..] else { panic!("four dimensions") };
    Array::from_fn(&[pictures.len(), o.size[0], o.size[1], c], |i| {
        let edge = |k: usize| regions.at(&[i[0], k]);
        let columns = samples(edge(0), edge(2), i[2], o.size[1], o);
        let rows = samples(edge(1), edge(3), i[1], o.size[0], o);
        let mut values = Vec::new();
        for &y in &rows {
            for &x_at in &columns {
                let (Some(ys), Some(xs)) = (corners(y, h), corners(x_at, w)) else {
                    values.push([0.0; 4]);
                    continue;
                };
                let value = |j: usize, k: usize| {
                    ys[j].1 * xs[k].1 * x.at(&[pictures[i[0]] as usize, ys[j].0, xs[k].0, i[3]])
                };
                values.push([value(0, 0), value(0, 1), value(1, 0), value(1, 1)]);
            }
        }
        match o.reduce {
            Samples::Mean => values.iter().flatten().sum::<f64>() / values.len().max(1) as f64,
            Samples::Max if values.is_empty() => 0.0,
            Samples::Max => values.iter().flatten().copied().fold(f64::MIN, f64::max),
        }
    })
}

#[test]
fn regions_as_bins() {
    let mut rng = Rng::new("roi align");
    for (shape, size, count) in [
        ([2usize, 9, 12, 8], [7usize, 7], 5usize),
        ([3, 5, 7, 3], [2, 3], 9),
        ([1, 1, 1, 1], [1, 2], 4),
        ([1, 16, 3, 5], [3, 1], 1),
    ] {
        for reduce in [Samples::Mean, Samples::Max] {
            for half_pixel in [false, true] {
                for sampling in [0, 1, 2, 3] {
                    let o = RoiAlign { size, samples: sampling, scale: 0.5, half_pixel, reduce };
                    // Off the places where a sample leaves the map or a bin takes one more, which rounding would decide.
                    let near = |v: f64| (v - v.round()).abs() < 1e-3;
                    let clear = |low: f64, high: f64, bins: usize, n: usize| {
                        let all = (0..bins).flat_map(|i| samples(low, high, i, bins, &o)).collect::<Vec<_>>();
                        let whole = ((high - low) * 0.5).max(if half_pixel { f64::MIN } else { 1.0 });
                        !all.iter().any(|a| (a + 1.0).abs() < 1e-3 || (a - n as f64).abs() < 1e-3)
                            && !near(whole / bins as f64 + 1e-9)
                    };
                    let mut regions = Array::zeros(&[count, 4]);
                    for r in 0..count {
                        for (axis, n) in [(0, shape[2]), (1, shape[1])] {
                            loop {
                                let mut edge =
                                    || ((rng.below(256 * (n + 6)) as f64) / 256.0 - 3.0) * 2.0 + 0.0078125;
                                let (low, high) = (edge(), edge());
                                // Some have no extent or less, and one is far larger than the map.
                                let high = if r == 2 { low + 1024.03125 } else { high };
                                let (low, high) =
                                    if r % 3 == 1 { (low, high) } else { (low.min(high), low.max(high)) };
                                if clear(low, high, size[1 - axis], n) {
                                    regions.data[r * 4 + axis] = low;
                                    regions.data[r * 4 + axis + 2] = high;
                                    break;
                                }
                            }
                        }
                    }
                    let pictures: Vec<i32> = (0..count).map(|_| rng.below(shape[0]) as i32).collect();
                    let x = rng.array(&shape);
                    for dtype in [DType::F32, DType::F16] {
                        let name = format!("roi align {shape:?}, {o:?}, {dtype}, {regions:?}");
                        let mut graph = Graph::new();
                        let map = graph.input("x", shape, dtype);
                        let r = graph.input("regions", [count, 4], DType::F32);
                        let p = graph.input("pictures", [count], DType::I32);
                        let y = graph.roi_align(map, r, p, o.clone()).unwrap();
                        graph.output("y", y);
                        let Some(gpu) = gpu() else { return };
                        if dtype == DType::F16 && !gpu.target().f16 {
                            continue;
                        }
                        let x = tensor(&x, dtype);
                        let stored = x.to_f32().into_iter().map(f64::from).collect();
                        let stored = Array { shape: shape.to_vec(), data: stored };
                        let network = Network::new(gpu, &graph).unwrap();
                        network.poison().unwrap();
                        let r = tensor(&regions, DType::F32);
                        let p = Tensor::from_i32([count], &pictures);
                        let given = [("x", &x), ("regions", &r), ("pictures", &p)];
                        let found = network.run(&given).unwrap().remove(0).to_f32();
                        examined(gpu, &name, &graph, &given);
                        let expected = aligned(&stored, &regions, &pictures, &o);
                        // Places in f32 are off by 1e-7 of their size, up to a thousand pixels.
                        let tolerance = if dtype == DType::F32 { 10.0 * F32 } else { F16 };
                        // The mean over a bin far larger than the map is next to nothing.
                        compare_in_steps(&name, &found, &expected, tolerance, smallest_step(dtype));
                    }
                }
            }
        }
    }
}

#[test]
fn regions_that_do_not_fit_are_errors() {
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4, 4, 2], DType::F32);
    let regions = graph.input("regions", [3, 4], DType::F32);
    let pictures = graph.input("pictures", [2], DType::I32);
    let o = RoiAlign { size: [2, 2], samples: 0, scale: 1.0, half_pixel: true, reduce: Samples::Mean };
    let found = graph.roi_align(x, regions, pictures, o.clone());
    assert!(found.is_err_and(|e| e.to_string().contains("pictures must be i32[3]")));
    let pictures = graph.input("pictures", [3], DType::I32);
    let found = graph.roi_align(x, regions, pictures, RoiAlign { samples: 1 << 20, ..o });
    assert!(found.is_err_and(|e| e.to_string().contains("samples at most 256")));
    let o =
        GridSample { interpolation: Interpolation::Bilinear, outside: Outside::Zeros, align_corners: false };
    let found = graph.grid_sample(x, regions, o);
    assert!(found.is_err_and(|e| e.to_string().contains("grid must be [n, oh, ow, 2]")));
}
