//! Flow matching (Lipman et al. 2023, arXiv:2210.02747): noise and picture mixed along a straight line,
//! x = (1 − σ) · picture + σ · noise, with σ, from 1 to 0, as the time.

use serde::Deserialize;

use super::schedule::{ScheduleConfig, invalid, linspace};
use super::sigmas::SigmaSchedule;
use crate::error::{Error, Result};

/// The keys of diffusers' `FlowMatchEulerDiscreteScheduler` that others have not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FlowConfig {
    pub shift: Option<f64>,
    pub use_dynamic_shifting: Option<bool>,
    pub base_shift: Option<f64>,
    pub max_shift: Option<f64>,
    pub base_image_seq_len: Option<usize>,
    pub max_image_seq_len: Option<usize>,
    pub time_shift_type: Option<String>,
    pub shift_terminal: Option<f64>,
    pub invert_sigmas: Option<bool>,
    pub stochastic_sampling: Option<bool>,
}

/// The noise levels of a flow model.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub num_train_timesteps: usize,
    /// The last level of a run before it is shifted.
    pub lowest: f64,
    pub shift: Shift,
    /// The level that the last step begins with, to which the others are stretched.
    pub terminal: Option<f64>,
    /// Each step goes to the clean picture and back under fresh noise.
    pub stochastic: bool,
}

/// How levels are moved to where there is more noise: s σ / (1 + (s − 1) σ) for σ (Esser et al. 2024,
/// arXiv:2403.03206, eq. 23), as large pictures keep more of their structure under the same noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shift {
    /// s itself.
    By(f64),
    /// μ grows with the number of a picture's tokens, along the line through two of them; s is μ, or e^μ.
    ByTokens { tokens: [f64; 2], mu: [f64; 2], exponential: bool },
}

impl Flow {
    /// The levels that a configuration describes, `None` if its class is not one of flow matching.
    ///
    /// # Errors
    /// [`Error::Invalid`] for numbers out of range and for inverted levels, [`Error::Unknown`] for another
    /// `time_shift_type`.
    pub(super) fn of_config(config: &ScheduleConfig) -> Result<Option<Self>> {
        let class = config.class_name.as_deref().unwrap_or_default();
        if !class.starts_with("FlowMatch") {
            return Ok(None);
        }
        let FlowConfig { shift, shift_terminal, .. } = config.flow;
        let trained = config.num_train_timesteps.unwrap_or(1000);
        if trained == 0 {
            return Err(invalid("num_train_timesteps", "1 or more", 0));
        }
        if config.flow.invert_sigmas == Some(true) {
            return Err(invalid("invert_sigmas", "false", true));
        }
        let terminal = shift_terminal.filter(|terminal| *terminal != 0.0);
        if let Some(terminal) = terminal.filter(|terminal| !(0.0..1.0).contains(terminal)) {
            return Err(invalid("shift_terminal", "a number from 0 to 1", terminal));
        }
        let lowest = 1.0 / trained as f64;
        let flow = |lowest: f64, shift: Shift| Self {
            num_train_timesteps: trained,
            lowest,
            shift,
            terminal,
            stochastic: config.flow.stochastic_sampling == Some(true),
        };
        if config.flow.use_dynamic_shifting == Some(true) {
            return Ok(Some(flow(lowest, config.flow.by_tokens()?)));
        }
        match shift.unwrap_or(1.0) {
            // diffusers shifts the lowest level twice: here, and with those of a run.
            s if s > 0.0 && s.is_finite() => Ok(Some(flow(shifted(s, lowest), Shift::By(s)))),
            s => Err(invalid("shift", "a positive number", s)),
        }
    }

    /// σ before each of `steps` steps, falling.
    pub(super) fn sigmas(&self, sigmas: &SigmaSchedule, steps: usize) -> Result<Vec<f64>> {
        let trained = self.num_train_timesteps;
        if !(1..=trained).contains(&steps) {
            return Err(invalid("number of steps", format!("1 to {trained}"), steps));
        }
        let Shift::By(s) = self.shift else {
            let expected = "their number, as the noise levels depend on it";
            return Err(invalid("tokens of a picture", expected, "none"));
        };
        let mut levels: Vec<f64> =
            linspace(1.0, self.lowest, steps).into_iter().map(|sigma| shifted(s, sigma)).collect();
        let (first, mut last) = (levels[0], levels[steps - 1]);
        if let Some(terminal) = self.terminal.filter(|_| last < 1.0) {
            let scale = (1.0 - terminal) / (1.0 - last);
            levels.iter_mut().for_each(|sigma| *sigma = 1.0 - scale * (1.0 - *sigma));
            last = levels[steps - 1];
        }
        Ok(match sigmas {
            SigmaSchedule::Model => levels,
            SigmaSchedule::Karras | SigmaSchedule::Exponential | SigmaSchedule::Beta => {
                sigmas.between(first, last, steps)
            }
            SigmaSchedule::Custom(list) if list.iter().all(|sigma| *sigma <= 1.0) => list.clone(),
            _ => {
                let expected = "model, karras, exponential, beta, or a list of levels up to 1";
                return Err(invalid("sigma schedule of a flow model", expected, sigmas));
            }
        })
    }
}

