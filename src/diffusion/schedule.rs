//! Noise schedules: how much signal is left at each training timestep, and at
//! which timesteps or noise levels a sampler calls the model.
//!
//! The forward process is x_t = √ᾱ_t · x0 + √(1 − ᾱ_t) · noise (Ho et al. 2020,
//! arXiv:2006.11239); its sigma is √((1 − ᾱ_t) / ᾱ_t), the noise level of the
//! same latent scaled to unit signal (Karras et al. 2022, arXiv:2206.00364).

use std::str::FromStr;

use serde::Deserialize;

use super::flow::{Flow, FlowConfig};
use super::score::{Score, ScoreConfig};
use super::sigmas::SigmaSchedule;
use crate::error::{Error, Result};

/// Most timesteps of a schedule; models are trained with a thousand.
const MAX_TIMESTEPS: usize = 1 << 20;

/// What stands in for ᾱ = 0 where a sampler divides by √ᾱ. It is diffusers'
/// choice for its sigma-space schedulers: the smallest positive f16.
pub(super) const TINY_ALPHA: f64 = 1.0 / (1 << 24) as f64;

/// What the model's output is a prediction of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The clean picture x0.
    Sample,
    /// v = √ᾱ · noise − √(1 − ᾱ) · x0 (Salimans & Ho 2022, arXiv:2202.00512).
    V,
    /// v = noise − x0, of flow models (Esser et al. 2024, arXiv:2403.03206).
    Flow,
    /// The gradient of log p(x), −noise over its level, of score models (Song et al. 2021, arXiv:2011.13456).
    Score,
}

impl FromStr for Prediction {
    type Err = Error;

    /// diffusers' names, and the short ones: `epsilon`/`eps`, `sample`/`x0`,
    /// `v_prediction`/`v`.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "epsilon" | "eps" => Ok(Self::Epsilon),
            "sample" | "x0" => Ok(Self::Sample),
            "v_prediction" | "v" => Ok(Self::V),
            _ => Err(unknown("prediction type", name, "epsilon, sample, v_prediction")),
        }
    }
}

/// How the noise grows over the training timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// β from start to end in even steps (DDPM).
    Linear,
    /// √β in even steps (latent diffusion).
    ScaledLinear,
    /// ᾱ follows cos² (Nichol & Dhariwal 2021, arXiv:2102.09672).
    SquaredCosine,
    /// β along a sigmoid (GeoDiff, Xu et al. 2022, arXiv:2203.02923).
    Sigmoid,
    /// β listed in the configuration.
    Trained,
}

/// How the sampler's timesteps are spread over the training ones
/// (Lin et al. 2023, arXiv:2305.08891, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Multiples of a whole step, from 0 (plus `steps_offset`): misses the last timestep.
    Leading,
    /// Evenly from the last timestep to 0.
    Linspace,
    /// A whole or broken step apart, from the last timestep: misses timestep 0.
    Trailing,
}

/// Variance of the noise that ancestral DDPM sampling adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// The posterior variance β̃ (`fixed_small`, `fixed_small_log`).
    Small,
    /// β itself (`fixed_large`, `fixed_large_log`).
    Large,
    /// Predicted by the model (`learned`, `learned_range`): refused by DDPM sampling.
    Learned,
}

/// Noise level after the last step of the sigma-space samplers and DPM-Solver++.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSigma {
    Zero,
    /// The lowest noise level that the model was trained on.
    Min,
}

