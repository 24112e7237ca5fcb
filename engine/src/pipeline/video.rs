//! From a prompt, and a picture where the model takes one, to a video: the pipeline of Wan's models. What other pipelines need too is in the files beside this one.
//!
//! # Example
//! A video from a checkpoint, on the CPU:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use engine::{Checkpoint, ComputeDevice, Pipeline};
//! use engine_protocol::{Config, Settings};
//!
//! # fn main() -> engine::Result<()> {
//! let checkpoint = Checkpoint::open(Path::new("Wan2.1-T2V-1.3B-Diffusers"))?;
//! let settings = [("prompt", "a cat".into()), ("low_mem_level", 3.into()), ("dtype", "fp32".into())];
//! let settings = Settings::from_pairs(settings.map(|(key, value)| (key.to_owned(), value)))?;
//! let config = Config::resolve(&settings, checkpoint.model())?;
//! let mut pipeline = Pipeline::from_checkpoint(&checkpoint, &config, ComputeDevice::cpu())?;
//! pipeline.generate(Path::new("cat.mp4"))
//! # }
//! ```

use std::path::Path;
use std::sync::Arc;

use engine_protocol::{Config, DiskRate, HostRates, ModelSpec, Stage, Transfers};
use tch::Tensor;

use super::denoiser::Denoiser;
use super::denoising::Denoising;
use super::frame_decoder::FrameDecoder;
use super::image_condition::ImageCondition;
use super::link::Link;
use super::loading::{Loadable, Loading};
use super::picture_encoder::PictureEncoder;
use super::prompts::{PromptEmbeddings, PromptEncoder};
use super::stills::Stills;
use crate::checkpoint::Checkpoint;
use crate::components::{IMAGE_ENCODER, LOW_NOISE_TRANSFORMER, Sources, TEXT_ENCODER, TRANSFORMER, VAE, VAE_ENCODER};
use crate::compute_device::ComputeDevice;
use crate::error::{Error, Result};
use crate::finite;
use crate::flexcache::{asks_for_modulations, turns};
use crate::scheduler::{SigmaSchedule, noise};
use crate::text_encoder::Tokenizer;
use crate::vae::FrameSink;
use crate::video::{VideoFile, VideoShape};

/// A model with its weights in place, and the configuration it was placed for.
#[derive(Debug)]
pub struct Pipeline {
    config: Config,
    model: ModelSpec,
    link: Link,
    prompts: PromptEncoder,
    /// Of a video that begins with a picture.
    pictures: Option<PictureEncoder>,
    denoiser: Denoiser,
    /// Of a rank that decodes.
    frames: Option<FrameDecoder>,
}

impl Pipeline {
    /// Puts the weights where the plan of `config` has them; or is ready to, where they are loaded as they are used. Of several ranks, which the sources name, each has a pipeline:
    /// the first one encodes for all, they denoise together, each comes to the same latents, and of those that are decoded in tiles each decodes some.
    ///
    /// # Errors
    /// Memory that runs out, and what the sources cannot give.
    pub fn load(model: &ModelSpec, config: &Config, device: ComputeDevice, sources: &Sources) -> Result<Self> {
        Self::load_from(Stage::Encode, model, config, device, sources)
    }

    /// As [`Pipeline::load`], for the stages from `first` on: what earlier ones need is left out.
    ///
    /// # Errors
    /// Those of [`Pipeline::load`].
    pub fn load_from(first: Stage, model: &ModelSpec, config: &Config, device: ComputeDevice, sources: &Sources) -> Result<Self> {
        let loading = Loading::new(model, config, device.torch, sources)?;
        let ranks = loading.ranks();
        let encoder_weights = if first <= Stage::Encode { loading.find(TEXT_ENCODER)? } else { None };
        let input = model.image.filter(|_| first <= Stage::EncodeImage && config.has_image(model));
        let pictures = input.map(|input| {
            let weights = loading.find(VAE_ENCODER)?.into_iter().chain(loading.find(IMAGE_ENCODER)?).collect();
            Ok::<_, Error>(PictureEncoder::new(model, input, Arc::clone(&ranks.all), weights))
        });
        let mut transformer_weights = Vec::new();
        if first <= Stage::Denoise {
            transformer_weights.push(loading.get(TRANSFORMER)?);
            transformer_weights.extend(loading.find(LOW_NOISE_TRANSFORMER)?);
        }
        let frames = loading.find(VAE)?.map(|weights| FrameDecoder::new(&model.vae, Arc::clone(&ranks.all), weights));

        Ok(Self {
            config: config.clone(),
            model: model.clone(),
            link: Link::new(device),
            prompts: PromptEncoder::new(&model.text_encoder, Arc::clone(&ranks.all), encoder_weights),
            pictures: pictures.transpose()?,
            denoiser: Denoiser::new(config, model, ranks.clone(), transformer_weights),
            frames,
        })
    }

