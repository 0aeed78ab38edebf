//! Sampler tables and noise against diffusers and PyTorch; the references come
//! from `scripts/references/schedulers.py`, `flow.py`, `scores.py` and `sigmas.py`.

use std::collections::HashSet;
use std::path::Path;

use aquatint::diffusion::{
    CpuGenerator, MAX_HISTORY, NoiseSchedule, Prediction, Row, Sampler, ScheduleConfig, Table,
};
use safetensors::SafeTensors;
use serde_json::Value;

/// The references were computed in f64 from the same formulas, sorted
/// differently: what is left is the rounding of some dozens of operations.
/// Relative to the largest latent of the step (or of what went into it), because
/// x0 of pure noise is a small difference of large numbers.
const TOLERANCE: f64 = 1e-9;

/// At the end of whole runs: a squared cosine schedule starts from latents of 2e4, of which the toy model
/// takes the sine, so rounding is worth 2e4 times as much there.
const RUN_TOLERANCE: f64 = 1e-6;

/// PyTorch's vectorised f32 logarithm, sine and cosine, and ours, are each some
/// units in the last place off, at radii up to √(−2 ln 2⁻²⁴) = 5.8 and angles up
/// to 2π: a few times 5.8 · 2π · 2⁻²⁴ = 2e-6. A wrong bit in a uniform draw moves
/// some samples by far more than this, a wrong draw all of them.
const NORMAL_TOLERANCE: f32 = 1e-5;

#[test]
fn every_step_of_every_sampler_is_that_of_diffusers() {
    let samplers = check_file("schedulers.safetensors");
    let all = Sampler::ALL.iter().map(|sampler| sampler.name());
    let of_scores = ["reverse-sde", "pc"];
    assert_eq!(samplers, all.filter(|name| !of_scores.contains(name)).collect());
}

#[test]
fn every_step_of_a_flow_model_is_that_of_diffusers() {
    let samplers = check_file("flow.safetensors");
    assert_eq!(samplers, HashSet::from(["euler", "heun"]));
}

#[test]
fn every_step_of_a_score_model_is_the_published_one() {
    let samplers = check_file("scores.safetensors");
    assert_eq!(samplers, HashSet::from(["euler", "heun", "reverse-sde", "pc"]));
}

#[test]
fn every_sigma_schedule_is_the_published_one() {
    check_file("sigmas.safetensors");
}

/// Checks all cases of a file, and returns their samplers.
fn check_file(file: &str) -> HashSet<&'static str> {
    let bytes = fixture(file);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    let pool = Pool {
        x: numbers(&file, "x"),
        picture: numbers(&file, "picture"),
        m: numbers(&file, "m"),
        z: numbers(&file, "z"),
    };
    let mut worst = [0.0; 2];
    let mut samplers = HashSet::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let want = numbers(&file, name);
        let free = numbers(&file, &format!("{name}.free"));
        let (sampler, errors) = check(case, &pool, &want, &free);
        worst = [0, 1].map(|i| f64::max(worst[i], errors[i]));
        samplers.insert(sampler.name());
    }
    println!(
        "{} cases, largest relative difference of a row {:e}, of a run {:e}",
        cases.len(),
        worst[0],
        worst[1]
    );
    samplers
}

/// The numbers that the cases share: unit noise, a picture, model answers by
/// row, noise by draw.
struct Pool {
    x: Vec<f64>,
    picture: Vec<f64>,
    m: Vec<f64>,
    z: Vec<f64>,
}

/// The model of whole runs: not linear in the latent, and knows the time.
fn toy(x: f64, timestep: f64) -> f64 {
    0.8 * (1.3 * x + timestep / 300.0).sin()
}

/// The same of score models that are told σ: the gradient of log p, which falls as σ rises.
fn toy_score(x: f64, sigma: f64) -> f64 {
    -(x + 0.3 * (1.3 * x).sin()) / (1.0 + sigma * sigma)
}

