//! Euler's method for flow matching: along the predicted direction, straight to the next noise level.
//!
//! What diffusers 0.42.1 computes in `src/diffusers/schedulers/scheduling_flow_match_euler_discrete.py` without its random variant.

use tch::Tensor;

use super::SigmaSchedule;
use crate::error::Result;

/// The sample after step `index`.
///
/// # Errors
/// libtorch's.
pub(super) fn step(schedule: &SigmaSchedule, index: usize, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
    // Rounded to fp32 like the levels themselves.
    let way = f64::from((schedule.sigmas[index + 1] - schedule.sigmas[index]) as f32);
    Ok(sample.f_add(&prediction.f_mul_scalar(way)?)?)
}
