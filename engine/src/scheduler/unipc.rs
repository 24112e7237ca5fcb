//! UniPC, a predictor-corrector of order 2 for flow matching ("UniPC: A Unified Predictor-Corrector Framework", arXiv 2302.04867).
//!
//! What diffusers 0.42.1 computes in `src/diffusers/schedulers/scheduling_unipc_multistep.py` with `prediction_type="flow_prediction"`,
//! `use_flow_sigmas`, `solver_order=2`, `solver_type="bh2"`, `predict_x0`, `lower_order_final` and a last sigma of zero: what Wan's
//! checkpoints configure.

use tch::Tensor;

use super::{sigma_schedule, timesteps};
use crate::error::{Error, Result};

/// The sampler's state between steps.
#[derive(Debug)]
pub struct UniPc {
    /// Rounded to fp32, as the reference keeps them.
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
    /// Steps done.
    index: usize,
    /// Predicted clean samples of the last two steps, the newest last.
    clean: [Option<Tensor>; 2],
    /// The corrected sample from which the last step predicted, and that step's order.
    last: Option<(Tensor, usize)>,
}

impl UniPc {
    /// A sampler of `steps` steps with the sigma schedule shifted by `shift`.
    pub fn new(steps: usize, shift: f64) -> Self {
        let sigmas = sigma_schedule(steps, shift);
        let timesteps = timesteps(&sigmas);
        let sigmas = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        Self { sigmas, timesteps, index: 0, clean: [None, None], last: None }
    }

    /// What the transformer is told at each step.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The noise level at each step, and the last zero, rounded to fp32.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// The sample after the next step, from the transformer's prediction for `sample`. Both are fp32 and on the CPU.
    ///
    /// The sampler keeps `sample` until the next step: do not write into it.
    ///
    /// # Errors
    /// libtorch's, and a step after the last.
    pub fn step(&mut self, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let steps = self.timesteps.len();
        if self.index >= steps {
            return Err(Error::Input(format!("the sampler has done all of its {steps} steps: start a new one")));
        }
        // 1. The clean sample that the prediction, a direction from clean to noise, points at.
        let clean = sample.f_sub(&prediction.f_mul_scalar(self.sigmas[self.index])?)?;

        // 2. Corrector: with the new prediction known, the last step is done over, one order higher.
        let sample = match self.last.take() {
            Some((from, order)) => self.correct(&from, &clean, order)?,
            None => sample.shallow_clone(),
        };

        // 3. Predictor: first order at the first step, where there is no history, and at the last, which ends at sigma zero.
        self.clean.swap(0, 1);
        self.clean[1] = Some(clean);
        let order = if self.index == 0 || self.index + 1 == steps { 1 } else { 2 };
        let next = self.predict(&sample, order)?;
        self.last = Some((sample, order));
        self.index += 1;
        Ok(next)
    }

    /// Logarithm of the signal's share over the noise's at step `index`: infinite at sigma zero.
    fn log_ratio(&self, index: usize) -> f64 {
        let sigma = self.sigmas[index];
        // In fp32 like the reference's, whose rounding is what counts for sigmas close to one.
        f64::from((1.0 - sigma) as f32).ln() - sigma.ln()
    }

    /// The clean sample predicted `age` steps before the newest.
    fn clean(&self, age: usize) -> Result<&Tensor> {
        self.clean[1 - age].as_ref().ok_or_else(|| Error::Input("the sampler has too short a history for its order".into()))
    }

    /// From step `self.index` to the next one.
    fn predict(&self, from: &Tensor, order: usize) -> Result<Tensor> {
        let (s, t) = (self.index, self.index + 1);
        let span = self.log_ratio(t) - self.log_ratio(s);
        let newest = self.clean(0)?;
        let mut next = self.first_order(from, newest, s, t, span)?;
        if order == 2 {
            let ratio = (self.log_ratio(s - 1) - self.log_ratio(s)) / span;
            let slope = self.clean(1)?.f_sub(newest)?;
            // The published weight of this order's only slope is one half.
            let weight = -(1.0 - self.sigmas[t]) * (-span).exp_m1() * 0.5 / ratio;
            let _ = next.f_add_(&slope.f_mul_scalar(weight)?)?;
        }
        Ok(next)
    }

    /// From the step before `self.index` to it, with `clean` predicted there.
    fn correct(&self, from: &Tensor, clean: &Tensor, order: usize) -> Result<Tensor> {
        let (s, t) = (self.index - 1, self.index);
        let span = self.log_ratio(t) - self.log_ratio(s);
        let newest = self.clean(0)?;
        let mut next = self.first_order(from, newest, s, t, span)?;
        let scale = -(1.0 - self.sigmas[t]) * (-span).exp_m1();
        let arrival = clean.f_sub(newest)?;
        if order == 1 {
            let _ = next.f_add_(&arrival.f_mul_scalar(scale * 0.5)?)?;
            return Ok(next);
        }
        let ratio = (self.log_ratio(s - 1) - self.log_ratio(s)) / span;
        let (slope_weight, arrival_weight) = corrector_weights(ratio, -span);
        let slope = self.clean(1)?.f_sub(newest)?;
        let _ = next.f_add_(&slope.f_mul_scalar(scale * slope_weight / ratio)?)?;
        let _ = next.f_add_(&arrival.f_mul_scalar(scale * arrival_weight)?)?;
        Ok(next)
    }

    /// The exact solution between steps `s` and `t` if the clean sample were `clean` all along.
    fn first_order(&self, from: &Tensor, clean: &Tensor, s: usize, t: usize, span: f64) -> Result<Tensor> {
        let mut next = from.f_mul_scalar(self.sigmas[t] / self.sigmas[s])?;
        let weight = -(1.0 - self.sigmas[t]) * (-span).exp_m1();
        let _ = next.f_add_(&clean.f_mul_scalar(weight)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_true_prediction_arrives_at_the_clean_sample() {
        let clean = Tensor::from_slice(&[0.5f32, -2.0]);
        let noise = Tensor::from_slice(&[1.0f32, 0.25]);
        let mut sampler = UniPc::new(6, 3.0);
        let mut sample = noise.copy();
        for _ in 0..6 {
            sample = sampler.step(&(&noise - &clean), &sample).unwrap();
        }
        assert!((sample - clean).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn a_step_too_many_is_refused() {
        let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let mut sampler = UniPc::new(1, 1.0);
        let _ = sampler.step(&zero, &zero).unwrap();
        let message = sampler.step(&zero, &zero).unwrap_err().to_string();
        assert_eq!(message, "the sampler has done all of its 1 steps: start a new one");
    }
}
