//! From prompt to video: the only file that knows all stages.
//!
//! # Example
//! A video from a checkpoint, on the CPU:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use engine::{Checkpoint, Pipeline, Target};
//! use engine_protocol::{Config, Settings};
//!
//! # fn main() -> engine::Result<()> {
//! let checkpoint = Checkpoint::open(Path::new("Wan2.1-T2V-1.3B-Diffusers"))?;
//! let settings = [("prompt", "a cat".into()), ("low_mem_level", 3.into()), ("dtype", "fp32".into())];
//! let settings = Settings::from_pairs(settings.map(|(key, value)| (key.to_owned(), value)))?;
//! let config = Config::resolve(&settings, checkpoint.model())?;
//! let mut pipeline = Pipeline::from_checkpoint(&checkpoint, &config, Target::cpu())?;
//! pipeline.generate(Path::new("cat.mp4"))
//! # }
//! ```

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use engine_protocol::{Config, HostRates, ModelSpec, OffloadTextEncoder, Secs, Stage, Transfers};
use tch::{Device, Kind, Tensor};

use crate::attribution::{Component, retag, within};
use crate::checkpoint::Checkpoint;
use crate::cuda;
use crate::denoising::Denoising;
use crate::error::{Error, Result};
use crate::memory::{Plan, Residency};
use crate::scheduler::TRAIN_TIMESTEPS;
use crate::text_encoder::{TextEncoder, Tokenizer};
use crate::timing;
use crate::transformer::Transformer;
use crate::vae::{self, Decoding, FrameSink, VaeDecoder};
use crate::video::{VideoFile, VideoShape};
use crate::weights::{Groups, Source, WeightTypes, kind_of};

/// Where the values of each part's weights come from.
#[derive(Debug)]
pub struct Sources {
    /// The text encoder's.
    pub text_encoder: Source,
    /// The transformer's; of a pool, the high-noise one's.
    pub transformer: Source,
    /// Of a pool, the low-noise transformer's.
    pub low_noise_transformer: Option<Source>,
    /// The VAE's.
    pub vae: Source,
}

/// What runs a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The device as libtorch names it.
    pub device: Device,
    /// Whether anything is computed there. On the virtual GPU nothing is, so a stage that a plan puts on the host hands on a tensor of the
    /// right shape instead of computing for minutes.
    pub computes: bool,
}

impl Target {
    /// The CPU, where everything is computed.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, computes: true }
    }

    /// The GPU: the first that `CUDA_VISIBLE_DEVICES` names.
    ///
    /// # Errors
    /// No GPU.
    pub fn gpu() -> Result<Self> {
        cuda::allocator::start(false)?;
        Ok(Self { device: Device::Cuda(cuda::DEVICE as usize), computes: true })
    }
}

/// What the two passes of guidance are conditioned on.
#[derive(Debug)]
pub struct PromptEmbeddings {
    /// `[prompts, tokens, d_model]`: cond, and uncond where there is guidance.
    both: Tensor,
}

impl PromptEmbeddings {
    fn cond(&self) -> Result<Tensor> {
        Ok(self.both.f_narrow(0, 0, 1)?)
    }

    fn uncond(&self) -> Result<Tensor> {
        Ok(self.both.f_narrow(0, 1, 1)?)
    }
}

/// A model with its weights in place, and the configuration it was placed for.
#[derive(Debug)]
pub struct Pipeline {
    config: Config,
    model: ModelSpec,
    target: Target,
    /// For the time of what the host leaves out.
    host_rates: Option<HostRates>,
    tokenizer: Tokenizer,
    /// Empty where prompts are encoded already.
    text_encoder: Option<(TextEncoder, Residency)>,
    /// One, or of a pool the high-noise and the low-noise one; none where latents are denoised already.
    transformers: Vec<(Transformer, Residency)>,
    vae: (VaeDecoder, Residency),
    transfers: Transfers,
}

impl Pipeline {
    /// Puts the weights where the plan of `config` has them.
    ///
    /// # Errors
    /// Memory that runs out, and what the sources cannot give.
    pub fn load(model: &ModelSpec, config: &Config, target: Target, sources: &Sources) -> Result<Self> {
        Self::load_from(Stage::Encode, model, config, target, sources)
    }

