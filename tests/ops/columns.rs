//! What the taps of deformable convolutions read, blocks put together, and the places of a pool's maxima.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::deform_columns::DeformColumns;
use aquatint::ops::fold_columns::FoldColumns;
use aquatint::ops::pool::PoolOptions;
use aquatint::{DType, Graph, Network};

use crate::harness::{Array, Case, F16, Rng, examined, gpu, tensor};

fn columns(x: &Array, offsets: &Array, mask: Option<&Array>, d: &DeformColumns) -> Array {
    let [n, h, w, c] = x.shape[..] else { panic!("four dimensions") };
    let [_, oh, ow, _] = offsets.shape[..] else { panic!("four dimensions") };
    let (o, taps, each) = (d.options, d.kernel[0] * d.kernel[1], c / d.options.groups);
    Array::from_fn(&[n, oh, ow, taps * c], |i| {
        let (group, k, channel) = (i[3] / (taps * each), i[3] / each % taps, i[3] % each);
        let channel = group * each + channel;
        let tap = channel / (c / d.sets) * taps + k;
        let at = |axis: usize, place: usize, cell: usize| {
            let whole = (place * o.stride[axis] + cell * o.dilation[axis]) as f64 - o.padding[axis] as f64;
            whole + offsets.at(&[i[0], i[1], i[2], tap * 2 + axis])
        };
        let (v, u) = (at(0, i[1], k / d.kernel[1]), at(1, i[2], k % d.kernel[1]));
        let mut sum = 0.0;
        for (y, wy) in [(v.floor(), 1.0 - (v - v.floor())), (v.floor() + 1.0, v - v.floor())] {
            for (z, wx) in [(u.floor(), 1.0 - (u - u.floor())), (u.floor() + 1.0, u - u.floor())] {
                if y >= 0.0 && y < h as f64 && z >= 0.0 && z < w as f64 {
                    sum += wy * wx * x.at(&[i[0], y as usize, z as usize, channel]);
                }
            }
        }
        sum * mask.map_or(1.0, |m| m.at(&[i[0], i[1], i[2], tap]))
    })
}

