//! The samplers' names, and what each makes of a configuration.

use std::str::FromStr;

use super::levels::{self, Level, Rounding};
use super::samplers::{
    consistency, ddim, ddpm, deis, dpm_single, dpm_solver, dpm2, euler, flow, heun, lms, plms, score, unipc,
};
use super::schedule::{NoiseSchedule, ScheduleConfig, Spacing, invalid, unknown};
use super::score::Sde;
use super::sigmas::SigmaSchedule;
use super::table::Row;
use crate::error::{Error, Result};

/// A way from noise to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020, arXiv:2006.11239; diffusers' `DDPMScheduler`).
    Ddpm,
    /// Song et al. 2021, arXiv:2010.02502; diffusers' `DDIMScheduler`. `eta` from
    /// 0 (deterministic) to 1 (as much fresh noise as DDPM).
    Ddim { eta: f64 },
    /// Euler steps of the probability-flow ODE (Karras et al. 2022,
    /// arXiv:2206.00364; diffusers' `EulerDiscreteScheduler`).
    Euler,
    /// Euler with fresh noise (k-diffusion; diffusers' `EulerAncestralDiscreteScheduler`).
    EulerAncestral,
    /// Karras et al. 2022, algorithm 1: two model calls a step, one for the last
    /// (diffusers' `HeunDiscreteScheduler`).
    Heun,
    /// Second-order multistep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095,
    /// algorithm 2; diffusers' `DPMSolverMultistepScheduler`, midpoint).
    DpmPlusPlus2M,
    /// The same with fresh noise (`sde-dpmsolver++`).
    DpmPlusPlus2MSde,
    /// Third-order multistep DPM-Solver++.
    DpmPlusPlus3M,
    /// The same with fresh noise. As k-diffusion's `dpmpp_3m_sde`; diffusers has the sign of a
    /// third-order coefficient wrong (`sde-dpmsolver++`, the ½ of D2).
    DpmPlusPlus3MSde,
    /// Singlestep second-order DPM-Solver++ with fresh noise (k-diffusion): two model calls a step.
    DpmPlusPlus2SAncestral,
    /// Singlestep second-order SDE solver: two model calls a step (diffusers' `DPMSolverSDEScheduler`,
    /// with other random numbers: noise is drawn in order, not from a tree).
    DpmPlusPlusSde,
    /// Second-order DPM-Solver in sigma space: two model calls a step (diffusers' `KDPM2DiscreteScheduler`).
    Dpm2,
    /// The same with fresh noise (diffusers' `KDPM2AncestralDiscreteScheduler`).
    Dpm2Ancestral,
    /// Linear multistep of order 4 (diffusers' `LMSDiscreteScheduler`).
    Lms,
    /// Pseudo linear multistep (diffusers' `PNDMScheduler` with `skip_prk_steps`): one model call more than steps.
    Plms,
    /// Predictor-corrector of an order from 1 to 3 (diffusers' `UniPCMultistepScheduler`).
    UniPc { order: usize },
    /// Exponential integrator of an order from 1 to 3 (diffusers' `DEISMultistepScheduler`).
    Deis { order: usize },
    /// For latent consistency models (diffusers' `LCMScheduler`).
    Lcm,
    /// For models of trajectory consistency (diffusers' `TCDScheduler`). `gamma` from 0 (deterministic) to 1.
    Tcd { gamma: f64 },
    /// For score models: steps along the reverse SDE (Song et al. 2021, arXiv:2011.13456; Euler–Maruyama, as
    /// diffusers' `ScoreSdeVpScheduler`). `Euler` and `Heun` follow the ODE of the same probabilities.
    ReverseSde,
    /// The same with corrections by Langevin dynamics before each step (predictor-corrector; diffusers'
    /// `ScoreSdeVeScheduler`): model calls as many times more.
    Pc,
}

/// Order of UniPC and DEIS that nobody chose.
const ORDER: usize = 2;
/// γ of TCD that nobody chose.
const GAMMA: f64 = 0.3;

