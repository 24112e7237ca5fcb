//! One step from noise towards latents: which transformer predicts, and with which guidance.

use engine_protocol::{Config, ModelSpec, PoolSpec};
use tch::{Kind, Tensor};

use super::denoising::Denoising;
use super::link::Link;
use super::loading::Loadable;
use super::prompts::PromptEmbeddings;
use crate::collectives::{Collectives, agreed, summed};
use crate::context_parallel::Ranks;
use crate::error::{Error, Result};
use crate::finite;
use crate::flexcache::{self, StepCache, Turn, Velocity};
use crate::memory::Residency;
use crate::scheduler::TRAIN_TIMESTEPS;
use crate::transformer::{Context, Timestep, Transformer};
use crate::weights::{LeftOut, kind_of};

/// Passes of guidance, by their place in a cache.
const COND: usize = 0;
const UNCOND: usize = 1;

/// The transformers.
#[derive(Debug)]
pub(super) struct Denoiser {
    pool: Option<PoolSpec>,
    transformer: Transformer,
    /// What some steps reuse, where the configuration has that.
    cache: Option<StepCache>,
    /// What foretells predictions, where the configuration has that.
    velocity: Option<Velocity>,
    ranks: Ranks,
    /// The transformer that predicted last.
    last: usize,
    /// Weights of the only one, or of a pool's high-noise and its low-noise one; none where latents are denoised already.
    pub(super) weights: Vec<Loadable>,
}

impl Denoiser {
    /// One transformer with its weights, or a pool's two, as one of `ranks`.
    pub(super) fn new(config: &Config, model: &ModelSpec, ranks: Ranks, weights: Vec<Loadable>) -> Self {
        Self {
            pool: model.pool.clone(),
            transformer: Transformer::of(config, &model.transformer).with_sequence(ranks.sequence.clone()),
            cache: StepCache::of(config, model).map(|cache| cache.with_ranks(ranks.sequence.group().clone())),
            velocity: Velocity::of(config),
            ranks,
            last: 0,
            weights,
        }
    }

    /// How much what `timesteps` become differs from step to step (see [`flexcache::changes`]), as the first rank has it. They are looked at all at once.
    pub(super) fn changes(&mut self, link: &mut Link, timesteps: &[f64], modulations: bool) -> Result<Vec<f64>> {
        let weights = self.weights[0].get()?;
        let conditions = self.transformer.timestep_conditions(weights, timesteps, modulations, link.device.torch)?;
        let changes = flexcache::changes(&link.download(&conditions)?.f_to_kind(Kind::Float)?)?;
        agreed(self.ranks.all.as_ref(), &changes)
    }

    /// One step of `denoising`. After an error it is as far as it was before.
    pub(super) fn step(&mut self, config: &Config, link: &mut Link, prompts: &PromptEmbeddings, denoising: &mut Denoising) -> Result<()> {
        if self.weights.is_empty() {
            return Err(Error::Input("there is no transformer: the pipeline was loaded for later stages".into()));
        }
        let (Some(timestep), Some((place, turn))) = (denoising.timestep(), denoising.turn()) else {
            return Err(Error::Input("all steps are done: begin another denoising".into()));
        };
        let (expert, guidance_scale) = self.expert(config, timestep.value);
        let (step, total, is_computed) = (denoising.done() + 1, denoising.total(), link.device.computes);
        if std::mem::replace(&mut self.last, expert) != expert {
            self.cache.iter_mut().for_each(StepCache::forget);
            self.velocity.iter_mut().for_each(Velocity::forget);
        }
        let (sigmas, latents) = (denoising.sigmas(), denoising.latents().shallow_clone());
        let foretold = match &mut self.velocity {
            Some(velocity) => velocity.prediction(turn, sigmas, self.ranks.all.as_ref())?,
            None => None,
        };
        if let Some(prediction) = foretold {
            denoising.advance(&prediction, is_computed, true).map_err(|error| finite::in_step(error, step, total))?;
            self.end_if_over(denoising);
            return Ok(());
        }
        let weights = self.weights[expert].get()?;
        let cache = self.cache.as_mut();
        let image = denoising.seen();
        let guidance = self.ranks.guidance.as_ref();
        let mut pass =
            Pass { config, image, link, guidance, transformer: &self.transformer, weights, timestep, cache, place, turn, reused: true };
        let prediction = pass.with_guidance(guidance_scale, &denoising.input()?, prompts);
        let reused = pass.reused;
        let prediction = prediction
            .and_then(|prediction| denoising.advance(&prediction, is_computed, reused).map(|()| prediction))
            .map_err(|error| finite::in_step(error, step, total))?;
        if let Some(velocity) = &mut self.velocity {
            velocity.computed(sigmas, latents, prediction, denoising.latents());
        }
        self.end_if_over(denoising);
        Ok(())
    }