/// Checks timesteps, sigmas and latents of a case, and the end of a run with the
/// toy model; returns the largest relative differences between latents of both.
fn check(case: &Value, pool: &Pool, want: &[f64], free: &[f64]) -> (Sampler, [f64; 2]) {
    let mut config = case["config"].clone();
    config["_class_name"] = case["class"].clone();
    let config = ScheduleConfig::from_json(&config.to_string()).unwrap();
    let sampler = match (case["class"].as_str().unwrap(), case["eta"].as_f64()) {
        ("Dpmpp2SAncestral", _) => Sampler::DpmPlusPlus2SAncestral,
        ("DDIMScheduler", Some(eta)) => Sampler::Ddim { eta },
        ("TCDScheduler", Some(gamma)) => Sampler::Tcd { gamma },
        _ if case["sampler"].is_string() => case["sampler"].as_str().unwrap().parse().unwrap(),
        _ => Sampler::of_config(&config).unwrap().unwrap(),
    };
    let mut schedule = NoiseSchedule::new(&config).unwrap();
    if let Some(tokens) = case["tokens"].as_u64() {
        schedule = schedule.for_tokens(tokens as usize).unwrap();
    }
    let sigmas = match case["sigmas"].as_str() {
        Some(sigmas) => sigmas.parse().unwrap(),
        None => config.sigma_schedule().unwrap(),
    };
    let steps = case["steps"].as_u64().unwrap() as usize;
    let mut table = Table::new(&schedule, sampler, sigmas, steps).unwrap();
    let near = |what: &str, row: usize, got: f64, want: f64, scale: f64| {
        let error = (got - want).abs() / scale;
        assert!(error <= TOLERANCE, "{what} of row {row}: {got}, expected {want} in {case}");
        error
    };

    let init = case["init"].as_f64().unwrap();
    near("initial noise", 0, table.init_noise_scale, init, init);
    let scaled = |(a, x): (f64, &[f64]), (b, z): (f64, &[f64])| -> Vec<f64> {
        x.iter().zip(z).map(|(x, z)| a * x + b * z).collect()
    };
    let n = pool.x.len();
    let mut x = scaled((table.init_noise_scale, &pool.x), (0.0, &pool.x));
    if let Some(strength) = case["strength"].as_f64() {
        let start = table.start(strength).unwrap();
        x = scaled((start.clean, &pool.picture), (start.noise, &pool.z[..n]));
        assert_eq!(start.table.rows.len() + start.row, table.rows.len());
        table = start.table;
    }

    let mut latent = x.clone();
    let mut kept = vec![[0.0; MAX_HISTORY]; n];
    for row in &table.rows {
        let model = if schedule.prediction == Prediction::Score { toy_score } else { toy };
        let m: Vec<f64> = latent.iter().map(|x| model(row.in_scale * x, row.timestep)).collect();
        let z = &pool.z[row.draw as usize * n..][..n];
        let rates = rates(row, &m, z);
        for e in 0..n {
            latent[e] = apply(row, table.history, latent[e], rates, m[e], z[e], &mut kept[e]);
        }
    }
    let end = latent.iter().zip(free).map(|(got, want)| (got - want).abs() / want.abs().max(1.0));
    let end = end.fold(0.0, f64::max);
    assert!(end <= RUN_TOLERANCE, "end of the run: {latent:?}, expected {free:?} in {case}");

    assert_eq!(table.rows.len(), want.len() / (n + 2), "rows of {case}");
    assert!(table.history <= MAX_HISTORY);
    let mut history = vec![[0.0; MAX_HISTORY]; n];
    let mut worst: f64 = 0.0;
    for (i, (row, want)) in table.rows.iter().zip(want.chunks(n + 2)).enumerate() {
        let (timestep, sigma, want) = (want[0], want[1], &want[2..]);
        near("timestep", i, row.timestep, timestep, 1e3);
        if row.signal != 0.0 {
            let relative = row.sigma / row.signal;
            near("sigma", i, relative, sigma, relative);
        }
        let largest = |x: &[f64]| x.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
        let scale = largest(&x).max(largest(want));
        let m = &pool.m[i * n..][..n];
        let rates = rates(row, m, &pool.z[row.draw as usize * n..][..n]);
        for e in 0..n {
            // Noise that the row does not ask for must not matter.
            let z = match row.draw {
                0 => f64::MAX,
                draw => pool.z[draw as usize * n + e],
            };
            x[e] = apply(row, table.history, x[e], rates, m[e], z, &mut history[e]);
            worst = worst.max(near("latent", i, x[e], want[e], scale));
        }
        // As the reference does: errors do not add up from row to row.
        x.copy_from_slice(want);
    }
    (sampler, [worst, end])
}