impl Sampler {
    /// All of them, with the parameters that they have unless asked otherwise.
    pub const ALL: &[Self] = &[
        Self::Ddpm,
        Self::Ddim { eta: 0.0 },
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::DpmPlusPlus2M,
        Self::DpmPlusPlus2MSde,
        Self::DpmPlusPlus3M,
        Self::DpmPlusPlus3MSde,
        Self::DpmPlusPlus2SAncestral,
        Self::DpmPlusPlusSde,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Lms,
        Self::Plms,
        Self::UniPc { order: ORDER },
        Self::Deis { order: ORDER },
        Self::Lcm,
        Self::Tcd { gamma: GAMMA },
        Self::ReverseSde,
        Self::Pc,
    ];

    /// The name without parameters, as the command line has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim { .. } => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-a",
            Self::Heun => "heun",
            Self::DpmPlusPlus2M => "dpm++2m",
            Self::DpmPlusPlus2MSde => "dpm++2m-sde",
            Self::DpmPlusPlus3M => "dpm++3m",
            Self::DpmPlusPlus3MSde => "dpm++3m-sde",
            Self::DpmPlusPlus2SAncestral => "dpm++2s-a",
            Self::DpmPlusPlusSde => "dpm++sde",
            Self::Dpm2 => "dpm2",
            Self::Dpm2Ancestral => "dpm2-a",
            Self::Lms => "lms",
            Self::Plms => "plms",
            Self::UniPc { .. } => "unipc",
            Self::Deis { .. } => "deis",
            Self::Lcm => "lcm",
            Self::Tcd { .. } => "tcd",
            Self::ReverseSde => "reverse-sde",
            Self::Pc => "pc",
        }
    }

    /// The sampler of the diffusers class that wrote a configuration, `None` if it names no class.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a class that is not here, [`Error::Invalid`] for a setting of one that is.
    pub fn of_config(config: &ScheduleConfig) -> Result<Option<Self>> {
        let Some(class) = config.class_name.as_deref() else { return Ok(None) };
        Ok(Some(match class {
            "DDPMScheduler" => Self::Ddpm,
            "DDIMScheduler" => Self::Ddim { eta: 0.0 },
            "EulerDiscreteScheduler" | "FlowMatchEulerDiscreteScheduler" => Self::Euler,
            "EulerAncestralDiscreteScheduler" => Self::EulerAncestral,
            "HeunDiscreteScheduler" | "FlowMatchHeunDiscreteScheduler" => Self::Heun,
            "DPMSolverMultistepScheduler" => {
                let algorithm = config.algorithm_type.as_deref().unwrap_or("dpmsolver++");
                match (algorithm, config.solver_order.unwrap_or(2)) {
                    ("dpmsolver++", 2) => Self::DpmPlusPlus2M,
                    ("dpmsolver++", 3) => Self::DpmPlusPlus3M,
                    ("sde-dpmsolver++", 2) => Self::DpmPlusPlus2MSde,
                    ("sde-dpmsolver++", 3) => Self::DpmPlusPlus3MSde,
                    ("dpmsolver++" | "sde-dpmsolver++", order) => {
                        return Err(invalid("solver_order", "2 or 3", order));
                    }
                    (found, _) => {
                        return Err(invalid("algorithm_type", "dpmsolver++ or sde-dpmsolver++", found));
                    }
                }
            }
            "DPMSolverSDEScheduler" => Self::DpmPlusPlusSde,
            "KDPM2DiscreteScheduler" => Self::Dpm2,
            "KDPM2AncestralDiscreteScheduler" => Self::Dpm2Ancestral,
            "LMSDiscreteScheduler" => Self::Lms,
            "PNDMScheduler" => match config.skip_prk_steps {
                Some(true) => Self::Plms,
                _ => return Err(invalid("skip_prk_steps", "true", false)),
            },
            "UniPCMultistepScheduler" => match config.predict_x0 {
                Some(false) => return Err(invalid("predict_x0", "true", false)),
                _ => Self::UniPc { order: config.solver_order.unwrap_or(ORDER) },
            },
            "DEISMultistepScheduler" => Self::Deis { order: config.solver_order.unwrap_or(ORDER) },
            "LCMScheduler" => Self::Lcm,
            "TCDScheduler" => Self::Tcd { gamma: GAMMA },
            "ScoreSdeVeScheduler" => match config.score.correct_steps {
                Some(0) => Self::ReverseSde,
                _ => Self::Pc,
            },
            "ScoreSdeVpScheduler" => Self::ReverseSde,
            _ => {
                let known = "DDPM, DDIM, PNDM, LMSDiscrete, EulerDiscrete, EulerAncestralDiscrete, \
                             HeunDiscrete, KDPM2Discrete, KDPM2AncestralDiscrete, DPMSolverMultistep, \
                             DPMSolverSDE, UniPCMultistep, DEISMultistep, LCM, TCD, \
                             FlowMatchEulerDiscrete, FlowMatchHeunDiscrete, ScoreSdeVe, ScoreSdeVp (each …Scheduler)";
                return Err(unknown("_class_name of a scheduler", class, known));
            }
        }))
    }

    /// Model calls in each step but the last.
    pub(super) fn calls_per_step(self, schedule: &NoiseSchedule) -> usize {
        match self {
            Self::Pc => 1 + schedule.score.as_ref().map_or(0, |score| score.correct_steps),
            Self::Heun
            | Self::Dpm2
            | Self::Dpm2Ancestral
            | Self::DpmPlusPlus2SAncestral
            | Self::DpmPlusPlusSde => 2,
            _ => 1,
        }
    }

    /// Whether the latent is kept with its picture unscaled, and so grows with the noise.
    const fn is_unscaled(self) -> bool {
        matches!(
            self,
            Self::Euler
                | Self::EulerAncestral
                | Self::Heun
                | Self::Dpm2
                | Self::Dpm2Ancestral
                | Self::DpmPlusPlus2SAncestral
                | Self::DpmPlusPlusSde
                | Self::Lms
        )
    }

    /// Standard deviation of the latent that a run from nothing starts with.
    pub(super) fn init_noise_scale(self, schedule: &NoiseSchedule, first: &Row) -> f64 {
        if let Some(score) = &schedule.score {
            return match score.sde {
                Sde::Exploding { .. } => first.sigma,
                // Unit noise, where the latent is scaled so that its picture is not.
                Sde::Preserving { .. } if self.is_unscaled() => first.sigma.hypot(1.0),
                Sde::Preserving { .. } => 1.0,
            };
        }
        match self.spacing(schedule) {
            _ if !self.is_unscaled() || schedule.flow.is_some() => 1.0,
            Spacing::Linspace | Spacing::Trailing => first.sigma,
            // diffusers counts the unit variance of the picture in here.
            Spacing::Leading => first.sigma.hypot(1.0),
        }
    }

    /// What the diffusers class does when the configuration is silent.
    const fn default_spacing(self) -> Spacing {
        match self {
            Self::Ddpm | Self::Ddim { .. } | Self::Plms => Spacing::Leading,
            _ => Spacing::Linspace,
        }
    }

    fn spacing(self, schedule: &NoiseSchedule) -> Spacing {
        schedule.spacing.unwrap_or(self.default_spacing())
    }

    /// Half-width of the range that x0 is clamped to, 0 for none. Only few of
    /// the diffusers classes clip at all; the others ignore the key.
    fn clip(self, schedule: &NoiseSchedule) -> f64 {
        let clips = match self {
            Self::Ddpm | Self::Ddim { .. } => schedule.clip_sample.unwrap_or(true),
            Self::Heun | Self::Lcm => schedule.clip_sample.unwrap_or(false),
            _ => false,
        };
        if clips { schedule.clip_range } else { 0.0 }
    }

    /// The rows of a run from step `begin` on; `draw` is left for the table to fill in.
    pub(super) fn rows(
        self,
        schedule: &NoiseSchedule,
        sigmas: &SigmaSchedule,
        steps: usize,
        begin: usize,
    ) -> Result<Vec<Row>> {
        if let Some(flow) = &schedule.flow {
            return flow::rows(flow, self, sigmas, steps, begin);
        }
        if let Some(of_score) = &schedule.score {
            sigmas.check(schedule)?;
            return score::rows(of_score, self, sigmas, steps, begin);
        }
        let spacing = self.spacing(schedule);
        let prediction = schedule.prediction;
        sigmas.check(schedule)?;
        let of_euler = |end| {
            // KDPM2 alone has whole timesteps there.
            let rounding = match self {
                Self::Dpm2 | Self::Dpm2Ancestral => Rounding::Karras,
                _ => Rounding::Keep,
            };
            levels::of_sigma_samplers(schedule, spacing, sigmas, rounding, steps, end)
        };
        let of_solvers = |rounding, lambda_min, end| -> Result<Vec<Level>> {
            let mut levels = levels::of_solvers(schedule, spacing, sigmas, rounding, steps, lambda_min)?;
            levels.push(Level::preserving(0.0, end));
            Ok(levels)
        };
        let mut rows = match self {
            Self::Ddpm => ddpm::rows(schedule, &self.whole_timesteps(schedule, sigmas, steps)?, begin)?,
            Self::Ddim { eta } => {
                let stride = match sigmas {
                    // diffusers steps by a whole number of timesteps, whatever their spacing.
                    SigmaSchedule::Model => Some(schedule.num_train_timesteps() / steps.max(1)),
                    _ => None,
                };
                ddim::rows(schedule, &self.whole_timesteps(schedule, sigmas, steps)?, stride, begin, eta)?
            }
            // Alone of these, EulerDiscreteScheduler knows another end than 0.
            Self::Euler => euler::rows(prediction, &of_euler(levels::final_sigma(schedule))?, begin),
            Self::EulerAncestral => euler::ancestral_rows(prediction, &of_euler(0.0)?, begin),
            Self::Heun => heun::rows(prediction, &of_euler(0.0)?, begin),
            Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde | Self::DpmPlusPlus3M | Self::DpmPlusPlus3MSde => {
                let end = levels::final_sigma(schedule);
                let levels = of_solvers(Rounding::WholeUnlessCosine, schedule.lambda_min, end)?;
                let order = if matches!(self, Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde) { 2 } else { 3 };
                let sde = matches!(self, Self::DpmPlusPlus2MSde | Self::DpmPlusPlus3MSde);
                dpm_solver::rows(schedule, &levels, begin, order, sde)
            }
            Self::DpmPlusPlus2SAncestral => dpm_single::ancestral_rows(schedule, &of_euler(0.0)?, begin),
            Self::DpmPlusPlusSde => dpm_single::sde_rows(schedule, &of_euler(0.0)?, begin),
            Self::Dpm2 => dpm2::rows(schedule, &of_euler(0.0)?, begin, false),
            Self::Dpm2Ancestral => dpm2::rows(schedule, &of_euler(0.0)?, begin, true),
            Self::Lms => lms::rows(prediction, &of_euler(0.0)?, begin),
            Self::Plms => {
                self.on_own_sigmas(sigmas)?;
                let timesteps = plms::timesteps(self.whole_timesteps(schedule, sigmas, steps)?);
                plms::rows(schedule, &timesteps, steps, begin)?
            }
            Self::UniPc { order } | Self::Deis { order } if !(1..=3).contains(&order) => {
                return Err(invalid(format!("order of the sampler {}", self.name()), "1 to 3", order));
            }
            Self::UniPc { order } => {
                let end = levels::final_sigma(schedule);
                unipc::rows(schedule, &of_solvers(Rounding::Whole, f64::NEG_INFINITY, end)?, begin, order)
            }
            Self::Deis { order } => {
                // Never runs to the clean picture, where log ρ ends.
                let end = schedule.sigmas()[0];
                deis::rows(schedule, &of_solvers(Rounding::Whole, f64::NEG_INFINITY, end)?, begin, order)
            }
            Self::Lcm => {
                self.on_own_sigmas(sigmas)?;
                consistency::lcm_rows(schedule, &consistency::timesteps(schedule, steps)?, begin)
            }
            Self::Tcd { gamma } => {
                self.on_own_sigmas(sigmas)?;
                consistency::tcd_rows(schedule, &consistency::timesteps(schedule, steps)?, begin, gamma)?
            }
            Self::ReverseSde | Self::Pc => {
                let expected = "that of a score model (ScoreSdeVeScheduler, ScoreSdeVpScheduler)";
                return Err(invalid(format!("schedule of the sampler {}", self.name()), expected, "another"));
            }
        };
        let clip = self.clip(schedule);
        rows.iter_mut().for_each(|row| row.clip = clip);
        Ok(rows)
    }

    /// The timesteps of samplers that index the trained ones.
    fn whole_timesteps(
        self,
        schedule: &NoiseSchedule,
        sigmas: &SigmaSchedule,
        steps: usize,
    ) -> Result<Vec<f64>> {
        // Also checks the number of steps, whatever the timesteps.
        let mut timesteps = schedule.timesteps(self.spacing(schedule), steps)?;
        if *sigmas != SigmaSchedule::Model {
            let of_schedule = sigmas.timesteps(schedule.num_train_timesteps(), steps);
            timesteps = of_schedule.ok_or_else(|| {
                let what = format!("sigma schedule of the sampler {}", self.name());
                invalid(what, "model, sgm-uniform, simple or timesteps:…", sigmas)
            })?;
        }
        Ok(timesteps.iter().map(|t| t.round_ties_even()).collect())
    }

    /// Refuses other noise levels than the model's.
    pub(super) fn on_own_sigmas(self, sigmas: &SigmaSchedule) -> Result<()> {
        match sigmas {
            SigmaSchedule::Model => Ok(()),
            _ => Err(invalid(format!("sigma schedule of the sampler {}", self.name()), "model", sigmas)),
        }
    }

    fn names() -> String {
        let names: Vec<&str> = Self::ALL.iter().map(|sampler| sampler.name()).collect();
        names.join(", ")
    }
}

