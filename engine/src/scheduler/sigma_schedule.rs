//! Noise levels of a flow-matching sampler: evenly spaced, then shifted towards noise. Each sampler's reference does that in its own way, and what
//! it tells the transformer follows from it.
//!
//! Facts from `set_timesteps` of diffusers 0.42.1's `src/diffusers/schedulers/scheduling_{unipc_multistep,flow_match_euler_discrete,flow_match_lcm,dpmsolver_multistep}.py`.

use engine_protocol::{Config, Sampler};

/// Timesteps of training: what the transformer is told is sigma times this.
pub const TRAIN_TIMESTEPS: f64 = 1000.0;

/// The first sigma of UniPC stays this far below one, where the signal's share would be zero and its logarithm infinite.
const FIRST_SIGMA_GAP: f64 = 1e-6;

/// The noise levels of a run, and what the transformer is told at each.
#[derive(Debug, Clone)]
pub struct SigmaSchedule {
    /// From noise to image, and a last zero: one more than there are steps. Rounded to fp32, as the references keep them.
    pub sigmas: Vec<f64>,
    /// One a step. Whole numbers, cut and not rounded, but for Euler's and LCM's.
    pub timesteps: Vec<f64>,
}

impl SigmaSchedule {
    /// The schedule of `steps` steps of `sampler`, shifted towards noise by `shift`.
    pub fn new(sampler: Sampler, steps: usize, shift: f64) -> Self {
        let exact = match sampler {
            Sampler::Unipc => unipc(steps, shift),
            Sampler::Euler | Sampler::Lcm => euler(steps, shift),
            Sampler::Dpmpp => dpmpp(steps, shift),
        };
        let mut sigmas: Vec<f64> = exact.iter().map(|&sigma| f64::from(sigma as f32)).collect();
        let timesteps = match sampler {
            // The reference of these rounds first and multiplies then, in fp32.
            Sampler::Euler | Sampler::Lcm => sigmas.iter().map(|&sigma| f64::from(sigma as f32 * TRAIN_TIMESTEPS as f32)).collect(),
            Sampler::Unipc | Sampler::Dpmpp => exact.iter().map(|&sigma| (sigma * TRAIN_TIMESTEPS).trunc()).collect(),
        };
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }

    /// The schedule that `config` means: the levels that it names, or its sampler's own.
    pub fn of(config: &Config) -> Self {
        let Some(levels) = &config.sigmas else { return Self::new(config.sampler, config.steps as usize, config.flow_shift) };
        let levels = levels.levels().iter().map(|&level| level as f32);
        let timesteps = levels.clone().map(|level| f64::from(level * TRAIN_TIMESTEPS as f32)).collect();
        Self { sigmas: levels.map(f64::from).chain([0.0]).collect(), timesteps }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Logarithm of the signal's share over the noise's at step `index`: infinite at sigma zero.
    pub(super) fn log_ratio(&self, index: usize) -> f64 {
        let sigma = self.sigmas[index];
        // In fp32 like the reference's, whose rounding is what counts for sigmas close to one.
        f64::from((1.0 - sigma) as f32).ln() - sigma.ln()
    }
}

/// From one down to one timestep of training, without that last one; the first a little below one.
fn unipc(steps: usize, shift: f64) -> Vec<f64> {
    let even = evenly(1.0, 1.0 / TRAIN_TIMESTEPS, steps + 1);
    let mut sigmas: Vec<f64> = even.take(steps).map(|sigma| shifted(sigma, shift)).collect();
    if let Some(first) = sigmas.first_mut()
        && (*first - 1.0).abs() < FIRST_SIGMA_GAP
    {
        *first -= FIRST_SIGMA_GAP;
    }
    sigmas
}

/// From one down to one timestep of training, that one included. Its end has been shifted before, in fp32: the reference shifts training's own
/// schedule and takes its ends, and then shifts what lies between.
fn euler(steps: usize, shift: f64) -> Vec<f64> {
    let last = 1.0 / TRAIN_TIMESTEPS as f32;
    let last = shift as f32 * last / (1.0 + (shift - 1.0) as f32 * last);
    let timesteps = evenly(TRAIN_TIMESTEPS, f64::from(last) * TRAIN_TIMESTEPS, steps);
    timesteps.map(|timestep| shifted(timestep / TRAIN_TIMESTEPS, shift)).collect()
}

/// The signal's share is what is even here: it runs from one timestep of training up to one.
fn dpmpp(steps: usize, shift: f64) -> Vec<f64> {
    let sigmas: Vec<f64> = evenly(1.0, 1.0 / TRAIN_TIMESTEPS, steps + 1).map(|signal| shifted(1.0 - signal, shift)).collect();
    sigmas.into_iter().skip(1).rev().collect()
}

/// `count` numbers from `first` to `last`, with NumPy's roundings.
fn evenly(first: f64, last: f64, count: usize) -> impl Iterator<Item = f64> {
    let gaps = count.saturating_sub(1);
    let gap = (last - first) / gaps.max(1) as f64;
    (0..count).map(move |index| if index == gaps && gaps > 0 { last } else { index as f64 * gap + first })
}

fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLERS: [Sampler; 3] = [Sampler::Unipc, Sampler::Euler, Sampler::Dpmpp];

    #[test]
    fn every_schedule_falls_to_zero() {
        for sampler in SAMPLERS {
            let schedule = SigmaSchedule::new(sampler, 4, 5.0);
            assert_eq!((schedule.sigmas.len(), schedule.steps()), (5, 4), "{sampler:?}");
            assert_eq!(schedule.sigmas[4], 0.0, "{sampler:?}");
            assert!(schedule.sigmas.is_sorted_by(|a, b| a > b), "{sampler:?}");
        }
    }

    #[test]
    fn the_first_sigma_and_timestep_are_each_samplers_own() {
        let first = |sampler| {
            let schedule = SigmaSchedule::new(sampler, 4, 1.0);
            (schedule.sigmas[0] as f32, schedule.timesteps[0])
        };
        assert_eq!(first(Sampler::Unipc), (1.0 - 1e-6, 999.0));
        assert_eq!(first(Sampler::Euler), (1.0, 1000.0));
        assert_eq!(first(Sampler::Dpmpp), (0.999, 999.0));
    }

    #[test]
    fn no_steps_leave_the_last_sigma_alone() {
        for sampler in SAMPLERS {
            let schedule = SigmaSchedule::new(sampler, 0, 5.0);
            assert_eq!((schedule.sigmas, schedule.timesteps), (vec![0.0], vec![]), "{sampler:?}");
        }
    }
}