    /// As [`Pipeline::load`], for the stages from `first` on: what earlier ones need is left out.
    ///
    /// # Errors
    /// Those of [`Pipeline::load`].
    pub fn load_from(first: Stage, model: &ModelSpec, config: &Config, target: Target, sources: &Sources) -> Result<Self> {
        if model.pool.is_some() != sources.low_noise_transformer.is_some() {
            let count =
                if model.pool.is_some() { "two transformers, and the weights of one" } else { "one transformer, and the weights of two" };
            return Err(Error::Input(format!("{}: it has {count} were given", model.name)));
        }
        let plan = Plan::new(config, model);
        let types = WeightTypes::of(config);
        let place = |groups: Vec<_>, places: &[_], source| Residency::new(groups, places, types, target.device, source);

        let mut text_encoder = None;
        if first <= Stage::Encode {
            let groups = TextEncoder::groups(&model.text_encoder);
            text_encoder = Some((TextEncoder::new(&model.text_encoder), place(groups, &plan.text_encoder, &sources.text_encoder)?));
        }

        let mut transformers = Vec::new();
        let transformer_sources = [Some(&sources.transformer), sources.low_noise_transformer.as_ref()].into_iter().flatten();
        for (source, places) in transformer_sources.zip(&plan.transformers).filter(|_| first <= Stage::Denoise) {
            let network = Transformer::of(config, &model.transformer);
            transformers.push((network, place(Transformer::groups(&model.transformer), places, source)?));
        }

        let vae = (VaeDecoder::new(&model.vae), place(vae::groups(&model.vae), &plan.vae, &sources.vae)?);

        let (config, model, transfers) = (config.clone(), model.clone(), Transfers::default());
        Ok(Self { config, model, target, host_rates: None, tokenizer: Tokenizer::bytes(), text_encoder, transformers, vae, transfers })
    }

    /// As [`Pipeline::load`], from a checkpoint and with its tokenizer. All of it is found to be what the model needs before any of it is loaded.
    ///
    /// # Errors
    /// Memory that runs out, and what the checkpoint lacks.
    pub fn from_checkpoint(checkpoint: &Checkpoint, config: &Config, target: Target) -> Result<Self> {
        let (sources, tokenizer) = (checkpoint.sources()?, checkpoint.open_tokenizer()?);
        Ok(Self::load(checkpoint.model(), config, target, &sources)?.with_tokenizer(tokenizer))
    }

