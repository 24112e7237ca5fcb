//! The sampler of latent consistency models, for flow matching: at each step all the way to a clean sample, and from there with new noise to the next noise level.
//!
//! What diffusers 0.42.1 computes in `src/diffusers/schedulers/scheduling_flow_match_lcm.py`. Its noise comes from whatever the generator draws next; here each step has a
//! seed of its own, so that a denoising goes on in another process with the same noise.

use tch::Tensor;

use super::SigmaSchedule;
use super::noise::noise;
use crate::error::Result;

/// The sample after step `index`, with the noise of `seed`.
///
/// # Errors
/// libtorch's.
pub(super) fn step(schedule: &SigmaSchedule, index: usize, seed: i64, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
    let clean = sample.f_sub(&prediction.f_mul_scalar(schedule.sigmas[index])?)?;
    let level = schedule.sigmas[index + 1];
    if level == 0.0 {
        return Ok(clean);
    }
    let fresh = noise(seed.wrapping_add(index as i64 + 1), &sample.size())?;
    // The share of the signal is rounded to fp32 like the levels themselves.
    Ok(clean.f_mul_scalar(f64::from((1.0 - level) as f32))?.f_add(&fresh.f_mul_scalar(level)?)?)
}
