use aquatint::diffusion::{MAX_HISTORY, Row, philox_block};

use crate::harness::{Array, Case, Rng};

/// Box and Muller's normal numbers out of the words themselves. In f32, as cuRAND has the uniform numbers between, the angle alone is off by
/// 2e-7, which rates double: too coarse for what the library's own reference is held to.
fn normal(seed: u64, draw: u32, index: u32) -> f64 {
    let [a, b, ..] = philox_block(seed, draw, index);
    let [u, turn] = [a, b].map(|word| (f64::from(word) + 0.5) / 4_294_967_296.0);
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * turn).sin()
}

/// The step by its definition (`Row`), for the sample `[2 + history, n, h, w, c]`.
fn step(
    sample: &Array,
    prediction: &Array,
    row: &Row,
    seeds: &[u64],
    guidance: f64,
    rates: Option<&Array>,
) -> Array {
    let [slots, n, h, w, _] = sample.shape[..] else { panic!() };
    let guided = prediction.shape[0] == 2 * n;
    Array::from_fn(&sample.shape, |i| {
        let [slot, picture, y, x, c] = i[..] else { panic!() };
        let of = |slot: usize| sample.at(&[slot, picture, y, x, c]);
        let with = prediction.at(&[picture, y, x, c]);
        let m = match guided {
            true => {
                let without = prediction.at(&[n + picture, y, x, c]);
                without + guidance * (with - without)
            }
            false => with,
        };
        let mut x0 = row.x0_x * of(0) + row.x0_m * m;
        if row.clip > 0.0 {
            x0 = x0.clamp(-row.clip, row.clip);
        }
        match slot {
            0 => {
                let history: f64 = (0..slots - 2).map(|k| row.next_h[k] * of(2 + k)).sum();
                let index = ((c * h + y) * w + x) as u32;
                let noise = normal(seeds[picture], row.draw, index);
                let [a, b] = [0, 1].map(|k| rates.map_or(1.0, |rates| rates.at(&[picture, k])));
                row.next_x * of(0) + row.next_x0 * x0 + row.next_m * a * m + history + row.noise * b * noise
            }
            1 => x0,
            _ if !row.push => of(slot),
            2 => row.hist_x * of(0) + row.hist_x0 * x0 + row.hist_m * m,
            _ => of(slot - 1),
        }
    })
}

fn check(shape: [usize; 4], history: usize, guided: bool, push: bool, clip: f64, noise: f64, corrects: bool) {
    let name = format!(
        "step {shape:?} history {history} guided {guided} push {push} clip {clip} noise {noise} corrects {corrects}"
    );
    let mut rng = Rng::new(&name);
    let [n, h, w, c] = shape;
    let sample = rng.array(&[2 + history, n, h, w, c]);
    let prediction = rng.array(&[n * (1 + usize::from(guided)), h, w, c]);
    let mut any = || rng.uniform(-1.0, 1.0) as f32 as f64;
    let row = Row {
        timestep: 500.0,
        in_scale: any(),
        x0_x: any(),
        x0_m: any(),
        clip,
        next_x: any(),
        next_x0: any(),
        next_m: any(),
        next_h: [(); MAX_HISTORY].map(|()| any()),
        noise,
        push,
        hist_x: any(),
        hist_x0: any(),
        hist_m: any(),
        draw: 3,
        ..Row::default()
    };
    let floats = row.to_f32();
    let coefficients = Array::from_fn(&[1, floats.len()], |i| f64::from(floats[i[1]]));
    // Seeds of up to 24 bits: the harness keeps indices as f32.
    let words = Array::from_fn(&[n, 2], |_| rng.below(1 << 24) as f64);
    let seeds: Vec<u64> =
        (0..n).map(|i| words.at(&[i, 0]) as u64 | (words.at(&[i, 1]) as u64) << 32).collect();
    let guidance = Array { shape: vec![1], data: vec![1.5] };
    let case = Case::new(name).input(&sample).input(&prediction).input(&coefficients).input(&guidance);
    let case = if noise == 0.0 { case } else { case.indices(&words) };
    let rates = rng.array_in(&[n, 2], 0.5, 2.0);
    let case = if corrects { case.input(&rates) } else { case };
    case.f32_only().check(
        |g, v| {
            let rates = corrects.then(|| v[v.len() - 1]);
            let seeds = (noise != 0.0).then(|| v[4]);
            g.diffusion_step(v[0], v[1], v[2], v[3], seeds, rates)
        },
        |a| step(&a[0], &a[1], &row, &seeds, 1.5, a.last().filter(|_| corrects)),
    );
}

#[test]
fn every_term() {
    check([2, 32, 32, 1], 1, true, true, 0.0, 0.0, false);
    check([1, 5, 3, 4], 0, false, false, 0.5, 0.7, false);
    check([3, 7, 7, 3], 4, true, true, 0.25, 0.3, false);
    check([2, 4, 4, 2], 4, false, false, 0.0, 1.0, false);
    check([1, 1, 1, 1], 2, true, true, 1.0, 1.0, false);
    check([3, 7, 5, 3], 0, false, false, 0.0, 1.0, true);
    check([2, 4, 4, 1], 1, true, true, 0.5, 0.0, true);
}

#[test]
fn the_model_sees_scaled_copies() {
    let mut rng = Rng::new("diffusion input");
    for (slots, shape, copies) in [(2, [1, 4, 4, 1], 1), (3, [2, 3, 5, 3], 2), (6, [1, 1, 1, 1], 2)] {
        let [n, h, w, c] = shape;
        let sample = rng.array(&[slots, n, h, w, c]);
        let row = rng.array(&[1, 32]);
        Case::new(format!("input {copies} × {shape:?}")).input(&sample).input(&row).f32_only().check(
            |g, v| g.diffusion_input(v[0], v[1], copies),
            |a| {
                Array::from_fn(&[copies * n, h, w, c], |i| {
                    a[1].at(&[0, 1]) * a[0].at(&[0, i[0] % n, i[1], i[2], i[3]])
                })
            },
        );
    }
}
