//! Samplers: each writes its coefficients, in f64, as rows of a table.
//!
//! Notation: a latent is `signal` · x0 + `sigma` · noise. The DDPM, DDIM and
//! DPM-Solver++ samplers keep it variance preserving (signal² + sigma² = 1), the
//! others at signal 1, as diffusers does, so latents can be compared step by step.

use std::str::FromStr;

use super::schedule::{
    BetaSchedule, FinalSigma, NoiseSchedule, Prediction, ScheduleConfig, SigmaSchedule, Spacing, TINY_ALPHA,
    Variance, interpolate, invalid, timestep_of, unknown,
};
use super::table::{MAX_HISTORY, Row};
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
}

impl Sampler {
    /// All of them, DDIM at eta 0.
    pub const ALL: [Self; 6] = [
        Self::Ddpm,
        Self::Ddim { eta: 0.0 },
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::DpmPlusPlus2M,
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
        }
    }

    /// The sampler of the diffusers class that wrote a configuration; `None` if
    /// it says none or one that is not here (PNDM, UniPC, other DPM-Solvers …).
    #[must_use]
    pub fn of_config(config: &ScheduleConfig) -> Option<Self> {
        Some(match config.class_name.as_deref()? {
            "DDPMScheduler" => Self::Ddpm,
            "DDIMScheduler" => Self::Ddim { eta: 0.0 },
            "EulerDiscreteScheduler" => Self::Euler,
            "EulerAncestralDiscreteScheduler" => Self::EulerAncestral,
            "HeunDiscreteScheduler" => Self::Heun,
            "DPMSolverMultistepScheduler"
                if config.algorithm_type.as_deref().unwrap_or("dpmsolver++") == "dpmsolver++"
                    && config.solver_type.as_deref().unwrap_or("midpoint") == "midpoint"
                    && config.solver_order.unwrap_or(2) == 2 =>
            {
                Self::DpmPlusPlus2M
            }
            _ => return None,
        })
    }

    /// Model calls in each step but the last.
    pub(crate) const fn calls_per_step(self) -> usize {
        match self {
            Self::Heun => 2,
            _ => 1,
        }
    }

    /// Standard deviation of the latent that a run from nothing starts with.
    pub(super) fn init_noise_scale(self, schedule: &NoiseSchedule, first: &Row) -> f64 {
        match self {
            Self::Ddpm | Self::Ddim { .. } | Self::DpmPlusPlus2M => 1.0,
            Self::Euler | Self::EulerAncestral | Self::Heun => match self.spacing(schedule) {
                Spacing::Linspace | Spacing::Trailing => first.sigma,
                // diffusers counts the unit variance of the picture in here.
                Spacing::Leading => first.sigma.hypot(1.0),
            },
        }
    }

    /// What the diffusers class does when the configuration is silent.
    const fn default_spacing(self) -> Spacing {
        match self {
            Self::Ddpm | Self::Ddim { .. } => Spacing::Leading,
            _ => Spacing::Linspace,
        }
    }

    /// Half-width of the range that x0 is clamped to, 0 for none. Only three of
    /// the diffusers classes clip at all; the others ignore the key.
    fn clip(self, schedule: &NoiseSchedule) -> f64 {
        let clips = match self {
            Self::Ddpm | Self::Ddim { .. } => schedule.clip_sample.unwrap_or(true),
            Self::Heun => schedule.clip_sample.unwrap_or(false),
            Self::Euler | Self::EulerAncestral | Self::DpmPlusPlus2M => false,
        };
        if clips { schedule.clip_range } else { 0.0 }
    }

    /// The rows of a run; `draw` is left for the table to fill in.
    pub(super) fn rows(
        self,
        schedule: &NoiseSchedule,
        sigmas: SigmaSchedule,
        steps: usize,
    ) -> Result<Vec<Row>> {
        let mut rows = match self {
            Self::Ddpm | Self::Ddim { .. } if sigmas != SigmaSchedule::Model => {
                let what = format!("sigma schedule of the sampler {}", self.name());
                return Err(invalid(what, "model", sigmas));
            }
            Self::Ddpm => ddpm(schedule, steps)?,
            Self::Ddim { eta } => ddim(schedule, eta, steps)?,
            Self::Euler => euler(schedule, &self.sigma_levels(schedule, sigmas, steps)?),
            Self::EulerAncestral => euler_ancestral(schedule, &self.sigma_levels(schedule, sigmas, steps)?),
            Self::Heun => heun(schedule, &self.sigma_levels(schedule, sigmas, steps)?),
            Self::DpmPlusPlus2M => dpm_plus_plus_2m(schedule, &self.solver_levels(schedule, sigmas, steps)?),
        };
        let clip = self.clip(schedule);
        rows.iter_mut().for_each(|row| row.clip = clip);
        Ok(rows)
    }

    fn spacing(self, schedule: &NoiseSchedule) -> Spacing {
        schedule.spacing.unwrap_or(self.default_spacing())
    }

    /// Noise levels of the sigma-space samplers: Karras and exponential ones lie
    /// between the first and the last of the model's at the chosen timesteps.
    fn sigma_levels(
        self,
        schedule: &NoiseSchedule,
        sigmas: SigmaSchedule,
        steps: usize,
    ) -> Result<Vec<Level>> {
        let trained = schedule.sigmas();
        let mut levels: Vec<Level> = schedule
            .timesteps(self.spacing(schedule), steps)?
            .into_iter()
            .map(|timestep| Level { timestep, sigma: interpolate(&trained, timestep) })
            .collect();
        if sigmas != SigmaSchedule::Model {
            let (first, last) = (levels[0].sigma, levels[steps - 1].sigma);
            levels = sigmas
                .between(first, last, steps)
                .into_iter()
                .map(|sigma| Level { timestep: timestep_of(&trained, sigma), sigma })
                .collect();
        }
        // Only EulerDiscreteScheduler knows another end than 0.
        let end = match self {
            Self::Euler => final_sigma(schedule, &trained),
            _ => 0.0,
        };
        levels.push(Level::end(end));
        Ok(levels)
    }

    /// Noise levels of DPM-Solver++: whole timesteps, and Karras and exponential
    /// levels lie between the ends of all that the model was trained on.
    fn solver_levels(
        self,
        schedule: &NoiseSchedule,
        sigmas: SigmaSchedule,
        steps: usize,
    ) -> Result<Vec<Level>> {
        let trained = schedule.sigmas();
        // Also checks the number of steps, whatever the levels.
        let timesteps = schedule.solver_timesteps(self.spacing(schedule), steps)?;
        let mut levels: Vec<Level> = match sigmas {
            SigmaSchedule::Model => timesteps
                .into_iter()
                .map(|timestep| Level { timestep, sigma: interpolate(&trained, timestep) })
                .collect(),
            SigmaSchedule::Karras | SigmaSchedule::Exponential => sigmas
                .between(trained[trained.len() - 1], trained[0], steps)
                .into_iter()
                .map(|sigma| {
                    let timestep = timestep_of(&trained, sigma);
                    let rounds =
                        sigmas == SigmaSchedule::Karras && schedule.betas != BetaSchedule::SquaredCosine;
                    let timestep = if rounds {
                        timestep.round_ties_even()
                    } else {
                        // diffusers cuts these off. The slack is for a whole timestep
                        // missed by the rounding of a logarithm, at which diffusers
                        // in float32 lands one too low at times.
                        (timestep + 1e-6).floor()
                    };
                    Level { timestep, sigma }
                })
                .collect(),
        };
        levels.push(Level::end(final_sigma(schedule, &trained)));
        Ok(levels)
    }
}