    /// Gives back what a video needed, where that is done.
    fn end_if_over(&mut self, denoising: &Denoising) {
        if denoising.is_over() {
            self.weights.iter_mut().for_each(Loadable::release);
            self.cache.iter_mut().for_each(StepCache::release);
            self.velocity.iter_mut().for_each(Velocity::forget);
        }
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
    /// What an image encoder says of a picture, on the CPU.
    image: Option<&'a Tensor>,
    link: &'a mut Link,
    /// Who predicts cond and who uncond; or one both.
    guidance: &'a dyn Collectives,
    transformer: &'a Transformer,
    weights: &'a mut Residency,
    timestep: Timestep,
    cache: Option<&'a mut StepCache>,
    /// The step's place among all, and what it does.
    place: usize,
    turn: Turn,
    /// Each prediction until now left blocks out.
    reused: bool,
}

impl Pass<'_> {
    /// The prediction for `latents`, both on the CPU in fp32: cond, and uncond where there is guidance.
    fn with_guidance(&mut self, guidance_scale: f64, latents: &Tensor, prompts: &PromptEmbeddings) -> Result<Tensor> {
        if guidance_scale <= 1.0 {
            return self.predict(COND, latents, &prompts.cond()?);
        }
        let [cond, uncond] = if self.config.guidance_batch == Some(true) {
            let both = self.predict(COND, &latents.f_repeat([2, 1, 1, 1, 1])?, &prompts.both)?;
            [both.f_narrow(0, 0, 1)?, both.f_narrow(0, 1, 1)?]
        } else if self.guidance.size() > 1 {
            self.exchanged(latents, prompts)?
        } else {
            [self.predict(COND, latents, &prompts.cond()?)?, self.predict(UNCOND, latents, &prompts.uncond()?)?]
        };
        // uncond + scale * (cond - uncond)
        Ok(uncond.f_lerp(&cond, guidance_scale)?)
    }

    /// Cond and uncond, of which this rank predicts one.
    fn exchanged(&mut self, latents: &Tensor, prompts: &PromptEmbeddings) -> Result<[Tensor; 2]> {
        let own = match self.guidance.rank() {
            COND => self.predict(COND, latents, &prompts.cond()?)?,
            _ => self.predict(UNCOND, latents, &prompts.uncond()?)?,
        };
        let [computed] = summed(self.guidance, [f64::from(u8::from(!self.reused))])?;
        self.reused = computed == 0.0;
        let both = self.guidance.all_gather(&own)?;
        Ok([both[COND].shallow_clone(), both[UNCOND].shallow_clone()])
    }

    /// The prediction for `latents`, both on the CPU in fp32, as that pass of guidance.
    fn predict(&mut self, branch: usize, latents: &Tensor, prompt: &Tensor) -> Result<Tensor> {
        let input = self.link.upload(&latents.f_to_kind(kind_of(self.config.dtype))?)?;
        let videos = latents.size()[0];
        let image = self
            .image
            .map(|image| self.link.upload(&image.f_to_kind(kind_of(self.config.dtype))?.f_repeat([videos, 1, 1])?))
            .transpose()?;
        let context = Context { prompt, image: image.as_ref() };
        let prediction = if let Some(cache) = &mut self.cache {
            let mut pass = cache.pass(branch, self.place, self.turn);
            self.weights.leave_out(pass.left_out());
            let prediction = self.transformer.forward_cached(self.weights, &input, self.timestep, context, &mut pass);
            self.weights.leave_out(LeftOut::default());
            self.reused &= pass.has_reused();
            self.link.passed(cache.take_transfers());
            prediction?
        } else {
            self.reused = false;
            self.transformer.forward(self.weights, &input, self.timestep, context)?
        };
        drop(input);
        self.link.download(&prediction)?.f_to_kind(Kind::Float).map_err(Into::into)
    }
}