/// The keys of a diffusers `scheduler_config.json` that matter here; a missing
/// key is `None`, an unknown one is ignored. Read it with
/// [`from_json`](Self::from_json).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    pub num_train_timesteps: Option<usize>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<String>,
    pub trained_betas: Option<Vec<f64>>,
    pub prediction_type: Option<String>,
    pub timestep_spacing: Option<String>,
    pub steps_offset: Option<usize>,
    pub rescale_betas_zero_snr: Option<bool>,
    pub set_alpha_to_one: Option<bool>,
    pub clip_sample: Option<bool>,
    pub clip_sample_range: Option<f64>,
    pub thresholding: Option<bool>,
    pub variance_type: Option<String>,
    pub final_sigmas_type: Option<String>,
    pub lambda_min_clipped: Option<f64>,
    pub interpolation_type: Option<String>,
    pub timestep_type: Option<String>,
    pub algorithm_type: Option<String>,
    pub solver_order: Option<usize>,
    pub solver_type: Option<String>,
    pub lower_order_final: Option<bool>,
    pub euler_at_final: Option<bool>,
    pub predict_x0: Option<bool>,
    pub disable_corrector: Option<Vec<usize>>,
    pub original_inference_steps: Option<usize>,
    pub timestep_scaling: Option<f64>,
    pub skip_prk_steps: Option<bool>,
    pub use_karras_sigmas: Option<bool>,
    pub use_exponential_sigmas: Option<bool>,
    pub use_beta_sigmas: Option<bool>,
    pub use_lu_lambdas: Option<bool>,
    pub use_flow_sigmas: Option<bool>,
    #[serde(flatten)]
    pub flow: FlowConfig,
    #[serde(flatten)]
    pub score: ScoreConfig,
}

impl ScheduleConfig {
    /// Reads the text of a `scheduler_config.json`.
    ///
    /// Python writes `-Infinity`, which is not JSON: it is read as a missing
    /// key. Keys listed under `_use_default_values` were never chosen by
    /// anyone, so they count as missing too, as in diffusers: the defaults of
    /// the sampler that will run apply, not those of the class that wrote the
    /// file.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the text is not JSON or a key has a wrong type.
    pub fn from_json(text: &str) -> Result<Self> {
        let wrong =
            |e: serde_json::Error| invalid("scheduler config", "a diffusers scheduler_config.json", e);
        let mut keys: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&null_for_non_finite(text)).map_err(wrong)?;
        if let Some(serde_json::Value::Array(defaulted)) = keys.remove("_use_default_values") {
            for key in defaulted.iter().filter_map(serde_json::Value::as_str) {
                keys.remove(key);
            }
        }
        serde_json::from_value(keys.into()).map_err(wrong)
    }

    /// The schedule of Stable Diffusion 1 and XL, for checkpoints that carry no
    /// configuration.
    #[must_use]
    pub fn stable_diffusion() -> Self {
        Self {
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some("scaled_linear".into()),
            steps_offset: Some(1),
            set_alpha_to_one: Some(false),
            clip_sample: Some(false),
            ..Self::default()
        }
    }

    /// The sigma schedule that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for Lu and flow schedules, which are not here.
    pub fn sigma_schedule(&self) -> Result<SigmaSchedule> {
        for (key, value) in
            [("use_lu_lambdas", self.use_lu_lambdas), ("use_flow_sigmas", self.use_flow_sigmas)]
        {
            if value == Some(true) {
                return Err(invalid(key, "false", true));
            }
        }
        Ok(if self.use_karras_sigmas == Some(true) {
            SigmaSchedule::Karras
        } else if self.use_exponential_sigmas == Some(true) {
            SigmaSchedule::Exponential
        } else if self.use_beta_sigmas == Some(true) {
            SigmaSchedule::Beta
        } else {
            SigmaSchedule::Model
        })
    }
}

/// What a model was trained with, and what its authors want of samplers.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// ᾱ_t for each training timestep, falling; the last is 0 at zero terminal SNR. None of flow and score models.
    pub alphas_cumprod: Vec<f64>,
    pub betas: BetaSchedule,
    pub prediction: Prediction,
    /// `None`: the sampler's own default.
    pub spacing: Option<Spacing>,
    /// Added to the timesteps of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// Clamp the predicted x0; `None`: the sampler's own default.
    pub clip_sample: Option<bool>,
    /// x0 is clamped to ± this.
    pub clip_range: f64,
    /// DDIM's last step goes to ᾱ = 1 rather than to ᾱ_0.
    pub set_alpha_to_one: bool,
    pub variance: Variance,
    pub final_sigma: FinalSigma,
    /// DPM-Solver++ skips timesteps whose log(√ᾱ / √(1 − ᾱ)) is below this.
    pub lambda_min: f64,
    pub multistep: Multistep,
    /// UniPC's B(h) is h (`bh1`), not e^h − 1.
    pub bh1: bool,
    /// The steps that UniPC does not correct.
    pub uncorrected: Vec<usize>,
    /// Timesteps that consistency models (LCM, TCD) were distilled on.
    pub original_inference_steps: usize,
    /// Of LCM's boundary conditions.
    pub timestep_scaling: f64,
    /// Of a flow model, for which all that is above but the prediction means nothing.
    pub flow: Option<Flow>,
    /// The same of a score model.
    pub score: Option<Score>,
}