    /// As [`Pipeline::load`], from a checkpoint and with its tokenizer. All of it is found to be what the model needs before any of it is loaded.
    ///
    /// # Errors
    /// Memory that runs out, and what the checkpoint lacks.
    pub fn from_checkpoint(checkpoint: &Checkpoint, config: &Config, device: ComputeDevice) -> Result<Self> {
        let (sources, tokenizer) = (checkpoint.sources()?, checkpoint.open_tokenizer()?);
        Ok(Self::load(checkpoint.model(), config, device, &sources)?.with_tokenizer(tokenizer))
    }

    /// What it was placed for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same pipeline with another tokenizer. Without this, tokens are bytes.
    #[must_use]
    pub fn with_tokenizer(mut self, tokenizer: Tokenizer) -> Self {
        self.prompts.tokenizer = tokenizer;
        self
    }

    /// Whether this rank takes part in decoding: the first one, and where there are tiles all.
    pub fn decodes(&self) -> bool {
        self.frames.is_some()
    }

    /// The same pipeline, which knows what the host's processor reaches: for the time of what a device that computes nothing leaves out.
    #[must_use]
    pub fn with_host_rates(mut self, host_rates: Option<HostRates>) -> Self {
        self.prompts.host_rates = host_rates;
        self
    }

    /// The same pipeline, which knows what the disk gives that streamed weights are read from: for the time that a device which computes nothing leaves out.
    #[must_use]
    pub fn with_disk(mut self, disk: DiskRate) -> Self {
        self.weights().for_each(|weights| weights.set_disk(disk));
        self
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Loadable> {
        let pictures = self.pictures.iter_mut().flat_map(|pictures| &mut pictures.weights);
        self.prompts
            .weights
            .iter_mut()
            .chain(pictures)
            .chain(&mut self.denoiser.weights)
            .chain(self.frames.iter_mut().map(|frames| &mut frames.weights))
    }

    /// The same pipeline with staging buffers that are written over as soon as a group lets go of them: see [`crate::memory::Residency::poison_buffers`].
    #[must_use]
    pub fn with_poisoned_buffers(mut self) -> Self {
        self.weights().for_each(Loadable::poison_buffers);
        self
    }

    /// All stages: makes the video that the configuration means and writes it to `output`, in the format that its name says.
    ///
    /// # Errors
    /// libtorch's, and an output that cannot be written.
    pub fn generate(&mut self, output: &Path) -> Result<()> {
        let stills = Stills::of(&self.config, &self.model)?;
        let prompts = self.encode_prompts()?;
        let image = stills.map(|stills| self.encode_image(&stills, |_, _| ())).transpose()?;
        let noise = self.noise()?;
        let latents = self.denoise(&prompts, image, noise, |_, _| ())?;
        drop(prompts);
        let mut video = VideoFile::create(output, VideoShape::of(&self.config, &self.model), &latents)?;
        self.decode(&latents, &mut video, |_, _| ())?;
        video.finish()
    }

    /// Prompt embeddings of the configuration's prompts, on the device. All ranks call it.
    ///
    /// # Errors
    /// libtorch's, and a prompt that the tokenizer cannot take.
    pub fn encode_prompts(&mut self) -> Result<PromptEmbeddings> {
        let [cond, uncond] = self.prompts.tokens(&self.config)?;
        self.encode(&cond, &uncond)
    }

    /// Prompt embeddings of token ids, on the device. `uncond` is not looked at without guidance.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode(&mut self, cond: &[i64], uncond: &[i64]) -> Result<PromptEmbeddings> {
        let encoded = self.prompts.encode(&self.config, &mut self.link, cond, uncond);
        encoded.map_err(|error| explained(error, &self.config, &self.prompts.weights))
    }

    /// A copy of prompt embeddings on the CPU, for another pipeline to [bring back](Pipeline::bring_back).
    ///
    /// # Errors
    /// libtorch's.
    pub fn keep(&mut self, prompts: &PromptEmbeddings) -> Result<PromptEmbeddings> {
        Ok(PromptEmbeddings { both: self.link.download(&prompts.both)? })
    }

    /// Prompt embeddings that were kept, on the device again.
    ///
    /// # Errors
    /// libtorch's.
    pub fn bring_back(&mut self, kept: &PromptEmbeddings) -> Result<PromptEmbeddings> {
        Ok(PromptEmbeddings { both: self.link.upload(&kept.both)? })
    }