impl FlowConfig {
    fn by_tokens(&self) -> Result<Shift> {
        let exponential = match self.time_shift_type.as_deref() {
            None | Some("exponential") => true,
            Some("linear") => false,
            Some(found) => {
                return Err(Error::Unknown {
                    what: "time_shift_type",
                    found: found.to_owned(),
                    expected: "exponential, linear".to_owned(),
                });
            }
        };
        let lengths = [self.base_image_seq_len.unwrap_or(256), self.max_image_seq_len.unwrap_or(4096)];
        if lengths[0] >= lengths[1] {
            return Err(invalid("max_image_seq_len", format!("above {}", lengths[0]), lengths[1]));
        }
        Ok(Shift::ByTokens {
            tokens: lengths.map(|length| length as f64),
            mu: [self.base_shift.unwrap_or(0.5), self.max_shift.unwrap_or(1.15)],
            exponential,
        })
    }
}

impl Shift {
    /// The shift of pictures of so many tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the line through the two configured points falls to 0.
    pub(super) fn for_tokens(self, count: usize) -> Result<Self> {
        let Self::ByTokens { tokens: [from, to], mu: [low, high], exponential } = self else {
            return Ok(self);
        };
        let mu = low + (high - low) * (count as f64 - from) / (to - from);
        match if exponential { mu.exp() } else { mu } {
            s if s > 0.0 && s.is_finite() => Ok(Self::By(s)),
            s => Err(invalid(format!("shift of a picture of {count} tokens"), "a positive number", s)),
        }
    }
}

fn shifted(s: f64, sigma: f64) -> f64 {
    s * sigma / (1.0 + (s - 1.0) * sigma)
}

#[cfg(test)]
mod tests {
    use super::super::{NoiseSchedule, Sampler, Table};
    use super::*;

    fn schedule(keys: &str) -> Result<NoiseSchedule> {
        let json = format!(r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler" {keys}}}"#);
        NoiseSchedule::new(&ScheduleConfig::from_json(&json)?)
    }

    #[test]
    fn wrong_configurations_are_refused() {
        for (keys, message) in [
            (r#", "shift": 0"#, "shift: expected a positive number, found 0"),
            (r#", "shift_terminal": 1.5"#, "shift_terminal"),
            (r#", "invert_sigmas": true"#, "invert_sigmas: expected false"),
            (r#", "num_train_timesteps": 0"#, "num_train_timesteps"),
            (r#", "use_dynamic_shifting": true, "time_shift_type": "cubic""#, "time_shift_type \"cubic\""),
            (
                r#", "use_dynamic_shifting": true, "max_image_seq_len": 256"#,
                "max_image_seq_len: expected above 256",
            ),
        ] {
            let error = schedule(keys).expect_err(keys).to_string();
            assert!(error.contains(message), "{keys}: {error}");
        }
    }

    #[test]
    fn impossible_runs_are_refused() {
        let fixed = schedule("").unwrap();
        for &sampler in Sampler::ALL {
            let flows = matches!(sampler, Sampler::Euler | Sampler::Heun);
            let table = Table::new(&fixed, sampler, SigmaSchedule::Model, 5);
            assert_eq!(table.is_ok(), flows, "{sampler}");
        }
        for steps in [0, 1001] {
            assert!(Table::new(&fixed, Sampler::Euler, SigmaSchedule::Model, steps).is_err());
        }
        let dynamic = schedule(r#", "use_dynamic_shifting": true"#).unwrap();
        let run = |schedule: &NoiseSchedule| Table::new(schedule, Sampler::Euler, SigmaSchedule::Model, 5);
        let error = run(&dynamic).unwrap_err().to_string();
        assert!(error.contains("tokens of a picture"), "{error}");
        assert!(run(&dynamic.for_tokens(1024).unwrap()).is_ok());
        let linear = r#", "use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": -1.0"#;
        assert!(schedule(linear).unwrap().for_tokens(256).is_err());
    }

    #[test]
    fn a_run_goes_from_noise_to_the_picture() {
        let schedule = schedule(r#", "shift": 3.0"#).unwrap();
        let table = Table::new(&schedule, Sampler::Heun, SigmaSchedule::Model, 4).unwrap();
        let (first, last) = (table.rows[0], table.rows[6]);
        assert_eq!((table.rows.len(), table.history, table.init_noise_scale), (7, 1, 1.0));
        assert_eq!((first.timestep, first.signal, first.sigma), (1000.0, 0.0, 1.0));
        // x − σ · v is the picture.
        assert_eq!((last.next_x, last.next_m), (1.0, -last.sigma));
    }
}
