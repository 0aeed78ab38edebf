use aquatint::nn::{fir_downsample, fir_upsample};

use crate::harness::{Array, Case, Rng};

const TAPS: [f64; 4] = [1.0 / 8.0, 3.0 / 8.0, 3.0 / 8.0, 1.0 / 8.0];

/// A pixel, or the zeros around the picture.
fn pixel(x: &Array, [n, y, u, c]: [usize; 4], by: [isize; 2]) -> f64 {
    let (y, u) = (y as isize + by[0], u as isize + by[1]);
    let inside = (0..x.shape[1] as isize).contains(&y) && (0..x.shape[2] as isize).contains(&u);
    if inside { x.at(&[n, y as usize, u as usize, c]) } else { 0.0 }
}

/// Every second pixel of the filtered picture.
fn half(x: &Array) -> Array {
    let [n, h, w, c] = x.shape[..] else { panic!() };
    Array::from_fn(&[n, h / 2, w / 2, c], |i| {
        let at = [i[0], 2 * i[1], 2 * i[2], i[3]];
        let tap = |k: usize| TAPS[k / 4] * TAPS[k % 4] * pixel(x, at, [k / 4, k % 4].map(|k| k as isize - 1));
        (0..16).map(tap).sum()
    })
}

/// Three quarters of the nearest pixel and a quarter of the next, in both directions.
fn double(x: &Array) -> Array {
    let [n, h, w, c] = x.shape[..] else { panic!() };
    Array::from_fn(&[n, 2 * h, 2 * w, c], |i| {
        let at = [i[0], i[1] / 2, i[2] / 2, i[3]];
        let next = [i[1], i[2]].map(|i| if i % 2 == 0 { -1 } else { 1 });
        9.0 / 16.0 * pixel(x, at, [0, 0])
            + 3.0 / 16.0 * (pixel(x, at, [next[0], 0]) + pixel(x, at, [0, next[1]]))
            + 1.0 / 16.0 * pixel(x, at, next)
    })
}

#[test]
fn the_filter_halves_and_doubles() {
    let mut rng = Rng::new("fir");
    // One pixel, one channel, channels that are no quads, odd sizes, more than a tile.
    for shape in [[1, 1, 1, 1], [2, 5, 7, 3], [1, 6, 2, 4], [2, 16, 20, 32], [1, 33, 18, 70]] {
        let x = rng.array(&shape);
        Case::new(format!("fir up {shape:?}"))
            .input(&x)
            .check(|g, v| fir_upsample(g, v[0]), |a| double(&a[0]));
        if shape[1] > 1 {
            Case::new(format!("fir down {shape:?}"))
                .input(&x)
                .check(|g, v| fir_downsample(g, v[0]), |a| half(&a[0]));
        }
    }
}