impl FromStr for Sampler {
    type Err = Error;

    /// A [name](Self::name); DDIM may carry its eta, as in `ddim:0.5`.
    fn from_str(name: &str) -> Result<Self> {
        if let Some(number) = name.strip_prefix("ddim:") {
            let eta = number
                .parse()
                .map_err(|_| invalid("eta of the sampler ddim", "a number from 0 to 1", number))?;
            return Ok(Self::Ddim { eta });
        }
        let found = Self::ALL.into_iter().find(|sampler| sampler.name() == name);
        found.ok_or_else(|| unknown("sampler", name, &Self::ALL.map(Self::name).join(", ")))
    }
}

impl std::fmt::Display for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ddim { eta } if *eta != 0.0 => f.pad(&format!("ddim:{eta}")),
            _ => f.pad(self.name()),
        }
    }
}

/// A point of the noise schedule in sigma space.
#[derive(Clone, Copy)]
struct Level {
    timestep: f64,
    sigma: f64,
}

impl Level {
    /// Where the run ends; the model is never called there.
    fn end(sigma: f64) -> Self {
        Self { timestep: 0.0, sigma }
    }

    /// √ᾱ: the factor from signal 1 to the variance-preserving latent.
    fn scale(self) -> f64 {
        1.0 / (self.sigma * self.sigma + 1.0).sqrt()
    }
}

fn final_sigma(schedule: &NoiseSchedule, trained: &[f64]) -> f64 {
    match schedule.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::Min => trained[0],
    }
}

