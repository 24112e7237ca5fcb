//! The VAE's decoder: a chunk of latent frames in, a chunk of video frames out.
//!
//! Follows `WanDecoder3d` and `AutoencoderKLWan.decode` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`. The
//! reference decodes one latent frame at a time; here a chunk has as many as the caller likes, with the same result.

use engine_protocol::VaeSpec;
use tch::Tensor;

use super::blocks::{AttentionBlock, ResidualBlock, Upsampler};
use super::causal_conv::{CausalConv, FeatureCache, Slots};
use super::norm::Norm;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Channels of a frame: red, green, blue.
const COLOURS: i64 = 3;

/// The decoder's tensors: one group, since every chunk runs through all of it.
pub fn groups(spec: &VaeSpec) -> Vec<Group> {
    vec![VaeDecoder::new(spec).params()]
}

/// The latents as the decoder wants them, from the transformer's, whose channels each have mean 0 and deviation 1.
///
/// # Shapes
/// `latents` and result: `[batch, channels, frames, height, width]`.
///
/// # Errors
/// libtorch's.
pub fn denormalise(spec: &VaeSpec, latents: &Tensor) -> Result<Tensor> {
    let per_channel = |values: &[f64]| -> Result<Tensor> {
        let values = Tensor::f_from_slice(values)?.f_view([1, -1, 1, 1, 1])?;
        Ok(values.f_to_kind(latents.kind())?.f_to_device(latents.device())?)
    };
    let mut scaled = latents.f_mul(&per_channel(&spec.latents_std)?)?;
    let _ = scaled.f_add_(&per_channel(&spec.latents_mean)?)?;
    Ok(scaled)
}

/// The decoder: layers and their names, no weights.
#[derive(Debug)]
pub struct VaeDecoder {
    z_dim: i64,
    spatial_compression: i64,
    temporal_compression: i64,
    conv_in: CausalConv,
    mid_resnets: [ResidualBlock; 2],
    mid_attention: AttentionBlock,
    up_blocks: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: CausalConv,
    slots: Slots,
}

/// Residual blocks of one resolution, and the way to the next.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResidualBlock>,
    upsampler: Option<Upsampler>,
}

const POST_QUANT_CONV: &str = "post_quant_conv";

impl VaeDecoder {
    /// The decoder of the model that `spec` describes.
    pub fn new(spec: &VaeSpec) -> Self {
        let mut slots = Slots::new();
        let widths: Vec<i64> = spec.dim_mult.iter().rev().map(|multiple| spec.base_dim * multiple).collect();
        let widest = widths.first().copied().unwrap_or(spec.base_dim);

        let conv_in = CausalConv::new("decoder.conv_in".into(), spec.z_dim, widest, 3, &mut slots);
        let mid_resnets = [0, 1].map(|i| ResidualBlock::new(&format!("decoder.mid_block.resnets.{i}"), widest, widest, &mut slots));
        let mid_attention = AttentionBlock::new("decoder.mid_block.attentions.0", widest);

        let mut channels = widest;
        let mut up_blocks = Vec::with_capacity(widths.len());
        for (level, &width) in widths.iter().enumerate() {
            let name = format!("decoder.up_blocks.{level}");
            let mut resnets = Vec::new();
            for i in 0..=spec.num_res_blocks {
                resnets.push(ResidualBlock::new(&format!("{name}.resnets.{i}"), channels, width, &mut slots));
                channels = width;
            }
            let temporal = spec.temporal_downsample.iter().rev().nth(level);
            let upsampler = temporal.map(|&temporal| Upsampler::new(&format!("{name}.upsamplers.0"), width, temporal, &mut slots));
            if upsampler.is_some() {
                channels = width / 2;
            }
            up_blocks.push(UpBlock { resnets, upsampler });
        }

        let norm_out = Norm::new("decoder.norm_out", channels);
        let conv_out = CausalConv::new("decoder.conv_out".into(), channels, COLOURS, 3, &mut slots);
        let (z_dim, spatial_compression, temporal_compression) = (spec.z_dim, spec.spatial_compression(), spec.temporal_compression());
        Self { z_dim, spatial_compression, temporal_compression, conv_in, mid_resnets, mid_attention, up_blocks, norm_out, conv_out, slots }
    }

    /// Pixels that a latent pixel becomes in height and in width.
    pub(super) fn spatial_compression(&self) -> i64 {
        self.spatial_compression
    }

    /// Frames that so many latent frames of a video become.
    pub(super) fn frames_of(&self, latent_frames: i64) -> i64 {
        (latent_frames - 1) * self.temporal_compression + 1
    }

    fn params(&self) -> Group {
        let mut group = Group::new("").linear(POST_QUANT_CONV, self.z_dim, self.z_dim);
        group = self.conv_in.params(group);
        group = self.mid_resnets[0].params(group);
        group = self.mid_attention.params(group);
        group = self.mid_resnets[1].params(group);
        for block in &self.up_blocks {
            group = block.resnets.iter().fold(group, |group, resnet| resnet.params(group));
            group = block.upsampler.iter().fold(group, |group, upsampler| upsampler.params(group));
        }
        self.conv_out.params(self.norm_out.params(group))
    }

    /// The frames of the next chunk of a video, between -1 and 1. `cache` starts empty and sees the video's chunks in order; after an error it
    /// is of no more use.
    ///
    /// # Shapes
    /// `latents`, as [`denormalise`] returns them: `[batch, z_dim, frames, height, width]`; result, a view of channels-last storage:
    /// `[batch, 3, frames', 8 height, 8 width]`, where `frames'` is `4 frames`, and three fewer where the chunk holds the video's first one.
    ///
    /// # Errors
    /// libtorch's.
    pub fn decode_chunk(&self, w: &Weights, latents: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        Ok(self.decode_channels_last(w, latents, cache)?.f_permute([0, 4, 1, 2, 3])?)
    }

    /// As [`VaeDecoder::decode_chunk`], with the result as it lies in memory: `[batch, frames', 8 height, 8 width, 3]`.
    pub(super) fn decode_channels_last(&self, w: &Weights, latents: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        cache.begin_chunk(&self.slots, latents)?;

        // 1. Channels last from here on.
        let z = w.linear(POST_QUANT_CONV, &latents.f_permute([0, 2, 3, 4, 1])?.f_contiguous()?)?;
        let x = self.conv_in.forward(w, z, None, cache)?;

        // 2. Middle.
        let x = self.mid_resnets[0].forward(w, x, cache)?;
        let x = self.mid_attention.forward(w, x)?;
        let mut x = self.mid_resnets[1].forward(w, x, cache)?;

        // 3. Up to full resolution.
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(w, x, cache)?;
            }
            if let Some(upsampler) = &block.upsampler {
                x = upsampler.forward(w, x, cache)?;
            }
        }

        // 4. Colours.
        let mut pixels = self.conv_out.forward(w, x, Some(&self.norm_out), cache)?;
        let _ = pixels.f_clamp_(-1.0, 1.0)?;
        cache.end_chunk();
        Ok(pixels)
    }
}
