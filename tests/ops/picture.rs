use aquatint::{DType, Graph, Network, Tensor};

use crate::harness::{Array, Case, Rng, compare, gpu};

/// Weight of source position `from` at `at`: the triangle filter, widened when shrinking.
fn triangle(from: usize, at: usize, size: usize, size_out: usize) -> f64 {
    let ratio = size as f64 / size_out as f64;
    let distance = ((from as f64 + 0.5) - (at as f64 + 0.5) * ratio).abs();
    (1.0 - distance / ratio.max(1.0)).max(0.0)
}

fn check([n, h, w]: [usize; 3], [oh, ow]: [usize; 2], normalise: &[(f32, f32)]) {
    let name = format!("picture {n}×{h}×{w} → {oh}×{ow}×{}", normalise.len());
    let mut rng = Rng::new(&name);
    let words: Vec<u32> = (0..n * h * w).map(|_| rng.bits() as u32).collect();
    let mut g = Graph::new();
    let pictures = g.input("x", [n, h, w], DType::U32);
    let y = g.picture_to_tensor(pictures, [oh, ow], normalise, DType::F32).unwrap();
    g.output("y", y);
    let expected = Array::from_fn(&[n, oh, ow, normalise.len()], |i| {
        let (mut sum, mut total) = ([0.0; 3], 0.0);
        for y in 0..h {
            for x in 0..w {
                let weight = triangle(y, i[1], h, oh) * triangle(x, i[2], w, ow);
                let bytes = words[(i[0] * h + y) * w + x].to_le_bytes();
                for c in 0..3 {
                    sum[c] += weight * f64::from(bytes[c]) / 255.0;
                }
                total += weight;
            }
        }
        let [r, g, b] = sum.map(|s| s / total);
        let value = match normalise.len() {
            1 => 0.299 * r + 0.587 * g + 0.114 * b,
            _ => [r, g, b][i[3]],
        };
        let (scale, shift) = normalise[i[3]];
        value * f64::from(scale) + f64::from(shift)
    });
    let Some(gpu) = gpu() else { return };
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("x", &Tensor::from_u32([n, h, w], &words))]).unwrap().remove(0);
    // Positions are f32: a weight is off by some 1e-7 of the distance in pixels.
    compare(&name, &found.to_f32(), &expected, 2e-5);
}

#[test]
fn resized_and_normalised() {
    let imagenet =
        [(1.0 / 0.229, -0.485 / 0.229), (1.0 / 0.224, -0.456 / 0.224), (1.0 / 0.225, -0.406 / 0.225)];
    for normalise in [&imagenet[..], &[(2.0, -1.0)]] {
        check([2, 8, 8], [8, 8], normalise);
        check([1, 1, 1], [4, 3], normalise);
        check([2, 37, 53], [8, 11], normalise);
        check([1, 5, 7], [16, 9], normalise);
        check([1, 200, 3], [7, 7], normalise);
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
        let found = network.run(&[("x", &Tensor::from_f32(shape.clone(), &values))]).unwrap().remove(0);
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
