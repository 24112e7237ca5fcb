//! Noise levels of a flow-matching sampler: evenly spaced, then shifted towards noise.
//!
//! Facts from diffusers 0.42.1 `src/diffusers/schedulers/scheduling_unipc_multistep.py` (`set_timesteps`, `use_flow_sigmas`).

/// Timesteps of training: what the transformer is told is sigma times this.
pub const TRAIN_TIMESTEPS: f64 = 1000.0;

/// The first sigma stays this far below one, where the signal's share would be zero and its logarithm infinite.
const FIRST_SIGMA_GAP: f64 = 1e-6;

/// Sigmas of `steps` steps, from noise to image, and a last zero: `steps + 1` values.
///
/// A sampler's coefficients come from these rounded to fp32, as the reference keeps them; timesteps come from them as they are.
pub fn sigma_schedule(steps: usize, shift: f64) -> Vec<f64> {
    let slope = (1.0 / TRAIN_TIMESTEPS - 1.0) / steps as f64;
    let mut sigmas: Vec<f64> = (0..steps)
        .map(|index| {
            let even = index as f64 * slope + 1.0;
            shift * even / (1.0 + (shift - 1.0) * even)
        })
        .collect();
    if let Some(first) = sigmas.first_mut()
        && (*first - 1.0).abs() < FIRST_SIGMA_GAP
    {
        *first -= FIRST_SIGMA_GAP;
    }
    sigmas.push(0.0);
    sigmas
}

/// What the transformer is told at each step: whole numbers, cut and not rounded.
pub fn timesteps(sigmas: &[f64]) -> Vec<f64> {
    sigmas.iter().take(sigmas.len().saturating_sub(1)).map(|sigma| (sigma * TRAIN_TIMESTEPS).trunc()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_zero_and_starts_below_one() {
        let sigmas = sigma_schedule(4, 5.0);
        assert_eq!(sigmas.len(), 5);
        assert_eq!(sigmas[0], 1.0 - 1e-6);
        assert_eq!(sigmas[4], 0.0);
        assert!(sigmas.is_sorted_by(|a, b| a > b));
        assert_eq!(timesteps(&sigmas)[0], 999.0);
    }

    #[test]
    fn no_steps_leave_the_last_sigma_alone() {
        assert_eq!(sigma_schedule(0, 5.0), [0.0]);
        assert!(timesteps(&[0.0]).is_empty());
    }
}