/// How multistep solvers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multistep {
    /// DPM-Solver++ of order 2 integrates the slope exactly (`solver_type` `heun`), not by its midpoint.
    pub heun: bool,
    /// Short runs end in steps of lower order.
    pub lower_order_final: bool,
    /// DPM-Solver++ always ends in a step of first order.
    pub euler_at_final: bool,
}

impl NoiseSchedule {
    /// Resolves a configuration.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is not in the list, [`Error::Invalid`]
    /// for numbers out of range and for features that are not here (dynamic
    /// thresholding, log-linear interpolation, continuous timesteps).
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        for (key, supported, value) in [
            ("interpolation_type", "linear", &config.interpolation_type),
            ("timestep_type", "discrete", &config.timestep_type),
        ] {
            if let Some(found) = value.as_deref().filter(|found| *found != supported) {
                return Err(invalid(key, supported, found));
            }
        }
        if config.thresholding == Some(true) {
            return Err(invalid("thresholding", "false", true));
        }
        let clip_range = config.clip_sample_range.unwrap_or(1.0);
        if !(clip_range > 0.0 && clip_range.is_finite()) {
            return Err(invalid("clip_sample_range", "a positive number", clip_range));
        }
        if let Some(n) = config.num_train_timesteps.filter(|n| *n > MAX_TIMESTEPS) {
            return Err(invalid("num_train_timesteps", format!("at most {MAX_TIMESTEPS}"), n));
        }
        let (flow, score) = (Flow::of_config(config)?, Score::of_config(config)?);
        let (betas, alphas_cumprod) = match flow.is_some() || score.is_some() {
            true => (BetaSchedule::Trained, Vec::new()),
            false => alphas_cumprod(config)?,
        };
        Ok(Self {
            alphas_cumprod,
            betas,
            prediction: match (&flow, &score) {
                (Some(_), _) => Prediction::Flow,
                (_, Some(score)) => score.prediction(),
                (None, None) => config.prediction_type.as_deref().unwrap_or("epsilon").parse()?,
            },
            spacing: match config.timestep_spacing.as_deref() {
                None => None,
                Some("leading") => Some(Spacing::Leading),
                Some("linspace") => Some(Spacing::Linspace),
                Some("trailing") => Some(Spacing::Trailing),
                Some(name) => {
                    return Err(unknown("timestep spacing", name, "leading, linspace, trailing"));
                }
            },
            steps_offset: config.steps_offset.unwrap_or(0),
            clip_sample: config.clip_sample,
            clip_range,
            // PNDMScheduler alone stops short of it by default.
            set_alpha_to_one: config
                .set_alpha_to_one
                .unwrap_or(config.class_name.as_deref() != Some("PNDMScheduler")),
            variance: match config.variance_type.as_deref() {
                None | Some("fixed_small" | "fixed_small_log") => Variance::Small,
                Some("fixed_large" | "fixed_large_log") => Variance::Large,
                Some("learned" | "learned_range") => Variance::Learned,
                Some(name) => {
                    let names = "fixed_small, fixed_small_log, fixed_large, fixed_large_log, \
                                 learned, learned_range";
                    return Err(unknown("variance type", name, names));
                }
            },
            final_sigma: match config.final_sigmas_type.as_deref() {
                None | Some("zero") => FinalSigma::Zero,
                Some("sigma_min") => FinalSigma::Min,
                Some(name) => return Err(unknown("final sigma type", name, "zero, sigma_min")),
            },
            lambda_min: config.lambda_min_clipped.unwrap_or(f64::NEG_INFINITY),
            multistep: Multistep {
                heun: config.solver_type.as_deref() == Some("heun"),
                lower_order_final: config.lower_order_final.unwrap_or(true),
                euler_at_final: config.euler_at_final.unwrap_or(false),
            },
            bh1: config.solver_type.as_deref() == Some("bh1"),
            uncorrected: config.disable_corrector.clone().unwrap_or_default(),
            original_inference_steps: config.original_inference_steps.unwrap_or(50),
            timestep_scaling: config.timestep_scaling.unwrap_or(10.0),
            flow,
            score,
        })
    }

    /// The schedule for pictures of so many tokens; the same but for flow models that want to know it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number of tokens at which there is no shift.
    pub fn for_tokens(&self, tokens: usize) -> Result<Self> {
        let mut schedule = self.clone();
        if let Some(flow) = &mut schedule.flow {
            flow.shift = flow.shift.for_tokens(tokens)?;
        }
        Ok(schedule)
    }

    /// The schedule with no signal left at its last timestep (Lin et al. 2023, arXiv:2305.08891, algorithm 1), for
    /// models that were trained so and do not say it.
    #[must_use]
    pub fn with_zero_terminal_snr(mut self) -> Self {
        rescale_to_zero_snr(&mut self.alphas_cumprod);
        self
    }

    /// Number of timesteps the model was trained with.
    #[must_use]
    pub fn num_train_timesteps(&self) -> usize {
        match (&self.flow, &self.score) {
            (Some(flow), _) => flow.num_train_timesteps,
            (_, Some(score)) => score.num_train_timesteps,
            (None, None) => self.alphas_cumprod.len(),
        }
    }

    /// The values of black and white in what the model was trained on.
    #[must_use]
    pub fn range(&self) -> [f64; 2] {
        self.score.as_ref().map_or([-1.0, 1.0], Score::range)
    }

    /// Sigma of every training timestep, rising; finite at zero terminal SNR.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        let sigma = |alpha: &f64| {
            let alpha = if *alpha == 0.0 { TINY_ALPHA } else { *alpha };
            ((1.0 - alpha) / alpha).sqrt()
        };
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// The timesteps of a run of `steps` steps, falling. Those of
    /// [`Spacing::Linspace`] may lie between two training timesteps.
    pub(super) fn timesteps(&self, spacing: Spacing, steps: usize) -> Result<Vec<f64>> {
        let trained = self.num_train_timesteps();
        if !(1..=trained).contains(&steps) {
            return Err(invalid("number of steps", format!("1 to {trained}"), steps));
        }
        let timesteps = match spacing {
            Spacing::Linspace => {
                let mut rising = linspace(0.0, (trained - 1) as f64, steps);
                rising.reverse();
                rising
            }
            Spacing::Leading => {
                (0..steps).rev().map(|i| (i * (trained / steps) + self.steps_offset) as f64).collect()
            }
            Spacing::Trailing => trailing(trained, trained, steps),
        };
        self.checked(timesteps)
    }

    /// As [`timesteps`](Self::timesteps), spread for a solver that takes the end
    /// of the run as one more node (diffusers' `DPMSolverMultistepScheduler`).
    /// With `lambda_min`, trailing ones can be fewer than `steps`.
    pub(super) fn solver_timesteps(
        &self,
        spacing: Spacing,
        steps: usize,
        lambda_min: f64,
    ) -> Result<Vec<f64>> {
        let trained = self.num_train_timesteps();
        // log(√ᾱ / √(1 − ᾱ)) is −log sigma.
        let kept = self.sigmas().iter().filter(|sigma| -sigma.ln() >= lambda_min).count();
        let most = match spacing {
            Spacing::Leading => kept.saturating_sub(1),
            Spacing::Linspace | Spacing::Trailing => kept,
        };
        if !(1..=most).contains(&steps) {
            return Err(invalid("number of steps", format!("1 to {most}"), steps));
        }
        let timesteps = match spacing {
            Spacing::Linspace => linspace(0.0, (kept - 1) as f64, steps + 1)[1..]
                .iter()
                .rev()
                .map(|t| t.round_ties_even())
                .collect(),
            Spacing::Leading => {
                (1..=steps).rev().map(|i| (i * (kept / (steps + 1)) + self.steps_offset) as f64).collect()
            }
            Spacing::Trailing => trailing(kept, trained, steps),
        };
        self.checked(timesteps)
    }

    fn checked(&self, timesteps: Vec<f64>) -> Result<Vec<f64>> {
        // A large steps_offset can push the first one out of the schedule.
        let last = (self.num_train_timesteps() - 1) as f64;
        match timesteps.first() {
            Some(&first) if first > last => Err(invalid(
                "first timestep (fewer steps or a smaller steps_offset help)",
                format!("at most {last}"),
                first,
            )),
            _ => Ok(timesteps),
        }
    }
}