/// A row of a variance-preserving sampler with its x0 filled in.
fn preserving(prediction: Prediction, timestep: f64, signal: f64, sigma: f64) -> Row {
    let (x0_x, x0_m) = match prediction {
        Prediction::Epsilon => (1.0 / signal, -sigma / signal),
        Prediction::Sample => (0.0, 1.0),
        Prediction::V => (signal, -sigma),
    };
    Row { timestep, in_scale: 1.0, x0_x, x0_m, signal, sigma, ..Row::default() }
}

/// A row of a sigma-space sampler with its x0 filled in: the model sees the
/// latent scaled back to unit variance.
fn exploding(prediction: Prediction, level: Level) -> Row {
    let scale = level.scale();
    let row = preserving(prediction, level.timestep, scale, level.sigma * scale);
    Row { in_scale: scale, x0_x: row.x0_x * scale, signal: 1.0, sigma: level.sigma, ..row }
}

/// ᾱ at a whole timestep. Epsilon says nothing about x0 where no signal is
/// left, so there (and only there) a trace of it is assumed.
fn alpha_at(schedule: &NoiseSchedule, timestep: f64) -> f64 {
    let alpha = schedule.alphas_cumprod[timestep as usize];
    if alpha == 0.0 && schedule.prediction == Prediction::Epsilon { TINY_ALPHA } else { alpha }
}

/// The timesteps of DDPM and DDIM, which index the trained ones.
fn whole_timesteps(schedule: &NoiseSchedule, sampler: Sampler, steps: usize) -> Result<Vec<f64>> {
    let timesteps = schedule.timesteps(sampler.spacing(schedule), steps)?;
    Ok(timesteps.iter().map(|t| t.round_ties_even()).collect())
}

/// Ho et al. 2020, eq. 6 and 7, between any two timesteps.
fn ddpm(schedule: &NoiseSchedule, steps: usize) -> Result<Vec<Row>> {
    /// diffusers' floor under the variance: the last step's is 0.
    const NO_VARIANCE: f64 = 1e-20;
    if schedule.variance == Variance::Learned {
        return Err(invalid(
            "variance_type of the sampler ddpm",
            "fixed_small or fixed_large (other samplers need no variance)",
            "learned",
        ));
    }
    let timesteps = whole_timesteps(schedule, Sampler::Ddpm, steps)?;
    let row = |(i, &t): (usize, &f64)| {
        let alpha = alpha_at(schedule, t);
        let next = timesteps.get(i + 1).map_or(1.0, |t| alpha_at(schedule, *t));
        let step_alpha = alpha / next;
        let step_beta = 1.0 - step_alpha;
        let variance = match schedule.variance {
            Variance::Large => step_beta,
            Variance::Small | Variance::Learned => (1.0 - next) / (1.0 - alpha) * step_beta,
        };
        Row {
            next_x: step_alpha.sqrt() * (1.0 - next) / (1.0 - alpha),
            next_x0: next.sqrt() * step_beta / (1.0 - alpha),
            noise: if t > 0.0 && variance > NO_VARIANCE { variance.sqrt() } else { 0.0 },
            ..preserving(schedule.prediction, t, alpha.sqrt(), (1.0 - alpha).sqrt())
        }
    };
    Ok(timesteps.iter().enumerate().map(row).collect())
}

/// Song et al. 2021, eq. 12 and 16. Clipping changes x0 alone: the direction
/// that points to the next latent keeps the epsilon of the model.
fn ddim(schedule: &NoiseSchedule, eta: f64, steps: usize) -> Result<Vec<Row>> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(invalid("eta of the sampler ddim", "a number from 0 to 1", eta));
    }
    let timesteps = whole_timesteps(schedule, Sampler::Ddim { eta }, steps)?;
    // diffusers steps by a whole number of timesteps, whatever their spacing.
    let stride = (schedule.num_train_timesteps() / steps) as f64;
    let row = |&t: &f64| {
        let alpha = alpha_at(schedule, t);
        let next = if t >= stride {
            alpha_at(schedule, t - stride)
        } else if schedule.set_alpha_to_one {
            1.0
        } else {
            schedule.alphas_cumprod[0]
        };
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
        let noise = eta * variance.max(0.0).sqrt();
        // Rounding can leave this a hair below 0.
        let direction = (1.0 - next - noise * noise).max(0.0).sqrt();
        let (epsilon_x, epsilon_m) = match schedule.prediction {
            Prediction::Epsilon => (0.0, 1.0),
            Prediction::Sample => (1.0 / sigma, -signal / sigma),
            Prediction::V => (sigma, signal),
        };
        Row {
            next_x: direction * epsilon_x,
            next_x0: next.sqrt(),
            next_m: direction * epsilon_m,
            noise,
            ..preserving(schedule.prediction, t, signal, sigma)
        }
    };
    Ok(timesteps.iter().map(row).collect())
}

