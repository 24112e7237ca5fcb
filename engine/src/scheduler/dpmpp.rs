//! DPM++ 2M, a multistep method of order 2 for flow matching ("DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! arXiv 2211.01095).
//!
//! What diffusers 0.42.1 computes in `src/diffusers/schedulers/scheduling_dpmsolver_multistep.py` with `algorithm_type="dpmsolver++"`,
//! `solver_order=2`, `solver_type="midpoint"`, `prediction_type="flow_prediction"`, `use_flow_sigmas` and a last sigma of zero.

use tch::Tensor;

use super::SigmaSchedule;
use super::multistep::{History, clean_sample, order};
use crate::error::Result;

/// The sampler's state between steps.
#[derive(Debug, Default)]
pub(super) struct DpmPp {
    history: History,
}

impl DpmPp {
    /// The sample after step `index`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn step(&mut self, schedule: &SigmaSchedule, index: usize, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
        self.history.push(clean_sample(schedule, index, prediction, sample)?);
        self.history.predict(schedule, index, sample, order(schedule, index))
    }
}