/// `values[t]` for a `t` between two indices.
pub(super) fn interpolate(values: &[f64], t: f64) -> f64 {
    let below = (t.floor() as usize).min(values.len() - 1);
    let above = (below + 1).min(values.len() - 1);
    values[below] + (values[above] - values[below]) * (t - below as f64)
}

/// The (broken) timestep at which the rising `sigmas` reach `sigma`: linear in
/// log sigma, as k-diffusion's `sigma_to_t`.
pub(super) fn timestep_of(sigmas: &[f64], sigma: f64) -> f64 {
    if sigmas.len() < 2 {
        return 0.0;
    }
    let above = sigmas.partition_point(|s| *s <= sigma);
    let low = above.saturating_sub(1).min(sigmas.len() - 2);
    let (from, to) = (sigmas[low].ln(), sigmas[low + 1].ln());
    low as f64 + ((sigma.ln() - from) / (to - from)).clamp(0.0, 1.0)
}

/// `n` numbers from `first` to `last`, both included; `first` alone for one.
pub(super) fn linspace(first: f64, last: f64, n: usize) -> Vec<f64> {
    let step = if n > 1 { (last - first) / (n - 1) as f64 } else { 0.0 };
    (0..n).map(|i| if i > 0 && i == n - 1 { last } else { first + step * i as f64 }).collect()
}

