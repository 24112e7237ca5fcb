//! What UniPC and DPM++ 2M share: a history of predicted clean samples, and the step of order 1 or 2 that it leads to. UniPC's predictor and
//! DPM++ 2M are the same formula; UniPC corrects its result later.

use tch::Tensor;

use super::SigmaSchedule;
use crate::error::{Error, Result};

/// Predicted clean samples of the last two steps, the newest last.
#[derive(Debug, Default)]
pub(super) struct History([Option<Tensor>; 2]);

impl History {
    /// Takes in the newest clean sample and lets the oldest go.
    pub(super) fn push(&mut self, clean: Tensor) {
        self.0.swap(0, 1);
        self.0[1] = Some(clean);
    }

    /// The clean sample predicted `age` steps before the newest.
    ///
    /// # Errors
    /// A history that does not reach so far.
    pub(super) fn clean(&self, age: usize) -> Result<&Tensor> {
        self.0[1 - age].as_ref().ok_or_else(|| Error::Input("the sampler has too short a history for its order".into()))
    }

    /// The sample after step `index`, from the sample before it.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn predict(&self, schedule: &SigmaSchedule, index: usize, from: &Tensor, order: usize) -> Result<Tensor> {
        let (s, t) = (index, index + 1);
        let span = schedule.log_ratio(t) - schedule.log_ratio(s);
        let newest = self.clean(0)?;
        let mut next = first_order(schedule, from, newest, s, span)?;
        if order == 2 {
            let ratio = (schedule.log_ratio(s - 1) - schedule.log_ratio(s)) / span;
            let slope = self.clean(1)?.f_sub(newest)?;
            // The published weight of this order's only slope is one half.
            let _ = next.f_add_(&slope.f_mul_scalar(weight(schedule, t, span) * 0.5 / ratio)?)?;
        }
        Ok(next)
    }
}

/// The clean sample that a prediction for `sample`, a direction from clean to noise, points at.
///
/// # Errors
/// libtorch's.
pub(super) fn clean_sample(schedule: &SigmaSchedule, index: usize, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
    Ok(sample.f_sub(&prediction.f_mul_scalar(schedule.sigmas[index])?)?)
}

/// The order of step `index`: 1 at the first, where there is no history, and at the last, which ends at sigma zero.
pub(super) fn order(schedule: &SigmaSchedule, index: usize) -> usize {
    if index == 0 || index + 1 == schedule.steps() { 1 } else { 2 }
}

/// The exact solution from step `s` to the next if the clean sample were `clean` all along.
///
/// # Errors
/// libtorch's.
pub(super) fn first_order(schedule: &SigmaSchedule, from: &Tensor, clean: &Tensor, s: usize, span: f64) -> Result<Tensor> {
    let mut next = from.f_mul_scalar(schedule.sigmas[s + 1] / schedule.sigmas[s])?;
    let _ = next.f_add_(&clean.f_mul_scalar(weight(schedule, s + 1, span))?)?;
    Ok(next)
}

/// The clean sample's weight at the end of a step, at level `t`, that is `span` long as logarithms of the signal's share go.
pub(super) fn weight(schedule: &SigmaSchedule, t: usize, span: f64) -> f64 {
    -(1.0 - schedule.sigmas[t]) * (-span).exp_m1()
}