#[test]
fn taps_of_deformable_convolutions() {
    let mut rng = Rng::new("deform columns");
    // Source, kernel, groups, sets, stride, dilation, padding.
    type Row = ([usize; 4], [usize; 2], usize, usize, [usize; 2], [usize; 2], [usize; 4]);
    let rows: [Row; 5] = [
        ([2, 7, 9, 8], [3, 3], 1, 1, [1, 1], [1, 1], [1; 4]),
        ([1, 8, 6, 6], [2, 3], 2, 3, [2, 1], [1, 2], [0, 1, 2, 1]),
        ([1, 5, 5, 16], [3, 1], 4, 2, [1, 2], [2, 1], [2, 0, 1, 0]),
        ([2, 3, 4, 1], [1, 1], 1, 1, [1, 1], [1, 1], [0; 4]),
        ([1, 6, 6, 12], [3, 3], 3, 4, [1, 1], [1, 1], [1; 4]),
    ];
    for (shape, kernel, groups, sets, stride, dilation, padding) in rows {
        let [n, h, w, _] = shape;
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let d = DeformColumns { options, kernel, sets };
        let extent = |i: usize, size: usize| {
            (size + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1
        };
        let taps = sets * kernel[0] * kernel[1];
        let places = [n, extent(0, h), extent(1, w)];
        // In steps that f16 holds, some of them far outside.
        let offsets = Array::from_fn(&[&places[..], &[taps * 2]].concat(), |_| {
            let far = if rng.below(9) == 0 { 4000 } else { 50 };
            (rng.below(2 * far) as f64 - far as f64) / 32.0
        });
        let mask = rng.array(&[&places[..], &[taps]].concat());
        for masked in [false, true] {
            let mut case = Case::new(format!("deform columns {shape:?}, {d:?}, mask {masked}"))
                .input(&rng.array(&shape))
                .input(&offsets)
                .tolerance(1e-5, F16);
            if masked {
                case = case.input(&mask);
            }
            let own = d.clone();
            case.check(
                move |g, v| g.deform_columns(v[0], v[1], v.get(2).copied(), own.clone()),
                |a| columns(&a[0], &a[1], a.get(2), &d),
            );
        }
    }
}

fn folded(x: &Array, f: &FoldColumns) -> Array {
    let [n, rows, cols, taps] = x.shape[..] else { panic!("four dimensions") };
    let each = f.kernel[0] * f.kernel[1];
    let mut y = Array::zeros(&[n, f.size[0], f.size[1], taps / each]);
    for (i, &value) in x.data.iter().enumerate() {
        let (tap, place) = (i % taps, i / taps);
        let (c, j, k) = (tap / each, tap % each / f.kernel[1], tap % f.kernel[1]);
        let v = place / cols % rows * f.stride[0] + j * f.dilation[0];
        let u = place % cols * f.stride[1] + k * f.dilation[1];
        let (Some(v), Some(u)) = (v.checked_sub(f.padding[0]), u.checked_sub(f.padding[1])) else { continue };
        if v < f.size[0] && u < f.size[1] {
            y.data[((place / cols / rows * f.size[0] + v) * f.size[1] + u) * (taps / each) + c] += value;
        }
    }
    y
}

#[test]
fn blocks_put_together() {
    let mut rng = Rng::new("fold columns");
    for (n, c, size, kernel, stride, dilation, padding) in [
        (1, 1, [5, 5], [1, 5], [1, 1], [1, 1], [0; 4]),
        (2, 3, [7, 9], [3, 2], [2, 1], [1, 2], [1, 0, 2, 1]),
        (1, 4, [6, 4], [2, 2], [3, 3], [1, 1], [0; 4]),
        (3, 5, [1, 1], [1, 1], [1, 1], [1, 1], [0; 4]),
    ] {
        let f = FoldColumns { size, kernel, stride, dilation, padding };
        let blocks = |i: usize| {
            (size[i] + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1
        };
        let own = f.clone();
        Case::new(format!("fold columns {f:?}"))
            .input(&rng.array(&[n, blocks(0), blocks(1), c * kernel[0] * kernel[1]]))
            .check(move |g, v| g.fold_columns(v[0], own.clone()), |a| folded(&a[0], &f));
    }
}

#[test]
fn places_of_maxima() {
    let mut rng = Rng::new("max pool places");
    let square = PoolOptions::square;
    for (shape, o) in [
        ([2usize, 8, 6, 3], square(2)),
        ([1, 7, 9, 4], PoolOptions { stride: [2, 1], padding: [1, 1, 1, 0], ceil: true, ..square(3) }),
        ([1, 9, 9, 1], PoolOptions { stride: [1, 2], padding: [1, 2, 0, 1], dilation: [2, 2], ..square(2) }),
    ] {
        for columns_first in [false, true] {
            let [n, h, w, c] = shape;
            // Few different numbers, all below zero: there are equals, and padding is no candidate.
            let x = Array::from_fn(&shape, |_| -1.0 - rng.below(5) as f64);
            for dtype in [DType::F32, DType::F16] {
                let mut graph = Graph::new();
                let input = graph.input("x", shape, dtype);
                let y = graph.max_pool_places(input, o, columns_first).unwrap();
                graph.output("y", y);
                let [_, oh, ow, _] = graph.shape(y)[..] else { panic!("a feature map") };
                let Some(gpu) = gpu() else { return };
                if dtype == DType::F16 && !gpu.target().f16 {
                    continue;
                }
                let network = Network::new(gpu, &graph).unwrap();
                network.poison().unwrap();
                let found = network.run(&[("x", &tensor(&x, dtype))]).unwrap().remove(0);
                examined(gpu, "places of maxima", &graph, &[("x", &tensor(&x, dtype))]);
                let expected = Array::from_fn(&[n, oh, ow, c], |i| {
                    let mut best: Option<(f64, usize)> = None;
                    for j in 0..o.kernel[0] {
                        for k in 0..o.kernel[1] {
                            let v = (i[1] * o.stride[0] + j * o.dilation[0]).checked_sub(o.padding[0]);
                            let u = (i[2] * o.stride[1] + k * o.dilation[1]).checked_sub(o.padding[1]);
                            let (Some(v), Some(u)) = (v.filter(|&v| v < h), u.filter(|&u| u < w)) else {
                                continue;
                            };
                            let value = x.at(&[i[0], v, u, i[3]]);
                            if best.is_none_or(|(b, _)| value > b) {
                                best = Some((value, if columns_first { u * h + v } else { v * w + u }));
                            }
                        }
                    }
                    best.expect("a window within").1 as f64
                });
                let found: Vec<f64> = found.to_f32().into_iter().map(f64::from).collect();
                assert_eq!(found, expected.data, "{shape:?}, {o:?}, {columns_first}");
            }
        }
    }
}

#[test]
fn blocks_that_do_not_fit_are_errors() {
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4, 4, 6], DType::F32);
    let options = Conv2dOptions::default();
    let d = DeformColumns { options, kernel: [3, 3], sets: 2 };
    let found = graph.deform_columns(x, x, None, d.clone());
    assert!(found.is_err_and(|e| e.to_string().contains("offsets must be f32[1, 2, 2, 36]")));
    let found = graph.deform_columns(x, x, None, DeformColumns { sets: 4, ..d });
    assert!(found.is_err_and(|e| e.to_string().contains("6 channels are no 1 groups and 4 sets")));
    let f = FoldColumns { size: [5, 5], kernel: [2, 2], stride: [1, 1], dilation: [1, 1], padding: [0; 4] };
    let found = graph.fold_columns(x, f);
    assert!(found.is_err_and(|e| e.to_string().contains("are not those of")));
}
