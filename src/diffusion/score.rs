//! Score models (Song et al. 2021, arXiv:2011.13456): a stochastic differential equation, over a time from 0 to 1, takes
//! pictures to noise, and the gradient of log p(x), which the model gives, takes them back.

use serde::Deserialize;

use super::levels::Level;
use super::schedule::{Prediction, ScheduleConfig, invalid, linspace};
use super::sigmas::SigmaSchedule;
use crate::error::Result;

/// Most steps of a run, of which each is some rows of a table.
const MAX_STEPS: usize = 1 << 16;
/// Most corrections a step.
const MAX_CORRECTIONS: usize = 100;

/// The keys of diffusers' `ScoreSdeVeScheduler` and `ScoreSdeVpScheduler` that others have not, or mean otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScoreConfig {
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub beta_min: Option<f64>,
    pub beta_max: Option<f64>,
    pub sampling_eps: Option<f64>,
    pub snr: Option<f64>,
    pub correct_steps: Option<usize>,
}

/// What a score model was trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    pub sde: Sde,
    /// Steps that the published runs took.
    pub num_train_timesteps: usize,
    /// The time at which a run ends, just above 0.
    pub end: f64,
    /// Of a correction: length of its step over that of its noise.
    pub snr: f64,
    /// Corrections before each step of the predictor.
    pub correct_steps: usize,
}

/// How pictures become noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sde {
    /// Variance exploding: the picture stays, under noise of σ(t) = σ₀ (σ₁ / σ₀)^t (eq. 30). The model is told σ and gives
    /// the score; pictures are from 0 to 1.
    Exploding { sigma: [f64; 2] },
    /// Variance preserving: dx = −½ β x dt + √β dw with β(t) = β₀ + t (β₁ − β₀) (eq. 32). The model is told 999 t and
    /// gives the noise; pictures are from −1 to 1.
    Preserving { beta: [f64; 2] },
}

/// The last timestep of the discrete models that continuous ones of the variance-preserving kind go on from.
const LAST_TIMESTEP: f64 = 999.0;

impl Score {
    /// What a configuration describes, `None` if its class is not one of score models.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for numbers out of range.
    pub(super) fn of_config(config: &ScheduleConfig) -> Result<Option<Self>> {
        let keys = &config.score;
        let sde = match config.class_name.as_deref() {
            Some("ScoreSdeVeScheduler") => {
                let sigma = [keys.sigma_min.unwrap_or(0.01), keys.sigma_max.unwrap_or(1348.0)];
                if !(sigma[0] > 0.0 && sigma[0] < sigma[1] && sigma[1].is_finite()) {
                    let found = format!("{} and {}", sigma[0], sigma[1]);
                    return Err(invalid(
                        "sigma_min and sigma_max",
                        "a number above 0 and a larger one",
                        found,
                    ));
                }
                Sde::Exploding { sigma }
            }
            Some("ScoreSdeVpScheduler") => {
                let beta = [keys.beta_min.unwrap_or(0.1), keys.beta_max.unwrap_or(20.0)];
                if !(beta[0] >= 0.0 && beta[0] < beta[1] && beta[1].is_finite()) {
                    let found = format!("{} and {}", beta[0], beta[1]);
                    return Err(invalid("beta_min and beta_max", "a number from 0 and a larger one", found));
                }
                Sde::Preserving { beta }
            }
            _ => return Ok(None),
        };
        let end = match sde {
            Sde::Exploding { .. } => 1e-5,
            Sde::Preserving { .. } => 1e-3,
        };
        let score = Self {
            sde,
            num_train_timesteps: config.num_train_timesteps.unwrap_or(2000),
            end: keys.sampling_eps.unwrap_or(end),
            // As published where the class is silent, which that of the preserving kind always is.
            snr: keys.snr.unwrap_or(if matches!(sde, Sde::Exploding { .. }) { 0.15 } else { 0.16 }),
            correct_steps: keys.correct_steps.unwrap_or(1),
        };
        if !(2..=MAX_STEPS).contains(&score.num_train_timesteps) {
            let expected = format!("2 to {MAX_STEPS}");
            return Err(invalid("num_train_timesteps", expected, score.num_train_timesteps));
        }
        if !(score.end > 0.0 && score.end < 1.0) {
            return Err(invalid("sampling_eps", "a number between 0 and 1", score.end));
        }
        if !(score.snr > 0.0 && score.snr.is_finite()) {
            return Err(invalid("snr", "a positive number", score.snr));
        }
        if score.correct_steps > MAX_CORRECTIONS {
            return Err(invalid("correct_steps", format!("at most {MAX_CORRECTIONS}"), score.correct_steps));
        }
        Ok(Some(score))
    }

    pub(super) fn prediction(&self) -> Prediction {
        match self.sde {
            Sde::Exploding { .. } => Prediction::Score,
            Sde::Preserving { .. } => Prediction::Epsilon,
        }
    }

    /// Darkest and brightest value of the pictures.
    pub(super) fn range(&self) -> [f64; 2] {
        match self.sde {
            Sde::Exploding { .. } => [0.0, 1.0],
            Sde::Preserving { .. } => [-1.0, 1.0],
        }
    }

    /// The time before each of `steps` steps.
    pub(super) fn times(&self, steps: usize) -> Result<Vec<f64>> {
        match (2..=MAX_STEPS).contains(&steps) {
            true => Ok(linspace(1.0, self.end, steps)),
            false => Err(invalid("number of steps of a score model", format!("2 to {MAX_STEPS}"), steps)),
        }
    }