/// From `kept − 1` down, `trained / steps` apart.
fn trailing(kept: usize, trained: usize, steps: usize) -> Vec<f64> {
    let apart = trained as f64 / steps as f64;
    (0..steps)
        .map(|i| (kept as f64 - i as f64 * apart).round_ties_even() - 1.0)
        .take_while(|t| *t >= 0.0)
        .collect()
}

fn alphas_cumprod(config: &ScheduleConfig) -> Result<(BetaSchedule, Vec<f64>)> {
    let (schedule, betas) = betas(config)?;
    let last = betas.len().saturating_sub(1);
    for (t, beta) in betas.iter().enumerate() {
        if !(*beta > 0.0 && (*beta < 1.0 || t == last && *beta == 1.0)) {
            return Err(invalid(format!("beta {t} of the noise schedule"), "above 0, below 1", beta));
        }
    }
    let mut product = 1.0;
    let mut alphas: Vec<f64> = betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            product
        })
        .collect();
    match alphas.as_slice() {
        [] => return Err(invalid("num_train_timesteps", "1 or more", 0)),
        _ if config.rescale_betas_zero_snr == Some(true) => rescale_to_zero_snr(&mut alphas),
        _ => {}
    }
    Ok((schedule, alphas))
}

/// Lin et al. 2023, algorithm 1: shifts √ᾱ so that the last is 0, and scales it so that the first stays.
fn rescale_to_zero_snr(alphas: &mut [f64]) {
    let [first, .., last] = *alphas else { return };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha in alphas {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}

fn betas(config: &ScheduleConfig) -> Result<(BetaSchedule, Vec<f64>)> {
    if let Some(betas) = &config.trained_betas {
        return Ok((BetaSchedule::Trained, betas.clone()));
    }
    let n = config.num_train_timesteps.unwrap_or(1000);
    // Some classes have the defaults of Stable Diffusion.
    let class = config.class_name.as_deref().unwrap_or_default();
    let consistency = matches!(class, "LCMScheduler" | "TCDScheduler");
    let latent = matches!(
        class,
        "HeunDiscreteScheduler"
            | "KDPM2DiscreteScheduler"
            | "KDPM2AncestralDiscreteScheduler"
            | "DPMSolverSDEScheduler"
    );
    let (start, end) = if latent || consistency { (0.00085, 0.012) } else { (0.0001, 0.02) };
    let (start, end) = (config.beta_start.unwrap_or(start), config.beta_end.unwrap_or(end));
    let default = if consistency { "scaled_linear" } else { "linear" };
    match config.beta_schedule.as_deref().unwrap_or(default) {
        "linear" => Ok((BetaSchedule::Linear, linspace(start, end, n))),
        "scaled_linear" => {
            let roots = linspace(start.sqrt(), end.sqrt(), n);
            let betas = roots.iter().map(|root| root * root).collect();
            Ok((BetaSchedule::ScaledLinear, betas))
        }
        "squaredcos_cap_v2" => Ok((BetaSchedule::SquaredCosine, cosine_betas(n))),
        "sigmoid" => {
            let betas = linspace(-6.0, 6.0, n);
            let betas = betas.iter().map(|x| start + (end - start) / (1.0 + (-x).exp())).collect();
            Ok((BetaSchedule::Sigmoid, betas))
        }
        name => Err(unknown("beta schedule", name, "linear, scaled_linear, squaredcos_cap_v2, sigmoid")),
    }
}

/// Nichol & Dhariwal 2021, eq. 17, with their offset and their cap on β.
fn cosine_betas(n: usize) -> Vec<f64> {
    const OFFSET: f64 = 0.008;
    const MAX_BETA: f64 = 0.999;
    let alpha_bar = |i: usize| {
        let t = i as f64 / n as f64;
        ((t + OFFSET) / (1.0 + OFFSET) * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (0..n).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(MAX_BETA)).collect()
}

/// JSON for Python's dialect of it: `NaN` and infinities become `null`.
fn null_for_non_finite(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, c) {
            (Some(word), _) => {
                json.push_str("null");
                rest = &rest[word.len()..];
                continue;
            }
            // An escape is copied whole, so that \" does not end the string.
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, '"') => {
                in_string = !in_string;
                1
            }
            (None, c) => c.len_utf8(),
        };
        json.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    json
}

