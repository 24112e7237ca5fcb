//! A denoising under way: its latents and its sampler, both on the CPU, so that it can go on in another pipeline. What predicts is not known
//! here.

use std::sync::{Mutex, PoisonError};

use engine_protocol::Config;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::finite;
use crate::scheduler::Scheduler;

/// The starting noise of a seed: what PyTorch's CPU generator draws in fp32.
///
/// # Shapes
/// `shape` is `[channels, frames, height, width]`, in latent pixels; the result has a batch of one before it.
pub(super) fn noise(seed: i64, shape: [i64; 4]) -> Result<Tensor> {
    // PyTorch's generator is one for the whole process.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    let [channels, frames, height, width] = shape;
    Ok(Tensor::f_randn([1, channels, frames, height, width], (Kind::Float, Device::Cpu))?)
}

/// From noise to latents, as far as it is.
#[derive(Debug)]
pub struct Denoising {
    scheduler: Scheduler,
    /// `[1, channels, frames, height, width]`, fp32.
    latents: Tensor,
    /// Of the steps that are taken.
    timesteps: Vec<f64>,
    done: usize,
}

impl Denoising {
    /// From `noise`, no step taken yet.
    pub fn new(config: &Config, noise: Tensor) -> Self {
        let scheduler = Scheduler::new(config.sampler, config.steps as usize, config.flow_shift);
        let steps = steps_to_run(config.steps as usize, config.steps_to_run() as usize);
        let timesteps = steps.iter().map(|&step| scheduler.timesteps()[step]).collect();
        Self { scheduler, latents: noise, timesteps, done: 0 }
    }

    /// Steps that are done.
    pub fn done(&self) -> u32 {
        self.done as u32
    }

    /// Steps in all.
    pub fn total(&self) -> u32 {
        self.timesteps.len() as u32
    }

    /// Whether all steps are done.
    pub fn is_over(&self) -> bool {
        self.done == self.timesteps.len()
    }

    /// The timestep of the next step; empty where all are done.
    pub(super) fn timestep(&self) -> Option<f64> {
        self.timesteps.get(self.done).copied()
    }

    /// Takes the next step, by a model's prediction for the latents at its timestep. `is_computed`: the prediction has values.
    ///
    /// # Errors
    /// libtorch's, and latents that are not finite after it.
    pub(super) fn advance(&mut self, prediction: &Tensor, is_computed: bool) -> Result<()> {
        let latents = self.scheduler.step(prediction, &self.latents)?;
        if is_computed {
            finite::check(&latents, || "the latents".into())?;
        }
        self.latents = latents;
        self.done += 1;
        Ok(())
    }

    /// The latents at the end.
    pub(super) fn into_latents(self) -> Tensor {
        self.latents
    }

    /// The latents as they are.
    ///
    /// # Shapes
    /// `[1, channels, frames, height, width]`, fp32, on the CPU.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }
}

/// Which of `all` steps a run of `wanted` steps takes: all, or the first, the last, and some evenly between, so that each transformer of a pool
/// is among what is measured.
fn steps_to_run(all: usize, wanted: usize) -> Vec<usize> {
    let gaps = wanted.saturating_sub(1).max(1);
    (0..wanted.min(all)).map(|step| step * (all - 1) / gaps).collect()
}

#[cfg(test)]
mod tests {
    use super::steps_to_run;

    #[test]
    fn a_part_of_the_steps_holds_the_first_and_the_last() {
        assert_eq!(steps_to_run(4, 4), [0, 1, 2, 3]);
        assert_eq!(steps_to_run(50, 2), [0, 49]);
        assert_eq!(steps_to_run(50, 3), [0, 24, 49]);
        assert_eq!(steps_to_run(50, 1), [0]);
        assert_eq!(steps_to_run(1, 1), [0]);
    }
}