    /// What it was placed for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same pipeline with another tokenizer. Without this, tokens are bytes.
    #[must_use]
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ..self }
    }

    /// The same pipeline, which knows what the host's processor reaches: for the time of what a target that computes nothing leaves out.
    #[must_use]
    pub fn with_host_rates(self, host_rates: Option<HostRates>) -> Self {
        Self { host_rates, ..self }
    }

    /// The same pipeline with staging buffers that are written over as soon as a group lets go of them: see [`Residency::with_poisoned_buffers`].
    #[must_use]
    pub fn with_poisoned_buffers(self) -> Self {
        let poisoned = |(model, residency): (Transformer, Residency)| (model, residency.with_poisoned_buffers());
        Self {
            text_encoder: self.text_encoder.map(|(encoder, residency)| (encoder, residency.with_poisoned_buffers())),
            transformers: self.transformers.into_iter().map(poisoned).collect(),
            vae: (self.vae.0, self.vae.1.with_poisoned_buffers()),
            ..self
        }
    }

    /// All stages: makes the video that the configuration means and writes it to `output`, in the format that its name says.
    ///
    /// # Errors
    /// libtorch's, and an output that cannot be written.
    pub fn generate(&mut self, output: &Path) -> Result<()> {
        let prompts = self.encode_prompts()?;
        let noise = self.noise()?;
        let latents = self.denoise(&prompts, noise, |_, _| ())?;
        drop(prompts);
        let mut video = VideoFile::create(output, VideoShape::of(&self.config, &self.model), &latents)?;
        self.decode(&latents, &mut video, |_, _| ())?;
        video.finish()
    }

    /// Prompt embeddings of the configuration's prompts, on the device.
    ///
    /// # Errors
    /// libtorch's, and a prompt that the tokenizer cannot take.
    pub fn encode_prompts(&mut self) -> Result<PromptEmbeddings> {
        let tokens = |prompt: &str| self.tokenizer.tokens(prompt, self.model.text_encoder.max_tokens);
        let (cond, uncond) = (tokens(&self.config.prompt)?, tokens(&self.config.negative_prompt)?);
        self.encode(&cond, &uncond)
    }

    /// Prompt embeddings of token ids, on the device. `uncond` is not looked at without guidance.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode(&mut self, cond: &[i64], uncond: &[i64]) -> Result<PromptEmbeddings> {
        let mut prompts = vec![cond.to_vec()];
        if self.config.has_guidance() {
            prompts.push(uncond.to_vec());
        }
        let spec = &self.model.text_encoder;
        let on_host = self.config.offload_text_encoder == OffloadTextEncoder::Cpu;
        let device = if on_host { Device::Cpu } else { self.target.device };
        let both = if on_host && !self.target.computes {
            timing::leave_out(self.host_secs(&prompts));
            Tensor::f_empty([prompts.len() as i64, spec.max_tokens, spec.d_model], (kind_of(self.config.dtype), device))?
        } else {
            let Some((encoder, groups)) = &mut self.text_encoder else {
                return Err(Error::Input("there is no text encoder: the pipeline was loaded for later stages".into()));
            };
            let both = encoder.prompt_embedding(groups, &prompts, device)?;
            groups.release_staging();
            both
        };
        let both = if on_host { self.upload(&both)? } else { both };
        retag(&both, Component::Latents);
        Ok(PromptEmbeddings { both })
    }

    /// How long the host takes to encode `prompts`.
    fn host_secs(&self, prompts: &[Vec<i64>]) -> Option<Secs> {
        let tokens = prompts.iter().map(Vec::len).max()? as i64;
        let (operations, numbers) = TextEncoder::new(&self.model.text_encoder).linear_work(prompts.len() as i64, tokens);
        let bytes = numbers * kind_of(self.config.dtype).elt_size_in_bytes() as f64;
        self.host_rates.as_ref()?.linear_secs(self.config.dtype, operations, bytes)
    }

    /// A copy of prompt embeddings on the CPU, for another pipeline to [bring back](Pipeline::bring_back).
    ///
    /// # Errors
    /// libtorch's.
    pub fn keep(&mut self, prompts: &PromptEmbeddings) -> Result<PromptEmbeddings> {
        Ok(PromptEmbeddings { both: self.download(&prompts.both)? })
    }

    /// Prompt embeddings that were kept, on the device again.
    ///
    /// # Errors
    /// libtorch's.
    pub fn bring_back(&mut self, kept: &PromptEmbeddings) -> Result<PromptEmbeddings> {
        Ok(PromptEmbeddings { both: self.upload(&kept.both)? })
    }

    /// The starting noise of the configuration's seed: what PyTorch's CPU generator draws in fp32.
    ///
    /// # Shapes
    /// `[1, channels, frames, height, width]`, in latent pixels.
    ///
    /// # Errors
    /// libtorch's.
    pub fn noise(&self) -> Result<Tensor> {
        // PyTorch's generator is one for the whole process.
        static GENERATOR: Mutex<()> = Mutex::new(());
        let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(self.config.seed);
        let [channels, frames, height, width] = self.config.latent_shape(&self.model);
        Ok(Tensor::f_randn([1, channels, frames, height, width], (Kind::Float, Device::Cpu))?)
    }

    /// Latents from noise. Both live on the CPU in fp32, where the sampler computes; `progress` hears of each step.
    ///
    /// # Errors
    /// libtorch's.
    pub fn denoise(&mut self, prompts: &PromptEmbeddings, noise: Tensor, mut progress: impl FnMut(u32, u32)) -> Result<Tensor> {
        let mut denoising = Denoising::new(&self.config, noise);
        while !denoising.is_over() {
            self.step(prompts, &mut denoising)?;
            progress(denoising.done(), denoising.total());
        }
        Ok(denoising.latents)
    }

    /// One step of a denoising, which another pipeline of the same model may have begun. After an error it is as far as it was before.
    ///
    /// # Errors
    /// libtorch's, and a step after the last.
    pub fn step(&mut self, prompts: &PromptEmbeddings, denoising: &mut Denoising) -> Result<()> {
        if self.transformers.is_empty() {
            return Err(Error::Input("there is no transformer: the pipeline was loaded for later stages".into()));
        }
        let Some(&timestep) = denoising.timesteps.get(denoising.done) else {
            return Err(Error::Input("all steps are done: begin another denoising".into()));
        };
        let prediction = self.predict_with_guidance(&denoising.latents, timestep, prompts)?;
        denoising.latents = denoising.scheduler.step(&prediction, &denoising.latents)?;
        denoising.done += 1;
        if denoising.is_over() {
            self.transformers.iter_mut().for_each(|(_, residency)| residency.release_staging());
        }
        Ok(())
    }

    /// Which transformer predicts at `timestep`, and with which guidance scale. One that has done its part gives its staging buffers back.
    fn expert(&mut self, timestep: f64) -> (usize, f64) {
        match (&self.model.pool, self.config.low_noise_guidance_scale) {
            (Some(pool), Some(low_noise_scale)) if timestep < pool.boundary * TRAIN_TIMESTEPS => {
                self.transformers[0].1.release_staging();
                (1, low_noise_scale)
            }
            _ => (0, self.config.guidance_scale),
        }
    }

    /// The prediction for `latents`, both on the CPU in fp32: cond, and uncond where there is guidance.
    fn predict_with_guidance(&mut self, latents: &Tensor, timestep: f64, prompts: &PromptEmbeddings) -> Result<Tensor> {
        let (expert, guidance_scale) = self.expert(timestep);
        if guidance_scale <= 1.0 {
            return self.predict(expert, latents, timestep, &prompts.cond()?);
        }
        let [cond, uncond] = if self.config.guidance_batch == Some(true) {
            let both = self.predict(expert, &latents.f_repeat([2, 1, 1, 1, 1])?, timestep, &prompts.both)?;
            [both.f_narrow(0, 0, 1)?, both.f_narrow(0, 1, 1)?]
        } else {
            let mut predict = |prompt: &Tensor| self.predict(expert, latents, timestep, prompt);
            [predict(&prompts.cond()?)?, predict(&prompts.uncond()?)?]
        };
        // uncond + scale * (cond - uncond)
        Ok(uncond.f_lerp(&cond, guidance_scale)?)
    }

    /// The prediction of transformer `expert` for `latents`, both on the CPU in fp32.
    fn predict(&mut self, expert: usize, latents: &Tensor, timestep: f64, prompt: &Tensor) -> Result<Tensor> {
        let input = self.upload(&latents.f_to_kind(kind_of(self.config.dtype))?)?;
        let (transformer, groups) = &mut self.transformers[expert];
        let prediction = transformer.forward(groups, &input, timestep, prompt)?;
        drop(input);
        self.download(&prediction)?.f_to_kind(Kind::Float).map_err(Into::into)
    }

    /// Frames from latents, each part given to `sink` as it is done; `progress` hears of each.
    ///
    /// # Errors
    /// libtorch's and the sink's.
    pub fn decode(&mut self, latents: &Tensor, sink: &mut dyn FrameSink, mut progress: impl FnMut(usize, usize)) -> Result<()> {
        let latents = vae::denormalise(&self.model.vae, latents)?.f_to_kind(kind_of(self.config.dtype))?;
        let latents = self.upload(&latents)?;
        let decoding = Decoding::of(&self.config)?;
        let mut counted = Counted { sink, bytes: 0 };
        let (decoder, groups) = &mut self.vae;
        let decode = |weights: &_| vae::decode_video(decoder, weights, &latents, decoding, &mut counted, &mut progress);
        let traffic = groups.with(0, decode)?;
        self.transfers.h2d_bytes += traffic.h2d_bytes;
        self.transfers.d2h_bytes += traffic.d2h_bytes;
        self.transfers.host_pinned_peak_bytes = self.transfers.host_pinned_peak_bytes.max(traffic.pinned_bytes);
        if self.target.device.is_cuda() {
            self.transfers.d2h_bytes += counted.bytes;
        }
        self.vae.1.release_staging();
        Ok(())
    }

    /// What crossed between host and device until now, and what is page-locked.
    pub fn transfers(&self) -> Transfers {
        let mut transfers = self.transfers;
        let residencies = self.transformers.iter().map(|(_, residency)| residency).chain([&self.vae.1]);
        let residencies = residencies.chain(self.text_encoder.as_ref().map(|(_, residency)| residency));
        for traffic in residencies.map(Residency::traffic) {
            transfers.h2d_bytes += traffic.h2d_bytes;
            transfers.host_pinned_peak_bytes += traffic.pinned_bytes;
        }
        transfers
    }

    fn upload(&mut self, tensor: &Tensor) -> Result<Tensor> {
        if self.target.device.is_cuda() {
            self.transfers.h2d_bytes += bytes_of(tensor);
        }
        Ok(within(Component::Latents, || tensor.f_to_device(self.target.device))?)
    }

    fn download(&mut self, tensor: &Tensor) -> Result<Tensor> {
        if self.target.device.is_cuda() {
            self.transfers.d2h_bytes += bytes_of(tensor);
        }
        Ok(tensor.f_to_device(Device::Cpu)?)
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// A sink that counts the bytes that go through it.
struct Counted<'a> {
    sink: &'a mut dyn FrameSink,
    bytes: u64,
}

impl FrameSink for Counted<'_> {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()> {
        self.bytes += bytes_of(pixels);
        self.sink.accept(first_frame, first_row, pixels)
    }

    fn takes_colours(&self) -> bool {
        self.sink.takes_colours()
    }
}