impl FromStr for Sampler {
    type Err = Error;

    /// A [name](Self::name); some may carry a number, as in `ddim:0.5`, `tcd:0.2`, `unipc:3`, `deis:3`.
    fn from_str(text: &str) -> Result<Self> {
        let Some((name, number)) = text.split_once(':') else { return Self::named(text) };
        let wrong = |expected: &str| invalid(format!("number of the sampler {name}"), expected, number);
        let share = || number.parse().map_err(|_| wrong("a number from 0 to 1"));
        let order = || number.parse().map_err(|_| wrong("1, 2 or 3"));
        Ok(match Self::named(name)? {
            Self::Ddim { .. } => Self::Ddim { eta: share()? },
            Self::Tcd { .. } => Self::Tcd { gamma: share()? },
            Self::UniPc { .. } => Self::UniPc { order: order()? },
            Self::Deis { .. } => Self::Deis { order: order()? },
            _ => return Err(wrong("none")),
        })
    }
}

impl Sampler {
    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|sampler| sampler.name() == name);
        found.copied().ok_or_else(|| unknown("sampler", name, &Self::names()))
    }
}

impl std::fmt::Display for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ddim { eta } if *eta != 0.0 => f.pad(&format!("ddim:{eta}")),
            Self::Tcd { gamma } if *gamma != GAMMA => f.pad(&format!("tcd:{gamma}")),
            Self::UniPc { order } | Self::Deis { order } if *order != ORDER => {
                f.pad(&format!("{}:{order}", self.name()))
            }
            _ => f.pad(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() {
        for sampler in Sampler::ALL.iter().copied().chain([
            Sampler::Ddim { eta: 0.25 },
            Sampler::Tcd { gamma: 0.0 },
            Sampler::UniPc { order: 3 },
            Sampler::Deis { order: 1 },
        ]) {
            assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), sampler);
        }
        let error = "odd".parse::<Sampler>().unwrap_err().to_string();
        assert!(error.contains("ddpm, ddim, euler, euler-a, heun, dpm++2m"), "{error}");
    }
}
