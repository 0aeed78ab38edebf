//! Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778, without its Runge-Kutta steps; diffusers'
//! `PNDMScheduler` with `skip_prk_steps`): Adams-Bashforth on the model's answers. The first step is
//! made twice, the second time with the mean of the answers at its ends.

use super::super::form::{Form, M, X, past};
use super::super::levels::{alpha_at, row};
use super::super::schedule::{NoiseSchedule, Prediction, TINY_ALPHA, invalid};
use super::super::table::Row;
use super::ddim::alpha_before;
use crate::error::Result;

/// The second of the falling timesteps comes twice.
pub(in super::super) fn timesteps(mut timesteps: Vec<f64>) -> Vec<f64> {
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    timesteps
}

/// `steps` is that of the whole run, which `timesteps` has one more of.
pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    timesteps: &[f64],
    steps: usize,
    begin: usize,
) -> Result<Vec<Row>> {
    if schedule.prediction == Prediction::Sample {
        return Err(invalid("prediction_type of the sampler plms", "epsilon or v_prediction", "sample"));
    }
    let trained = schedule.num_train_timesteps();
    let stride = (trained / steps) as f64;
    let step = |(count, &t): (usize, &f64)| {
        // Of the whole history, what rows keep is the model's answer, but for the second row.
        let slope = match count {
            0 => M,
            1 => 0.5 * (M + past(0)),
            2 => 0.5 * (3.0 * M - past(0)),
            3 => 1.0 / 12.0 * (23.0 * M - 16.0 * past(0) + 5.0 * past(1)),
            _ => 1.0 / 24.0 * (55.0 * M - 59.0 * past(0) + 37.0 * past(1) - 9.0 * past(2)),
        };
        let alpha = alpha_at(schedule, t);
        let row = row(schedule.prediction, t, alpha.sqrt(), (1.0 - alpha).sqrt());
        if count != 1 {
            return row.next(transfer(schedule, [t, t - stride], X, slope)).keep(M);
        }
        // Back to the latent that the first row left.
        let first = timesteps[begin];
        let of_latent = Transfer::new(schedule, [first, first - stride]);
        let latent = 1.0 / of_latent.keep * (X - of_latent.gain * past(0));
        row.next(transfer(schedule, [(t + stride).min((trained - 1) as f64), t], latent, slope))
    };
    Ok(timesteps[begin..].iter().enumerate().map(step).collect())
}

fn transfer(schedule: &NoiseSchedule, between: [f64; 2], latent: Form, slope: Form) -> Form {
    let Transfer { keep, gain } = Transfer::new(schedule, between);
    keep * latent + gain * slope
}

/// From a timestep to another: `keep` · latent + `gain` · the model's answer (Liu et al. 2022, eq. 11).
struct Transfer {
    keep: f64,
    gain: f64,
}

impl Transfer {
    fn new(schedule: &NoiseSchedule, [from, to]: [f64; 2]) -> Self {
        // A step divides by √ᾱ whatever the model predicts: a trace of signal is assumed where none is left.
        let (alpha, next) = (alpha_at(schedule, from).max(TINY_ALPHA), alpha_before(schedule, to));
        let keep = (next / alpha).sqrt();
        let divisor = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        let gain = -(next - alpha) / divisor;
        match schedule.prediction {
            // The noise is √ᾱ · v + √(1 − ᾱ) · latent.
            Prediction::V => Self { keep: keep + gain * (1.0 - alpha).sqrt(), gain: gain * alpha.sqrt() },
            _ => Self { keep, gain },
        }
    }
}