    pub(super) fn level(&self, time: f64) -> Level {
        match self.sde {
            Sde::Exploding { sigma: [low, high] } => {
                let sigma = low * (high / low).powf(time);
                Level { timestep: sigma, sigma, signal: 1.0 }
            }
            Sde::Preserving { beta } => {
                // ∫β of the first t, of which the signal is e^(−½ ∫β).
                let integral = time * (beta[0] + 0.5 * time * (beta[1] - beta[0]));
                let (signal, sigma) = ((-0.5 * integral).exp(), integral.exp_m1().sqrt());
                Level { timestep: LAST_TIMESTEP * time, sigma, signal }
            }
        }
    }

    /// The level at which there is so much noise for a signal of 1.
    fn level_of(&self, sigma: f64) -> Level {
        match self.sde {
            Sde::Exploding { .. } => Level { timestep: sigma, sigma, signal: 1.0 },
            Sde::Preserving { beta: [low, high] } => {
                // ½ (β₁ − β₀) t² + β₀ t = ln(1 + σ²)
                let integral = (sigma * sigma).ln_1p();
                let root = (low * low + 2.0 * (high - low) * integral).sqrt();
                let time = 2.0 * integral / (low + root);
                Level { timestep: LAST_TIMESTEP * time, ..self.level(time) }
            }
        }
    }

    /// The levels of the probability-flow ODE, to the clean picture.
    pub(super) fn levels(&self, sigmas: &SigmaSchedule, steps: usize) -> Result<Vec<Level>> {
        let mut levels: Vec<Level> = self.times(steps)?.into_iter().map(|time| self.level(time)).collect();
        match sigmas {
            SigmaSchedule::Model => {}
            SigmaSchedule::Karras
            | SigmaSchedule::Exponential
            | SigmaSchedule::Beta
            | SigmaSchedule::KlOptimal
            | SigmaSchedule::Custom(_) => {
                let ends = [levels[0].sigma, levels[steps - 1].sigma];
                let spread = sigmas.between(ends[0], ends[1], steps);
                levels = spread.into_iter().map(|sigma| self.level_of(sigma)).collect();
            }
            _ => {
                let expected = "model, karras, exponential, beta, kl-optimal, or a list of levels";
                return Err(invalid("sigma schedule of a score model", expected, sigmas));
            }
        }
        levels.push(Level { timestep: 0.0, sigma: 0.0, signal: 1.0 });
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NoiseSchedule, Sampler, Table};
    use super::*;

    fn schedule(class: &str, keys: &str) -> Result<NoiseSchedule> {
        let json = format!(r#"{{"_class_name": "ScoreSde{class}Scheduler" {keys}}}"#);
        NoiseSchedule::new(&ScheduleConfig::from_json(&json)?)
    }

    #[test]
    fn wrong_configurations_are_refused() {
        for (class, keys, message) in [
            ("Ve", r#", "sigma_min": 0"#, "sigma_min and sigma_max"),
            ("Ve", r#", "sigma_max": 0.001"#, "found 0.01 and 0.001"),
            ("Vp", r#", "beta_min": 30"#, "beta_min and beta_max"),
            ("Vp", r#", "sampling_eps": 1"#, "sampling_eps: expected a number between 0 and 1"),
            ("Ve", r#", "snr": -0.1"#, "snr: expected a positive number"),
            ("Ve", r#", "correct_steps": 1000000"#, "correct_steps: expected at most 100"),
            ("Ve", r#", "num_train_timesteps": 1"#, "num_train_timesteps: expected 2 to"),
        ] {
            let error = schedule(class, keys).expect_err(keys).to_string();
            assert!(error.contains(message), "{keys}: {error}");
        }
    }

    #[test]
    fn impossible_runs_are_refused() {
        for class in ["Ve", "Vp"] {
            let schedule = schedule(class, "").unwrap();
            let run = |sampler, sigmas, steps| Table::new(&schedule, sampler, sigmas, steps);
            for &sampler in Sampler::ALL {
                let known = matches!(sampler.name(), "euler" | "heun" | "reverse-sde" | "pc");
                assert_eq!(run(sampler, SigmaSchedule::Model, 5).is_ok(), known, "{sampler}");
                for steps in [0, 1, MAX_STEPS + 1] {
                    assert!(run(sampler, SigmaSchedule::Model, steps).is_err(), "{sampler}");
                }
            }
            assert!(run(Sampler::Heun, SigmaSchedule::Karras, 5).is_ok());
            assert!(run(Sampler::Heun, SigmaSchedule::Custom(vec![1.0, 2.0]), 2).is_err());
            assert!(run(Sampler::Heun, SigmaSchedule::Simple, 5).is_err());
            assert!(run(Sampler::ReverseSde, SigmaSchedule::Karras, 5).is_err());
            let table = run(Sampler::Pc, SigmaSchedule::Model, 5).unwrap();
            assert!(table.part([0.0, 0.5]).is_err());
            let start = table.start(0.4).unwrap();
            assert_eq!((start.row, start.table.rows.len(), start.table.steps), (6, 4, 2));
        }
    }

    #[test]
    fn noise_finds_its_time_again() {
        for (class, keys) in [("Ve", ""), ("Vp", ""), ("Vp", r#", "beta_min": 0"#)] {
            let score = schedule(class, keys).unwrap().score.unwrap();
            for i in 1..=100 {
                let level = score.level(f64::from(i) / 100.0);
                let again = score.level_of(level.sigma);
                for (a, b) in [(level.timestep, again.timestep), (level.signal, again.signal)] {
                    assert!((a - b).abs() <= 1e-9 * a.abs(), "{class}{keys}: {a}, {b}");
                }
            }
        }
    }
}
