//! Samplers. They run on the CPU, in fp32 for tensors and in fp64 for coefficients: a step costs microseconds there, and nothing is decided
//! by a value that lives on the device.

mod dpmpp;
mod euler;
mod lcm;
mod multistep;
mod noise;
mod sigma_schedule;
mod unipc;

use engine_protocol::{Config, Sampler};
use tch::Tensor;

use crate::error::{Error, Result};
pub use noise::noise;
pub use sigma_schedule::{SigmaSchedule, TRAIN_TIMESTEPS};

/// A sampler on its way from noise to a clean sample.
#[derive(Debug)]
pub struct Scheduler {
    schedule: SigmaSchedule,
    /// Steps done.
    index: usize,
    method: Method,
}

/// How a step is taken, with what it remembers of those before.
#[derive(Debug)]
enum Method {
    UniPc(unipc::UniPc),
    Euler,
    DpmPp(dpmpp::DpmPp),
    /// With the seed of its noise.
    Lcm(i64),
}

impl Scheduler {
    /// `sampler` with `steps` steps and the sigma schedule shifted by `shift`. Where it draws noise, that comes from `seed`.
    pub fn new(sampler: Sampler, steps: usize, shift: f64, seed: i64) -> Self {
        Self::walking(SigmaSchedule::new(sampler, steps, shift), sampler, seed)
    }

    /// The sampler and the schedule that `config` means.
    pub fn of(config: &Config) -> Self {
        Self::walking(SigmaSchedule::of(config), config.sampler, config.seed)
    }

    fn walking(schedule: SigmaSchedule, sampler: Sampler, seed: i64) -> Self {
        let method = match sampler {
            Sampler::Unipc => Method::UniPc(unipc::UniPc::default()),
            Sampler::Euler => Method::Euler,
            Sampler::Dpmpp => Method::DpmPp(dpmpp::DpmPp::default()),
            Sampler::Lcm => Method::Lcm(seed),
        };
        Self { schedule, index: 0, method }
    }

    /// What the transformer is told at each step.
    pub fn timesteps(&self) -> &[f64] {
        &self.schedule.timesteps
    }

    /// The noise level at each step, and the last zero, rounded to fp32.
    pub fn sigmas(&self) -> &[f64] {
        &self.schedule.sigmas
    }

    /// The sample after the next step, from the transformer's prediction for `sample`. Both are fp32 and on the CPU.
    ///
    /// The sampler may keep `sample` until the next step: do not write into it.
    ///
    /// # Errors
    /// libtorch's, and a step after the last.
    pub fn step(&mut self, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let (schedule, index) = (&self.schedule, self.index);
        if index >= schedule.steps() {
            return Err(Error::Input(format!("the sampler has done all of its {} steps: start a new one", schedule.steps())));
        }
        let next = match &mut self.method {
            Method::UniPc(method) => method.step(schedule, index, prediction, sample)?,
            Method::Euler => euler::step(schedule, index, prediction, sample)?,
            Method::DpmPp(method) => method.step(schedule, index, prediction, sample)?,
            Method::Lcm(seed) => lcm::step(schedule, index, *seed, prediction, sample)?,
        };
        self.index += 1;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_protocol::{ModelSpec, Settings, parse_setting};
    use tch::{Device, Kind};

    const SAMPLERS: [Sampler; 4] = [Sampler::Unipc, Sampler::Euler, Sampler::Dpmpp, Sampler::Lcm];

    #[test]
    fn a_true_prediction_arrives_at_the_clean_sample() {
        let clean = Tensor::from_slice(&[0.5f32, -2.0]);
        let noise = Tensor::from_slice(&[1.0f32, 0.25]);
        for sampler in SAMPLERS {
            for steps in [1, 2, 6, 40] {
                let mut scheduler = Scheduler::new(sampler, steps, 3.0, 0);
                let mut sample = clean.lerp(&noise, scheduler.sigmas()[0]);
                for step in 0..steps {
                    // The way from the clean sample to the noise that is in it: the first, or new one.
                    let way = (&sample - &clean) / scheduler.sigmas()[step];
                    sample = scheduler.step(&way, &sample).unwrap();
                }
                let error = (sample - &clean).abs().max().double_value(&[]);
                assert!(error < 1e-5, "{sampler:?}, {steps} steps: off by {error:e}");
            }
        }
    }

    /// Wan2.2-Lightning's four levels are even ones, shifted by 5.
    #[test]
    fn levels_that_are_named_are_walked() {
        let words = ["sampler=euler", "sigmas=1, 0.9375, 0.833333333, 0.625"].map(|word| parse_setting(word).unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        let model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let config = Config::resolve(&Settings::from_pairs(words).unwrap(), &model).unwrap();
        let scheduler = Scheduler::of(&config);
        let shifted = |even: f64| f64::from((5.0 * even / (1.0 + 4.0 * even)) as f32);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(
            scheduler.sigmas().iter().zip([1.0, 0.75, 0.5, 0.25, 0.0]).all(|(level, even)| near(*level, shifted(even))),
            "{scheduler:?}"
        );
        assert!(scheduler.timesteps().iter().zip([1000.0, 937.5, 833.333_3, 625.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{scheduler:?}");
    }

    #[test]
    fn a_step_too_many_is_refused() {
        let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        for sampler in SAMPLERS {
            let mut scheduler = Scheduler::new(sampler, 1, 1.0, 0);
            let _ = scheduler.step(&zero, &zero).unwrap();
            let message = scheduler.step(&zero, &zero).unwrap_err().to_string();
            assert_eq!(message, "the sampler has done all of its 1 steps: start a new one");
        }
    }
}
