//! What a configuration that gives up quality costs of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AttnType, Config, Device, LinearDtype, WeightDtype};

/// How near the video of a case is to the one of the same seed that gives nothing up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quality {
    /// The case.
    pub case: String,
    /// What computed both videos.
    pub device: Device,
    /// The peak signal-to-noise ratio of all frames in dB; empty where they are the same to the bit.
    pub psnr_db: Option<f64>,
    /// The mean structural similarity of the frames: 1 where they are the same.
    pub ssim: f64,
    /// The norm of the difference of the latents over that of the exact ones.
    pub latents_error: f64,
}

impl Config {
    /// The same without what gives up quality: a cache of sampler steps, weights, their products or attention in 8 bits. None where nothing does.
    pub fn exact(&self) -> Option<Self> {
        let attn_type = if self.attn_type.is_in_8_bits() { AttnType::Sdpa } else { self.attn_type };
        let exact = Self { weight_dtype: WeightDtype::AsStored, linear_dtype: LinearDtype::Dtype, attn_type, ..self.clone() }
            .without_flexcache()
            .without_choice();
        (exact != *self).then_some(exact)
    }
}
