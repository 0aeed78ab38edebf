//! Whether the device's timestamps can be believed, and what they cost.
//!
//! Drivers have answered timestamp queries with zeros, with ticks of another length, and with times that overlap. So
//! they are held against the wall clock before anything is measured by them; where they fail, the wall clock is used
//! and the reason is kept.

use crate::bench::record::{Clock, ClockSource};
use crate::engine::lone::{self, Lone};
use crate::engine::{Network, Stamped};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::ops::conv2d::Conv2dOptions;
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, Tensor};

/// Launches in the submission by which the clocks are compared.
const LAUNCHES: usize = 16;
/// Seconds that it lasts, at least.
const LONG: f64 = 0.05;
/// What the device's time may be of the wall clock's: less, as submitting takes time, and hardly more.
const BELIEVABLE: std::ops::RangeInclusive<f64> = 0.7..=1.03;

/// Which clock to trust on this device.
///
/// # Errors
/// [`crate::Error::DeviceLost`] and what the engine refuses; timestamps that are wrong are no error.
pub fn measure(gpu: &Gpu) -> Result<Clock> {
    if !gpu.has_timestamps() {
        let reason = Some("the device has no timestamp queries".to_owned());
        return Ok(Clock {
            source: ClockSource::Wall,
            reason,
            period: None,
            agreement: None,
            overhead: None,
        });
    }
    let stamped = long_submission(gpu)?;
    let judged = judge(&stamped);
    let overhead = match &judged {
        Ok(_) => Some(network(gpu)?.profile(3)?.overhead()),
        Err(_) => None,
    };
    Ok(Clock {
        source: if judged.is_ok() { ClockSource::Timestamps } else { ClockSource::Wall },
        reason: judged.as_ref().err().cloned(),
        period: Some(stamped.period).filter(|p| p.is_finite()),
        agreement: judged.ok(),
        overhead,
    })
}

/// Device time over wall time, or what is wrong with the timestamps.
fn judge(stamped: &Stamped) -> Result<f64, String> {
    let Stamped { ticks, period, wall } = stamped;
    if !(period.is_finite() && *period > 0.0) {
        return Err(format!("a tick is said to last {period} ns"));
    }
    let zeros = ticks.iter().flatten().filter(|&&t| t == 0).count();
    if zeros > 0 {
        return Err(format!("{zeros} of {} timestamps are zero", 2 * ticks.len()));
    }
    if let Some([begin, end]) = ticks.iter().find(|[begin, end]| end < begin) {
        return Err(format!("a launch is said to have ended before it began ({end} < {begin})"));
    }
    if ticks.iter().all(|[begin, end]| begin == end) {
        return Err("all launches are said to have taken no time".to_owned());
    }
    if let Some(pair) = ticks.windows(2).find(|pair| pair[1][0] < pair[0][0]) {
        return Err(format!(
            "launches are said to have begun in another order ({} < {})",
            pair[1][0], pair[0][0]
        ));
    }
    let sum: f64 = stamped.seconds().sum();
    if sum > wall * BELIEVABLE.end() {
        return Err(format!("launches of {sum:.4} s in all ran within {wall:.4} s"));
    }
    let (first, last) = (ticks[0][0], ticks[ticks.len() - 1][1]);
    let agreement = (last - first) as f64 * period * 1e-9 / wall;
    match BELIEVABLE.contains(&agreement) {
        true => Ok(agreement),
        false => Err(format!("timestamps say {:.4} s, the wall clock {wall:.4} s", agreement * wall)),
    }
}

/// Some launches that wait for one another, long enough for submitting not to count.
fn long_submission(gpu: &Gpu) -> Result<Stamped> {
    const GROUPS: u64 = 256;
    let params = |rounds: u32| {
        [("rounds", Param::U32(rounds)), ("factor", Param::F32(0.5)), ("addend", Param::F32(0.75))]
    };
    let dst = lone::buffer(gpu, "clock", GROUPS * 64 * 4)?;
    let kernel = Lone::new(gpu, &Kernel::new("roof_arithmetic"), &[("dst", &dst)], &params(1), GROUPS)?;
    kernel.time(gpu, 1)?;
    let mut rounds = 8;
    loop {
        kernel.set(gpu, &params(rounds))?;
        let stamped = kernel.stamped(gpu, LAUNCHES)?;
        if stamped.wall >= LONG || rounds >= 1 << 26 {
            return Ok(stamped);
        }
        rounds *= 2;
    }
}

/// Sixteen convolutions, one after the other: launches as most of a network's are.
fn network(gpu: &Gpu) -> Result<Network> {
    let mut graph = Graph::new();
    let mut x = graph.input("x", [1, 32, 32, 32], DType::F32);
    let weight = graph.weight("weight", Tensor::from_f32([32, 32, 3, 3], &[1e-2; 32 * 32 * 9]));
    for _ in 0..16 {
        x = graph.conv2d(x, weight, None, Conv2dOptions::padded(1))?;
    }
    graph.output("y", x);
    Network::new(gpu, &graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four launches of a millisecond, a tick a microsecond.
    fn sane() -> Stamped {
        let ticks = (0..4).map(|i| [1000 * i + 5, 1000 * i + 1000]).collect();
        Stamped { ticks, period: 1000.0, wall: 4.2e-3 }
    }

    #[test]
    fn sane_timestamps_are_believed() {
        let agreement = judge(&sane()).unwrap();
        assert!((agreement - 3995.0 / 4200.0).abs() < 1e-9, "{agreement}");
    }

    #[test]
    fn what_drivers_have_answered_is_not() {
        let broken = |change: &dyn Fn(&mut Stamped)| {
            let mut stamped = sane();
            change(&mut stamped);
            judge(&stamped).unwrap_err()
        };
        assert!(broken(&|s| s.ticks = vec![[0, 0]; 4]).contains("8 of 8 timestamps are zero"));
        assert!(broken(&|s| s.ticks[2][1] = 0).contains("1 of 8"));
        assert!(broken(&|s| s.period = 0.0).contains("a tick"));
        assert!(broken(&|s| s.period = f64::NAN).contains("a tick"));
        assert!(broken(&|s| s.ticks[1] = [3000, 2000]).contains("before it began"));
        assert!(broken(&|s| s.ticks = vec![[7, 7]; 4]).contains("no time"));
        assert!(broken(&|s| s.ticks.swap(0, 1)).contains("another order"));
        // Each from the first begin on.
        assert!(broken(&|s| s.ticks.iter_mut().for_each(|t| t[0] = 5)).contains("ran within"));
        assert!(broken(&|s| s.wall = 1.0).contains("the wall clock 1.0000 s"));
        assert!(broken(&|s| s.period = 2000.0).contains("ran within"));
    }
}