/// What prediction and noise of a picture are multiplied by.
fn rates(row: &Row, m: &[f64], z: &[f64]) -> [f64; 2] {
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    match row.correct > 0.0 {
        true => {
            let q = row.correct * norm(z) / norm(m);
            [2.0 * q * q, 2.0 * q]
        }
        false => [1.0; 2],
    }
}

/// The step kernel for one element, in f64.
fn apply(
    row: &Row,
    slots: usize,
    x: f64,
    rates: [f64; 2],
    m: f64,
    z: f64,
    h: &mut [f64; MAX_HISTORY],
) -> f64 {
    let mut x0 = row.x0_x * x + row.x0_m * m;
    if row.clip > 0.0 {
        x0 = x0.clamp(-row.clip, row.clip);
    }
    let past: f64 = row.next_h.iter().zip(&*h).map(|(c, h)| c * h).sum();
    let next =
        row.next_x * x + row.next_x0 * x0 + row.next_m * rates[0] * m + past + row.noise * rates[1] * z;
    if row.push {
        h[..slots].rotate_right(1);
        h[0] = row.hist_x * x + row.hist_x0 * x0 + row.hist_m * m;
    }
    next
}

#[test]
fn rows_reach_the_kernel_in_the_documented_order() {
    let row = Row {
        timestep: 1.0,
        in_scale: 2.0,
        x0_x: 3.0,
        x0_m: 4.0,
        clip: 5.0,
        next_x: 6.0,
        next_x0: 7.0,
        next_m: 8.0,
        next_h: [9.0, 10.0, 11.0, 12.0],
        noise: 13.0,
        push: true,
        hist_x: 15.0,
        hist_x0: 16.0,
        hist_m: 17.0,
        draw: 18,
        correct: 19.0,
        signal: 20.0,
        sigma: 21.0,
    };
    let mut want = [0.0; 32];
    for (i, float) in want.iter_mut().take(19).enumerate() {
        *float = (i + 1) as f32;
    }
    want[13] = 1.0;
    assert_eq!(row.to_f32(), want);
}

#[test]
fn cpu_noise_is_that_of_torch_randn() {
    let bytes = fixture("randn.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let near = |what: &str, got: &[f32], want: &[f64]| {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (got - *want as f32).abs();
            assert!(error <= NORMAL_TOLERANCE, "{what}, element {i}: {got}, expected {want}");
        }
    };

    let short = numbers(&file, "short");
    let mut rest = short.as_slice();
    for n in 1..=100 {
        let mut generator = CpuGenerator::new(1000 + n as u64);
        for draw in 0..2 {
            let (want, others) = rest.split_at(n);
            near(&format!("draw {draw} of {n}"), &generator.normal(n), want);
            rest = others;
        }
    }

    let mut generator = CpuGenerator::new((1 << 40) + 7);
    let drawn: Vec<f32> =
        (0..2).flat_map(|_| generator.normal(4 * 64 * 64).into_iter().step_by(61)).collect();
    near("latents of 64 by 64", &drawn, &numbers(&file, "long"));

    // The cached value of a scalar draw outlives the block draws between.
    let mut generator = CpuGenerator::new(3);
    let mixed: Vec<f32> = [3, 20, 2, 16, 5].into_iter().flat_map(|n| generator.normal(n)).collect();
    near("mixed lengths", &mixed, &numbers(&file, "mixed"));
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A tensor of f32 or f64.
fn numbers(file: &SafeTensors, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let (fours, _) = tensor.data().as_chunks::<4>();
    let (eights, _) = tensor.data().as_chunks::<8>();
    match tensor.dtype() {
        safetensors::Dtype::F32 => fours.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        safetensors::Dtype::F64 => eights.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        other => panic!("{name} has type {other:?}"),
    }
}
