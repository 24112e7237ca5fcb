//! One step from noise towards latents: which transformer predicts, and with which guidance.

use engine_protocol::{Config, PoolSpec};
use tch::{Kind, Tensor};

use super::denoising::Denoising;
use super::link::Link;
use super::loading::Loadable;
use super::prompts::PromptEmbeddings;
use crate::error::{Error, Result};
use crate::finite;
use crate::memory::Residency;
use crate::scheduler::TRAIN_TIMESTEPS;
use crate::transformer::Transformer;
use crate::weights::kind_of;

/// The transformers.
#[derive(Debug)]
pub(super) struct Denoiser {
    pool: Option<PoolSpec>,
    transformer: Transformer,
    /// Weights of the only one, or of a pool's high-noise and its low-noise one; none where latents are denoised already.
    pub(super) weights: Vec<Loadable>,
}

impl Denoiser {
    /// One transformer with its weights, or a pool's two.
    pub(super) fn new(transformer: Transformer, pool: Option<PoolSpec>, weights: Vec<Loadable>) -> Self {
        Self { pool, transformer, weights }
    }

    /// One step of `denoising`. After an error it is as far as it was before.
    pub(super) fn step(&mut self, config: &Config, link: &mut Link, prompts: &PromptEmbeddings, denoising: &mut Denoising) -> Result<()> {
        if self.weights.is_empty() {
            return Err(Error::Input("there is no transformer: the pipeline was loaded for later stages".into()));
        }
        let Some(timestep) = denoising.timestep() else {
            return Err(Error::Input("all steps are done: begin another denoising".into()));
        };
        let (expert, guidance_scale) = self.expert(config, timestep);
        let (step, total, is_computed) = (denoising.done() + 1, denoising.total(), link.device.computes);
        let mut pass = Pass { config, link, transformer: &self.transformer, weights: self.weights[expert].get()?, timestep };
        let prediction = pass.with_guidance(guidance_scale, denoising.latents(), prompts);
        prediction
            .and_then(|prediction| denoising.advance(&prediction, is_computed))
            .map_err(|error| finite::in_step(error, step, total))?;
        if denoising.is_over() {
            self.weights.iter_mut().for_each(Loadable::release);
        }
        Ok(())
    }

    /// Which transformer predicts at `timestep`, and with which guidance scale. One that has done its part gives back what it need not keep.
    fn expert(&mut self, config: &Config, timestep: f64) -> (usize, f64) {
        match (&self.pool, config.low_noise_guidance_scale) {
            (Some(pool), Some(low_noise_scale)) if timestep < pool.boundary * TRAIN_TIMESTEPS => {
                self.weights[0].release();
                (1, low_noise_scale)
            }
            _ => (0, config.guidance_scale),
        }
    }
}

/// Predictions of one transformer at one timestep.
struct Pass<'a> {
    config: &'a Config,
    link: &'a mut Link,
    transformer: &'a Transformer,
    weights: &'a mut Residency,
    timestep: f64,
}

impl Pass<'_> {
    /// The prediction for `latents`, both on the CPU in fp32: cond, and uncond where there is guidance.
    fn with_guidance(&mut self, guidance_scale: f64, latents: &Tensor, prompts: &PromptEmbeddings) -> Result<Tensor> {
        if guidance_scale <= 1.0 {
            return self.predict(latents, &prompts.cond()?);
        }
        let [cond, uncond] = if self.config.guidance_batch == Some(true) {
            let both = self.predict(&latents.f_repeat([2, 1, 1, 1, 1])?, &prompts.both)?;
            [both.f_narrow(0, 0, 1)?, both.f_narrow(0, 1, 1)?]
        } else {
            [self.predict(latents, &prompts.cond()?)?, self.predict(latents, &prompts.uncond()?)?]
        };
        // uncond + scale * (cond - uncond)
        Ok(uncond.f_lerp(&cond, guidance_scale)?)
    }

    /// The prediction for `latents`, both on the CPU in fp32.
    fn predict(&mut self, latents: &Tensor, prompt: &Tensor) -> Result<Tensor> {
        let input = self.link.upload(&latents.f_to_kind(kind_of(self.config.dtype))?)?;
        let prediction = self.transformer.forward(self.weights, &input, self.timestep, prompt)?;
        drop(input);
        self.link.download(&prediction)?.f_to_kind(Kind::Float).map_err(Into::into)
    }
}
