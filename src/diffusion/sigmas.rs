//! Sigma schedules: which noise levels a run visits, whatever the sampler.

use std::fmt;
use std::str::FromStr;

use super::schedule::{NoiseSchedule, invalid, linspace, unknown};
use crate::error::{Error, Result};

/// Which noise levels the sigma-space samplers and DPM-Solver++ visit.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SigmaSchedule {
    /// Those of the model's own schedule at the chosen timesteps.
    #[default]
    Model,
    /// Even in σ^(1/7) (Karras et al. 2022, eq. 5).
    Karras,
    /// Even in log σ.
    Exponential,
    /// Quantiles of a beta distribution, α = β = 0.6: more of both ends (Lee et al. 2024, arXiv:2407.12173; as
    /// diffusers, over σ).
    Beta,
    /// Even in arctan σ: optimal for a Gaussian (Sabour et al. 2024, arXiv:2404.14507, theorem 3.1).
    KlOptimal,
    /// From the last timestep down in even steps of which the last would end at timestep 0 (Stability AI's
    /// `generative-models`; A1111's and ComfyUI's `sgm_uniform`).
    SgmUniform,
    /// Whole timesteps, `n / steps` apart and rounded up, from the last one (ComfyUI's and A1111's `simple`).
    Simple,
    /// Align your steps (Sabour et al. 2024, arXiv:2404.14507), for Stable Diffusion 1: ten published levels, for
    /// other numbers of steps interpolated in log σ.
    AlignYourSteps,
    /// The same for SDXL.
    AlignYourStepsXl,
    /// These noise levels, falling; their number is that of the steps.
    Custom(Vec<f64>),
    /// Those of the model's own schedule at these timesteps, falling; their number is that of the steps.
    Timesteps(Vec<f64>),
}

use SigmaSchedule::{
    AlignYourSteps, AlignYourStepsXl, Beta, Custom, Exponential, Karras, KlOptimal, Model, SgmUniform,
    Simple, Timesteps,
};

/// Those that have a name, with it.
const NAMES: [(&str, SigmaSchedule); 9] = [
    ("model", Model),
    ("karras", Karras),
    ("exponential", Exponential),
    ("beta", Beta),
    ("kl-optimal", KlOptimal),
    ("sgm-uniform", SgmUniform),
    ("simple", Simple),
    ("align-your-steps", AlignYourSteps),
    ("align-your-steps-xl", AlignYourStepsXl),
];

/// What a list of timesteps begins with.
const TIMESTEPS: &str = "timesteps:";

impl SigmaSchedule {
    /// Those that have a name.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, schedule)| schedule)
    }

    /// The number of steps, where the schedule itself says it.
    #[must_use]
    pub fn steps(&self) -> Option<usize> {
        match self {
            Custom(list) | Timesteps(list) => Some(list.len()),
            _ => None,
        }
    }

    /// Checks a list: numbers that fall and stay in range.
    pub(super) fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        let (what, list, from, to) = match self {
            Custom(list) => ("noise levels", list, f64::MIN_POSITIVE, f64::MAX),
            Timesteps(list) => ("timesteps", list, 0.0, (schedule.num_train_timesteps() - 1) as f64),
            _ => return Ok(()),
        };
        let falls = list.is_sorted_by(|a, b| a > b);
        if list.is_empty() || !falls || list.iter().any(|v| !(from..=to).contains(v)) {
            let expected = match self {
                Custom(_) => "falling numbers above 0".to_owned(),
                _ => format!("falling numbers from {to} to 0"),
            };
            return Err(invalid(format!("{what} of a schedule"), expected, self));
        }
        Ok(())
    }

    /// The timesteps of a schedule that is made of such.
    pub(super) fn timesteps(&self, trained: usize, steps: usize) -> Option<Vec<f64>> {
        match self {
            SgmUniform => Some(linspace((trained - 1) as f64, 0.0, steps + 1)[..steps].to_vec()),
            Simple => Some((0..steps).map(|i| (trained - 1 - i * trained / steps) as f64).collect()),
            Timesteps(list) => Some(list.clone()),
            _ => None,
        }
    }

    /// `steps` noise levels, spread from `highest` to `lowest` or the schedule's own; not for [`SigmaSchedule::Model`]
    /// and those made of timesteps.
    pub(super) fn between(&self, highest: f64, lowest: f64, steps: usize) -> Vec<f64> {
        /// The exponent of Karras et al. 2022, table 1.
        const RHO: f64 = 7.0;
        let ramp = || linspace(0.0, 1.0, steps).into_iter();
        match self {
            Model | SgmUniform | Simple | Timesteps(_) => {
                unreachable!("levels of timesteps are not spread between two ends")
            }
            Karras => {
                let (from, to) = (highest.powf(1.0 / RHO), lowest.powf(1.0 / RHO));
                ramp().map(|r| (from + r * (to - from)).powf(RHO)).collect()
            }
            Exponential => linspace(highest.ln(), lowest.ln(), steps).iter().map(|log| log.exp()).collect(),
            Beta => ramp().map(|r| lowest + beta_quantile(1.0 - r) * (highest - lowest)).collect(),
            KlOptimal => ramp().map(|r| ((1.0 - r) * highest.atan() + r * lowest.atan()).tan()).collect(),
            AlignYourSteps => log_linear(&ALIGNED, steps),
            AlignYourStepsXl => log_linear(&ALIGNED_XL, steps),
            Custom(list) => list.clone(),
        }
    }
}