pub(super) fn unknown(what: &'static str, found: &str, expected: &str) -> Error {
    Error::Unknown { what, found: found.into(), expected: expected.into() }
}

pub(super) fn invalid(what: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Invalid { what: what.into(), expected: expected.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_numbers_and_unchosen_keys_are_missing_keys() {
        let config = ScheduleConfig::from_json(
            r#"{"_class_name": "X", "note": "a \" Infinity", "lambda_min_clipped": -Infinity,
                "timestep_spacing": "leading", "steps_offset": 1, "beta_end": NaN,
                "_use_default_values": ["timestep_spacing", "solver_order"]}"#,
        )
        .unwrap();
        assert_eq!(config.lambda_min_clipped, None);
        assert_eq!(config.timestep_spacing, None);
        assert_eq!(config.beta_end, None);
        assert_eq!(config.steps_offset, Some(1));
    }

    #[test]
    fn wrong_configurations_are_refused() {
        for (json, message) in [
            ("[]", "scheduler config: expected a diffusers scheduler_config.json"),
            (r#"{"beta_schedule": "odd"}"#, "unknown beta schedule \"odd\""),
            (r#"{"prediction_type": "flow"}"#, "unknown prediction type \"flow\""),
            (r#"{"timestep_spacing": "even"}"#, "unknown timestep spacing \"even\""),
            (r#"{"beta_end": 1.5}"#, "beta 666 of the noise schedule"),
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps: expected 1 or more"),
            (r#"{"thresholding": true}"#, "thresholding: expected false, found true"),
        ] {
            let error = ScheduleConfig::from_json(json)
                .and_then(|config| NoiseSchedule::new(&config))
                .expect_err(json)
                .to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }

    #[test]
    fn zero_terminal_snr_is_exact() {
        let config =
            ScheduleConfig { rescale_betas_zero_snr: Some(true), ..ScheduleConfig::stable_diffusion() };
        let schedule = NoiseSchedule::new(&config).unwrap();
        assert_eq!(schedule.alphas_cumprod.last(), Some(&0.0));
        assert!((schedule.alphas_cumprod[0] - (1.0 - 0.00085)).abs() < 1e-15);
        assert!((schedule.sigmas()[999] - 4096.0).abs() < 1e-3);
        let asked = NoiseSchedule::new(&ScheduleConfig::stable_diffusion()).unwrap().with_zero_terminal_snr();
        assert_eq!(asked, schedule);
        // A schedule that is so already stays.
        let twice = asked.clone().with_zero_terminal_snr();
        let differ = twice.alphas_cumprod.iter().zip(&asked.alphas_cumprod).map(|(a, b)| (a - b).abs());
        assert!(differ.fold(0.0, f64::max) < 1e-14);
    }
}