    /// What the video is given of its pictures, on the CPU; `progress` hears of each chunk that is encoded. All ranks call it.
    ///
    /// # Errors
    /// libtorch's, pictures of another size, and a pipeline whose video begins with none.
    pub fn encode_image(&mut self, stills: &Stills, mut progress: impl FnMut(usize, usize)) -> Result<ImageCondition> {
        let Some(pictures) = &mut self.pictures else {
            return Err(Error::Input(
                "there is no image encoder: the pipeline was loaded for later stages, or for a video without a picture".into(),
            ));
        };
        let encoded = pictures.encode(&self.config, &self.model, &mut self.link, stills, &mut progress);
        encoded.map_err(|error| explained(error, &self.config, self.pictures.iter().flat_map(|pictures| &pictures.weights)))
    }

    /// The starting noise of the configuration's seed.
    ///
    /// # Shapes
    /// `[1, channels, frames, height, width]`, in latent pixels.
    ///
    /// # Errors
    /// libtorch's.
    pub fn noise(&self) -> Result<Tensor> {
        let [channels, frames, height, width] = self.config.latent_shape(&self.model);
        noise(self.config.seed, &[1, channels, frames, height, width])
    }

    /// A denoising from noise and from what is given of a picture, no step taken yet: with it is settled which steps leave blocks out.
    ///
    /// # Errors
    /// libtorch's, and a speed-up that a cache cannot reach.
    pub fn begin(&mut self, image: Option<ImageCondition>, noise: Tensor) -> Result<Denoising> {
        let (config, model) = (&self.config, &self.model);
        let timesteps = SigmaSchedule::of(config).timesteps;
        let computes = self.link.device.computes;
        let turns = if config.flexcache.is_any() {
            let asked = asks_for_modulations(config, model).filter(|_| computes);
            let changes = asked.map(|modulations| self.denoiser.changes(&mut self.link, &timesteps, modulations)).transpose()?;
            Some(turns(config, model, &timesteps, changes.as_deref(), computes)?)
        } else {
            None
        };
        Ok(Denoising::new(&self.config, noise, image, turns))
    }

    /// Latents from noise. Both live on the CPU in fp32, where the sampler computes; `progress` hears of each step.
    ///
    /// # Errors
    /// libtorch's.
    pub fn denoise(
        &mut self,
        prompts: &PromptEmbeddings,
        image: Option<ImageCondition>,
        noise: Tensor,
        mut progress: impl FnMut(u32, u32),
    ) -> Result<Tensor> {
        let mut denoising = self.begin(image, noise)?;
        while !denoising.is_over() {
            self.step(prompts, &mut denoising)?;
            progress(denoising.done(), denoising.total());
        }
        Ok(denoising.into_latents())
    }

    /// One step of a denoising, which another pipeline of the same model may have begun. After an error it is as far as it was before.
    ///
    /// # Errors
    /// libtorch's, and a step after the last.
    pub fn step(&mut self, prompts: &PromptEmbeddings, denoising: &mut Denoising) -> Result<()> {
        let step = self.denoiser.step(&self.config, &mut self.link, prompts, denoising);
        step.map_err(|error| match (&error, prompts.check()) {
            // What comes of embeddings that are no numbers is none either.
            (Error::NotFinite { .. }, Err(earlier)) => explained(earlier, &self.config, &self.prompts.weights),
            _ => explained(error, &self.config, &self.denoiser.weights),
        })
    }

    /// Frames from latents, some at a time given to `sink` of the first rank as they are done; `progress` hears of each time. All ranks that [decode](Pipeline::decodes) call it.
    ///
    /// # Errors
    /// libtorch's and the sink's.
    pub fn decode(&mut self, latents: &Tensor, sink: &mut dyn FrameSink, mut progress: impl FnMut(usize, usize)) -> Result<()> {
        let Some(frames) = &mut self.frames else {
            return Err(Error::Input("another rank decodes: this one has no VAE".into()));
        };
        let decoded = frames.decode(&self.config, &mut self.link, latents, sink, &mut progress);
        decoded.map_err(|error| explained(error, &self.config, [&frames.weights]))
    }

    /// What crossed between host and device until now.
    pub fn transfers(&self) -> Transfers {
        let pictures = self.pictures.iter().flat_map(|pictures| &pictures.weights);
        let weights = self
            .prompts
            .weights
            .iter()
            .chain(pictures)
            .chain(&self.denoiser.weights)
            .chain(self.frames.iter().map(|frames| &frames.weights));
        self.link.transfers(weights)
    }
}

/// An error that says, where values are not finite, why that is as far as it is known: damaged `weights`, or the type of arithmetic.
fn explained<'a>(error: Error, config: &Config, weights: impl IntoIterator<Item = &'a Loadable>) -> Error {
    let Error::NotFinite { what, .. } = error else { return error };
    let damaged = weights.into_iter().find_map(|weights| weights.not_finite().transpose());
    let cause = match damaged {
        Some(Ok(weight)) => format!("{weight}: the file is damaged, fetch it again"),
        Some(Err(unread)) => format!("the cause is not known: {unread}"),
        None => finite::cause_in_arithmetic(config.dtype),
    };
    Error::NotFinite { what, cause }
}
