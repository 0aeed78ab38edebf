//! Ho et al. 2020, eq. 6 and 7, between any two timesteps.

use super::super::form::{NOISE, X, X0};
use super::super::levels::{alpha_at, row};
use super::super::schedule::{NoiseSchedule, Variance, invalid};
use super::super::table::Row;
use crate::error::Result;

pub(in super::super) fn rows(schedule: &NoiseSchedule, timesteps: &[f64], begin: usize) -> Result<Vec<Row>> {
    /// diffusers' floor under the variance: the last step's is 0.
    const NO_VARIANCE: f64 = 1e-20;
    if schedule.variance == Variance::Learned {
        return Err(invalid(
            "variance_type of the sampler ddpm",
            "fixed_small or fixed_large (other samplers need no variance)",
            "learned",
        ));
    }
    let step = |(i, &t): (usize, &f64)| {
        let alpha = alpha_at(schedule, t);
        let next = timesteps.get(i + 1).map_or(1.0, |t| alpha_at(schedule, *t));
        let step_alpha = alpha / next;
        let step_beta = 1.0 - step_alpha;
        let variance = match schedule.variance {
            Variance::Large => step_beta,
            Variance::Small | Variance::Learned => (1.0 - next) / (1.0 - alpha) * step_beta,
        };
        let noise = if t > 0.0 && variance > NO_VARIANCE { variance.sqrt() } else { 0.0 };
        row(schedule.prediction, t, alpha.sqrt(), (1.0 - alpha).sqrt()).next(
            step_alpha.sqrt() * (1.0 - next) / (1.0 - alpha) * X
                + next.sqrt() * step_beta / (1.0 - alpha) * X0
                + noise * NOISE,
        )
    };
    Ok(timesteps.iter().enumerate().skip(begin).map(step).collect())
}
