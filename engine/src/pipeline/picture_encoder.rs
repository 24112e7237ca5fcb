//! Pictures to what a video is given of them: the stage that the VAE's encoder works in, and before it an image encoder where the model has one.

use engine_protocol::{Config, ImageInput, ModelSpec, Transfers};
use tch::{Kind, Tensor};

use super::image_condition::ImageCondition;
use super::link::Link;
use super::loading::Loadable;
use super::stills::Stills;
use crate::attribution::{Purpose, within};
use crate::collectives::Group;
use crate::error::Result;
use crate::finite;
use crate::image_encoder::ImageEncoder;
use crate::vae::{self, Pieces, VaeEncoder};
use crate::weights::{Groups, kind_of};

/// A VAE's encoder with its weights, and an image encoder with its own.
#[derive(Debug)]
pub(super) struct PictureEncoder {
    input: ImageInput,
    vae: VaeEncoder,
    clip: Option<ImageEncoder>,
    /// Of which the first one encodes for all.
    ranks: Group,
    /// Those of the VAE's encoder, and behind them those of the image encoder; none on other ranks than the first.
    pub(super) weights: Vec<Loadable>,
}

impl PictureEncoder {
    /// The encoders of `model`, whose transformer is told of pictures so.
    pub(super) fn new(model: &ModelSpec, input: ImageInput, ranks: Group, weights: Vec<Loadable>) -> Self {
        Self { input, vae: VaeEncoder::new(&model.vae), clip: model.image_encoder.as_ref().map(ImageEncoder::new), ranks, weights }
    }

    /// What the video of `config` is given of `stills`; `progress` hears of each chunk.
    pub(super) fn encode(
        &mut self,
        config: &Config,
        model: &ModelSpec,
        link: &mut Link,
        stills: &Stills,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ImageCondition> {
        let (vae_weights, clip_weights) = match self.weights.as_mut_slice() {
            [vae, clip @ ..] => (Some(vae), clip.first_mut()),
            [] => (None, None),
        };
        let device = link.device.torch;
        let empty = |shape: &[i64], kind| within(Purpose::Latents, || Tensor::f_empty(shape, (kind, device)));
        // 1. What the image encoder says.
        let seen = match (&self.clip, &model.image_encoder, stills.seen()) {
            (Some(clip), Some(spec), Some(pixels)) => {
                let kind = kind_of(config.dtype);
                let seen = match clip_weights {
                    Some(weights) => {
                        let pixels = link.upload(&pixels.f_to_kind(kind)?)?;
                        let seen = clip.forward(weights.get()?, &pixels)?;
                        weights.release();
                        seen
                    }
                    None => empty(&[1, spec.tokens(), spec.hidden_size], kind)?,
                };
                Some(link.download(&self.ranks.broadcast(seen)?)?)
            }
            _ => None,
        };

        // 2. Latents.
        let latents = match vae_weights {
            Some(weights) => {
                let pieces = Pieces::encoded(config)?;
                let encode = |weights: &_| vae::encode_video(&self.vae, weights, stills, pieces, progress);
                let (latents, traffic) = weights.get()?.with(vae::ENCODER, encode)?;
                link.passed(Transfers { h2d_bytes: traffic.h2d_bytes, d2h_bytes: traffic.d2h_bytes, not_page_locked: None });
                weights.release();
                latents
            }
            None => {
                let [channels, frames, height, width] = config.image_latent_shape(model);
                empty(&[1, channels, frames, height, width], Kind::Float)?
            }
        };
        let latents = self.ranks.broadcast(latents)?;
        let latents = link.download(&latents)?.f_to_kind(Kind::Float)?;
        if link.device.computes {
            finite::check(&latents, || "the latents of the picture".into())?;
            if let Some(seen) = &seen {
                finite::check(seen, || "what the image encoder says of the picture".into())?;
            }
        }
        ImageCondition::new(config, model, self.input, stills, &latents, seen)
    }
}