/// The published levels (research.nvidia.com/labs/toronto-ai/AlignYourSteps), the last where the run would end.
const ALIGNED: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
const ALIGNED_XL: [f64; 11] = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029];

/// `steps` levels before the last of `levels`, even where those are, in between along the logarithm.
fn log_linear(levels: &[f64], steps: usize) -> Vec<f64> {
    let last = levels.len() - 1;
    let level = |i: usize| {
        let (below, rest) = (i * last / steps, i * last % steps);
        let part = rest as f64 / steps as f64;
        match rest {
            0 => levels[below],
            _ => (levels[below].ln() * (1.0 - part) + levels[below + 1].ln() * part).exp(),
        }
    };
    (0..steps).map(level).collect()
}

/// The quantile of the beta distribution with both parameters [`SHAPE`].
fn beta_quantile(p: f64) -> f64 {
    // It is symmetric, so half of it suffices, and the series' value there is its norm.
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    let whole = incomplete_beta(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        match 0.5 * incomplete_beta(middle) / whole < p {
            true => low = middle,
            false => high = middle,
        }
    }
}

const SHAPE: f64 = 0.6;

/// ∫₀ˣ (t · (1 − t))^(a − 1) dt for x up to ½, where its power series (NIST DLMF 8.17.8) gains a bit a term.
fn incomplete_beta(x: f64) -> f64 {
    const TERMS: usize = 60;
    let (mut sum, mut term) = (0.0, 1.0);
    for n in 0..TERMS {
        let n = n as f64;
        sum += term / (SHAPE + n);
        term *= x * (n + 1.0 - SHAPE) / (n + 1.0);
    }
    x.powf(SHAPE) * sum
}

impl FromStr for SigmaSchedule {
    type Err = Error;

    /// A name, noise levels as `14.6,6.3,3.8,1.2` (a 0 at the end may be there), or timesteps as `timesteps:999,600,200`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers =
            |text: &str| text.split(',').map(|n| n.trim().parse().ok()).collect::<Option<Vec<f64>>>();
        if let Some((_, schedule)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(schedule.clone());
        }
        if let Some(list) = text.strip_prefix(TIMESTEPS) {
            return match numbers(list) {
                Some(list) => Ok(Timesteps(list)),
                None => Err(invalid("timesteps of a schedule", "numbers, with commas between them", list)),
            };
        }
        match numbers(text) {
            Some(mut list) => {
                // Every sampler has its own end, which is 0.
                list.pop_if(|last| *last == 0.0);
                Ok(Custom(list))
            }
            None => {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                let lists = "noise levels as 14.6,6.3,1.2, timesteps as timesteps:999,600,200";
                Err(unknown("sigma schedule", text, &format!("{}, {lists}", names.join(", "))))
            }
        }
    }
}

impl fmt::Display for SigmaSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |list: &[f64]| list.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        match self {
            Custom(list) => f.pad(&listed(list)),
            Timesteps(list) => f.pad(&format!("{TIMESTEPS}{}", listed(list))),
            _ => {
                let named = NAMES.iter().find(|(_, schedule)| schedule == self);
                f.pad(named.map_or("", |(name, _)| name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_go_round() {
        let lists = [Custom(vec![14.6, 0.5, 0.03]), Timesteps(vec![999.0, 12.5, 0.0]), Custom(vec![2.0])];
        for schedule in SigmaSchedule::all().chain(lists) {
            assert_eq!(schedule.to_string().parse::<SigmaSchedule>().unwrap(), schedule);
        }
        assert_eq!("14.6, 2.5,0.0".parse::<SigmaSchedule>().unwrap(), Custom(vec![14.6, 2.5]));
        for (text, says) in [("odd", "model, karras, exponential, beta"), ("timesteps:1,x", "commas")] {
            let error = text.parse::<SigmaSchedule>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_quantile_is_the_inverse() {
        for i in 1..100 {
            let p = f64::from(i) / 100.0;
            let x = beta_quantile(p);
            let back = match x > 0.5 {
                true => 1.0 - 0.5 * incomplete_beta(1.0 - x) / incomplete_beta(0.5),
                false => 0.5 * incomplete_beta(x) / incomplete_beta(0.5),
            };
            assert!((back - p).abs() < 1e-14, "{p}: {back}");
        }
        assert_eq!([beta_quantile(0.0), beta_quantile(1.0)], [0.0, 1.0]);
    }

    #[test]
    fn aligned_steps_pass_through_the_published_ones() {
        assert_eq!(log_linear(&ALIGNED, 10), ALIGNED[..10]);
        let twice = log_linear(&ALIGNED_XL, 20);
        assert_eq!(twice[4], ALIGNED_XL[2]);
        assert!((twice[5] - (ALIGNED_XL[2] * ALIGNED_XL[3]).sqrt()).abs() < 1e-14);
    }
}
