//! Ways to compute an operation against the clock.

use std::time::Instant;

use super::operations::Alone;
use crate::bench::statistics::Sorted;
use crate::engine::Network;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::conv2d::Method;
use crate::passes;
use crate::plan::Plan;
use crate::target::{DeviceClass, Target};
use crate::tensor::Tensor;

/// Samples of each, taken in turn.
const ROUNDS: usize = 9;
/// Seconds of a sample at least.
const SAMPLE: f64 = 5e-3;
/// Most runs in a sample.
const MOST_RUNS: usize = 200;
/// Seconds that a GPU is kept busy before it is timed. One that has waited for what the host prepares runs at a fraction of its
/// clock: an NVIDIA H200 at a fifth, and what is the fastest there is not the fastest at full speed.
const WARM: f64 = 0.1;
/// A way must take at most this much of the default's time, by the upper end of the interval of the ratio.
const WORTH_IT: f64 = 0.98;

/// An operation that is computed in one way, on the device.
pub struct Race {
    pub method: Method,
    network: Network,
}

impl Race {
    pub fn load(gpu: &Gpu, alone: &Alone, method: Method) -> Result<Race> {
        let network = Network::from_plan(gpu, plan(alone, gpu.target(), method)?)?;
        for (name, tensor) in &alone.inputs {
            network.write(name, tensor)?;
        }
        Ok(Race { method, network })
    }

    /// Compiles the kernels of all of these on all cores; what cannot be compiled is found when it is loaded.
    pub fn compile(gpu: &Gpu, alone: &Alone, methods: &[Method]) {
        let target = gpu.target();
        let plans: Vec<Plan> =
            methods.iter().filter_map(|&method| plan(alone, target, method).ok()).collect();
        let shaders =
            plans.iter().flat_map(|plan| plan.load.iter().chain(&plan.run)).map(|launch| &*launch.shader);
        let _ = gpu.compile_all(shaders);
    }

    /// What it computes; what it leaves unwritten is NaN.
    pub fn answer(&mut self) -> Result<Tensor> {
        self.network.poison()?;
        Ok(self.network.run(&[])?.remove(0))
    }

    /// Seconds of a run, of a GPU that is at its full clock.
    pub fn look(&mut self) -> Result<f64> {
        let mut seconds = self.time(1)?;
        if self.network.gpu().target().class != DeviceClass::Cpu {
            let start = Instant::now();
            while start.elapsed().as_secs_f64() < WARM {
                seconds = self.time(runs_of(seconds))?;
            }
        }
        Ok(seconds)
    }

    /// Seconds of a run, of so many. By the device's clock, but not on software adapters: there what a run copies into
    /// textures before its first launch counts, which is before the first timestamp.
    pub fn time(&mut self, runs: usize) -> Result<f64> {
        let time = self.network.time(runs)?;
        let wall = self.network.gpu().target().class == DeviceClass::Cpu;
        let seconds = time.device.filter(|seconds| !wall && *seconds > 0.0).unwrap_or(time.wall);
        Ok(seconds / runs as f64)
    }
}

fn plan(alone: &Alone, target: &Target, method: Method) -> Result<Plan> {
    let graph = passes::with_methods(&alone.graph, target, &|_, _, _, _, _, _| method)?;
    Plan::new(&graph, target)
}

/// How many runs make a sample.
fn runs_of(seconds: f64) -> usize {
    ((SAMPLE / seconds.max(1e-9)).ceil() as usize).clamp(1, MOST_RUNS)
}

/// Who won, and the medians of its time and the default's.
pub struct Won {
    pub place: usize,
    pub seconds: f64,
    pub default_seconds: f64,
}

/// Lets them run in turn. The first, which is the default, wins unless another was faster by more than chance: the ratio of
/// two samples that were taken one after the other knows nothing of what else slows the machine down.
pub fn run(racers: &mut [Race]) -> Result<Won> {
    let once = racers.iter_mut().map(Race::look).collect::<Result<Vec<_>>>()?;
    let runs = runs_of(once.iter().copied().fold(0.0, f64::max));
    let rounds = if racers.len() > 1 { ROUNDS } else { 1 };
    let mut samples = vec![Vec::with_capacity(rounds); racers.len()];
    for _ in 0..rounds {
        for (racer, samples) in racers.iter_mut().zip(&mut samples) {
            samples.push(racer.time(runs)?);
        }
    }
    Ok(winner(&samples))
}

/// Of samples that are not empty.
fn winner(samples: &[Vec<f64>]) -> Won {
    let median = |samples: &[f64]| Sorted::new(samples).map_or(f64::INFINITY, |sorted| sorted.median());
    let default_seconds = median(&samples[0]);
    let mut won = Won { place: 0, seconds: default_seconds, default_seconds };
    let mut best = 1.0;
    for (place, own) in samples.iter().enumerate().skip(1) {
        let ratios: Vec<f64> = own.iter().zip(&samples[0]).map(|(own, default)| own / default).collect();
        let Some(sorted) = Sorted::new(&ratios) else { continue };
        if sorted.median_ci()[1] <= WORTH_IT && sorted.median() < best {
            best = sorted.median();
            won = Won { place, seconds: best * default_seconds, default_seconds };
        }
    }
    won
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_faster_by_more_than_chance_wins() {
        let steady = vec![1.0; ROUNDS];
        let of = |other: &dyn Fn(usize) -> f64| {
            let other = (0..ROUNDS).map(other).collect();
            winner(&[steady.clone(), other])
        };
        assert_eq!(of(&|_| 0.9).place, 1);
        assert_eq!(of(&|_| 0.99).place, 0, "hardly faster");
        assert_eq!(of(&|i| if i % 2 == 0 { 0.8 } else { 1.1 }).place, 0, "as often slower");
        assert_eq!(of(&|i| if i == 0 { 5.0 } else { 0.9 }).place, 1, "one that something held up");
        assert_eq!(of(&|_| f64::NAN).place, 0);
        // A machine that gets slower and slower takes both along.
        let slower: Vec<f64> = (0..ROUNDS).map(|i| 1.0 + i as f64).collect();
        let faster = slower.iter().map(|s| 0.9 * s).collect();
        let won = winner(&[slower, faster]);
        assert_eq!(won.place, 1);
        assert!((won.seconds / won.default_seconds - 0.9).abs() < 1e-12);
        assert_eq!(winner(&[steady.clone(), vec![0.9; ROUNDS], vec![0.8; ROUNDS]]).place, 2);
    }
}
