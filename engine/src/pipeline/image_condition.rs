//! What a video is given of its pictures: their latents, and how the transformer is told of them.
//!
//! Follows diffusers 0.42.x `src/diffusers/pipelines/wan/pipeline_wan_i2v.py` (`WanImageToVideoPipeline`).

use engine_protocol::{Config, ImageInput, ModelSpec};
use tch::{Device, Kind, Tensor};

use super::stills::Stills;
use crate::error::Result;
use crate::vae::normalise;

/// The latents of a video's pictures, on the CPU in fp32, where the sampler computes.
#[derive(Debug)]
pub struct ImageCondition {
    input: ImageInput,
    /// Of a model that takes it as channels: the mask of the frames that are given, a channel for each frame that a latent frame stands for, and the latents,
    /// `[1, mask and latents, frames, height, width]`. Else the latents of the first frame, `[1, channels, 1, height, width]`.
    given: Tensor,
    /// What an image encoder says of the first picture, `[1, tokens, width]`.
    seen: Option<Tensor>,
}

impl ImageCondition {
    /// That of `latents`, which the VAE's encoder made of `stills`, on the CPU in fp32, and of what an image encoder says, where the model has one.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(
        config: &Config,
        model: &ModelSpec,
        input: ImageInput,
        stills: &Stills,
        latents: &Tensor,
        seen: Option<Tensor>,
    ) -> Result<Self> {
        let latents = normalise(&model.vae, latents)?;
        let given = match input {
            ImageInput::FirstFrame => latents,
            ImageInput::Channels => Tensor::f_cat(&[mask(config, model, stills.has_last())?, latents], 1)?,
        };
        Ok(Self { input, given, seen })
    }

    /// What the transformer takes for `latents`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn beside(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(match self.input {
            ImageInput::Channels => Tensor::f_cat(&[latents, &self.given], 1)?,
            ImageInput::FirstFrame => self.put_into(latents)?,
        })
    }

    /// What an image encoder says of the first picture, on the CPU.
    pub(super) fn seen(&self) -> Option<&Tensor> {
        self.seen.as_ref()
    }

    /// What becomes of `latents` that are denoised.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn put_into(&self, latents: &Tensor) -> Result<Tensor> {
        if self.input == ImageInput::Channels {
            return Ok(latents.shallow_clone());
        }
        let frames = latents.size()[2];
        Ok(Tensor::f_cat(&[&self.given, &latents.f_narrow(2, 1, frames - 1)?], 2)?)
    }

    /// Latent frames that have no noise in them.
    pub(super) fn given_frames(&self) -> i64 {
        i64::from(self.input == ImageInput::FirstFrame)
    }
}

/// One where a frame is given, else zero: `[1, frames of a latent frame, frames, height, width]`, in latent frames. The video's first frame counts as all of its latent
/// frame's.
fn mask(config: &Config, model: &ModelSpec, has_last: bool) -> Result<Tensor> {
    let [_, frames, height, width] = config.latent_shape(model);
    let of_one = model.vae.temporal_compression();
    let mask = Tensor::f_zeros([1, of_one, frames, height, width], (Kind::Float, Device::Cpu))?;
    let _ = mask.f_select(2, 0)?.f_fill_(1.0)?;
    if has_last {
        let _ = mask.f_select(2, frames - 1)?.f_select(1, of_one - 1)?.f_fill_(1.0)?;
    }
    Ok(mask)
}