/// x' = x + (x − x0) / σ · (σ' − σ), sorted by x and x0.
fn euler_step(row: Row, from: f64, to: f64) -> Row {
    Row { next_x: to / from, next_x0: 1.0 - to / from, ..row }
}

fn euler(schedule: &NoiseSchedule, levels: &[Level]) -> Vec<Row> {
    let step =
        |[from, to]: &[Level; 2]| euler_step(exploding(schedule.prediction, *from), from.sigma, to.sigma);
    levels.array_windows().map(step).collect()
}

/// An Euler step past σ', and noise to come back to it:
/// σ_down² + σ_up² = σ'², σ_down = σ'² / σ (k-diffusion's `get_ancestral_step`, eta 1).
fn euler_ancestral(schedule: &NoiseSchedule, levels: &[Level]) -> Vec<Row> {
    let step = |[from, to]: &[Level; 2]| {
        let down = to.sigma * to.sigma / from.sigma;
        let row = exploding(schedule.prediction, *from);
        Row {
            noise: (to.sigma * to.sigma - down * down).max(0.0).sqrt(),
            ..euler_step(row, from.sigma, down)
        }
    };
    levels.array_windows().map(step).collect()
}

/// An Euler step that remembers its slope d, then a second model call at its
/// end, whose slope d' corrects it: x'' = x' + (d' − d) / 2 · (σ' − σ).
fn heun(schedule: &NoiseSchedule, levels: &[Level]) -> Vec<Row> {
    let mut rows = Vec::with_capacity(2 * levels.len());
    for [from, to] in levels.array_windows() {
        let predictor = exploding(schedule.prediction, *from);
        let predictor = euler_step(predictor, from.sigma, to.sigma);
        if to.sigma == 0.0 {
            // No slope to be had at σ' = 0.
            rows.push(predictor);
            continue;
        }
        rows.push(Row { push: true, hist_x: 1.0 / from.sigma, hist_x0: -1.0 / from.sigma, ..predictor });
        let half = (to.sigma - from.sigma) / 2.0;
        rows.push(Row {
            next_x: 1.0 + half / to.sigma,
            next_x0: -half / to.sigma,
            next_h: newest(-half),
            ..exploding(schedule.prediction, *to)
        });
    }
    rows
}

/// Lu et al. 2022, algorithm 2, in the variance-preserving latent. With
/// k = σ / √ᾱ in place of λ = −log k, e^(−h) is k' / k, finite down to k' = 0.
fn dpm_plus_plus_2m(schedule: &NoiseSchedule, levels: &[Level]) -> Vec<Row> {
    /// Below this many steps diffusers' `lower_order_final` makes the last one first order.
    const FEW_STEPS: usize = 15;
    let steps = levels.len() - 1;
    let mut before: Option<Level> = None;
    let step = |(i, [from, to]): (usize, &[Level; 2])| {
        let (signal, next_signal) = (from.scale(), to.scale());
        let ratio = to.sigma / from.sigma;
        let gain = next_signal * (1.0 - ratio);
        let first_order = i + 1 == steps && (to.sigma == 0.0 || steps < FEW_STEPS);
        // 1 / (2 r): how far the line through the last two predictions of x0 is followed.
        let slope = match before.replace(*from) {
            Some(before) if !first_order && before.sigma != from.sigma => {
                -ratio.ln() / (before.sigma / from.sigma).ln() / 2.0
            }
            _ => 0.0,
        };
        Row {
            next_x: ratio * next_signal / signal,
            next_x0: gain * (1.0 + slope),
            next_h: newest(-gain * slope),
            push: true,
            hist_x0: 1.0,
            ..preserving(schedule.prediction, from.timestep, signal, from.sigma * signal)
        }
    };
    levels.array_windows().enumerate().map(step).collect()
}

/// Coefficients of a sampler that looks back at one entry of the history.
fn newest(coefficient: f64) -> [f64; MAX_HISTORY] {
    let mut history = [0.0; MAX_HISTORY];
    history[0] = coefficient;
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() {
        for sampler in Sampler::ALL.into_iter().chain([Sampler::Ddim { eta: 0.25 }]) {
            assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), sampler);
        }
        let error = "plms".parse::<Sampler>().unwrap_err().to_string();
        assert!(error.contains("ddpm, ddim, euler, euler-a, heun, dpm++2m"), "{error}");
    }
}
