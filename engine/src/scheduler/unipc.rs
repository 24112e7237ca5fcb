//! UniPC, a predictor-corrector of order 2 for flow matching ("UniPC: A Unified Predictor-Corrector Framework", arXiv 2302.04867).
//!
//! What diffusers 0.42.1 computes in `src/diffusers/schedulers/scheduling_unipc_multistep.py` with `prediction_type="flow_prediction"`,
//! `use_flow_sigmas`, `solver_order=2`, `solver_type="bh2"`, `predict_x0`, `lower_order_final` and a last sigma of zero: what Wan's
//! checkpoints configure.

use tch::Tensor;

use super::SigmaSchedule;
use super::multistep::{History, clean_sample, first_order, order, weight};
use crate::error::Result;

/// The sampler's state between steps.
#[derive(Debug, Default)]
pub(super) struct UniPc {
    history: History,
    /// The corrected sample from which the last step predicted, and that step's order.
    last: Option<(Tensor, usize)>,
}

impl UniPc {
    /// The sample after step `index`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn step(&mut self, schedule: &SigmaSchedule, index: usize, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let clean = clean_sample(schedule, index, prediction, sample)?;

        // 1. Corrector: with the new prediction known, the last step is done over, one order higher.
        let sample = match self.last.take() {
            Some((from, order)) => self.correct(schedule, index, &from, &clean, order)?,
            None => sample.shallow_clone(),
        };

        // 2. Predictor.
        self.history.push(clean);
        let order = order(schedule, index);
        let next = self.history.predict(schedule, index, &sample, order)?;
        self.last = Some((sample, order));
        Ok(next)
    }

    /// From the step before `index` to it, with `clean` predicted there.
    fn correct(&self, schedule: &SigmaSchedule, index: usize, from: &Tensor, clean: &Tensor, order: usize) -> Result<Tensor> {
        let (s, t) = (index - 1, index);
        let span = schedule.log_ratio(t) - schedule.log_ratio(s);
        let newest = self.history.clean(0)?;
        let mut next = first_order(schedule, from, newest, s, span)?;
        let scale = weight(schedule, t, span);
        let arrival = clean.f_sub(newest)?;
        if order == 1 {
            let _ = next.f_add_(&arrival.f_mul_scalar(scale * 0.5)?)?;
            return Ok(next);
        }
        let ratio = (schedule.log_ratio(s - 1) - schedule.log_ratio(s)) / span;
        let (slope_weight, arrival_weight) = corrector_weights(ratio, -span);
        let slope = self.history.clean(1)?.f_sub(newest)?;
        let _ = next.f_add_(&slope.f_mul_scalar(scale * slope_weight / ratio)?)?;
        let _ = next.f_add_(&arrival.f_mul_scalar(scale * arrival_weight)?)?;
        Ok(next)
    }
}

/// Weights of the two slopes of the second-order corrector: the solution of
/// `[1 1; ratio 1] w = [b1; b2]`, with `b_k = k! phi_{k+1}(h) / B(h)` and `B(h) = exp(h) - 1` (the paper's second choice).
fn corrector_weights(ratio: f64, h: f64) -> (f64, f64) {
    let scale = h.exp_m1();
    let phi_2 = scale / h - 1.0;
    let phi_3 = phi_2 / h - 0.5;
    let (b1, b2) = (phi_2 / scale, 2.0 * phi_3 / scale);
    let slope = (b2 - b1) / (ratio - 1.0);
    (slope, b1 - slope)
}
