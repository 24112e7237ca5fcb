//! The VAE's encoder: a chunk of video frames in, a chunk of latent frames out.
//!
//! Follows `WanEncoder3d` and `AutoencoderKLWan.encode` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`. The
//! reference encodes the first frame and then four frames at a time; here a chunk has as many as the caller likes, with the same result.

use engine_protocol::VaeSpec;
use tch::{Kind, Tensor};

use super::COLOURS;
use super::blocks::{MidBlock, ResidualBlock};
use super::causal_conv::CausalConv;
use super::feature_cache::FeatureCache;
use super::norm::Norm;
use super::resample::Downsampler;
use super::shortcut::{AverageShortcut, patchify};
use super::slots::{Chunk, Slots};
use crate::error::{Error, Result};
use crate::weights::{Group, GroupName, Weights};

/// The encoder's group.
pub const ENCODER: GroupName = GroupName::whole("encoder");

/// The encoder's tensors: one group, since every chunk runs through all of it.
pub fn encoder_groups(spec: &VaeSpec) -> Vec<Group> {
    vec![VaeEncoder::new(spec).params()]
}

/// The encoder: layers and their names, no weights.
#[derive(Debug)]
pub struct VaeEncoder {
    z_dim: i64,
    spatial_compression: i64,
    temporal_compression: i64,
    pub(super) patch_size: i64,
    pub(super) conv_in: CausalConv,
    pub(super) down_blocks: Vec<DownBlock>,
    pub(super) mid_block: MidBlock,
    norm_out: Norm,
    conv_out: CausalConv,
    pub(super) slots: Slots,
    /// Channels of the middle: attention has one head of that size there.
    widest: i64,
}

pub(super) const QUANT_CONV: &str = "quant_conv";

impl VaeEncoder {
    /// The encoder of the model that `spec` describes.
    pub fn new(spec: &VaeSpec) -> Self {
        let (spatial_compression, temporal_compression, patch_size) =
            (spec.spatial_compression(), spec.temporal_compression(), spec.patch_size);
        let mut slots = Slots::new(temporal_compression, spatial_compression / patch_size);
        let conv_in = CausalConv::new("encoder.conv_in".into(), COLOURS * patch_size * patch_size, spec.base_dim, 3, &mut slots);

        let mut channels = spec.base_dim;
        let mut down_blocks = Vec::with_capacity(spec.dim_mult.len());
        let mut names = Names { residual: spec.residual, layers: 0 };
        for (level, multiple) in spec.dim_mult.iter().enumerate() {
            let width = spec.base_dim * multiple;
            let temporal = spec.temporal_downsample.get(level).copied();
            down_blocks.push(DownBlock::new(level, &mut names, spec.num_res_blocks, [channels, width], temporal, &mut slots));
            channels = width;
        }

        let mid_block = MidBlock::new("encoder.mid_block", channels, &mut slots);
        let norm_out = Norm::new("encoder.norm_out", channels);
        let conv_out = CausalConv::new("encoder.conv_out".into(), channels, 2 * spec.z_dim, 3, &mut slots);
        let z_dim = spec.z_dim;
        Self {
            z_dim,
            spatial_compression,
            temporal_compression,
            patch_size,
            conv_in,
            down_blocks,
            mid_block,
            norm_out,
            conv_out,
            slots,
            widest: channels,
        }
    }

    /// Size of the one head of its attention.
    pub fn head_size(&self) -> i64 {
        self.widest
    }

    /// Channels of the latents.
    pub(super) fn z_dim(&self) -> i64 {
        self.z_dim
    }

    /// Pixels that become a latent pixel in height and in width.
    pub(super) fn spatial_compression(&self) -> i64 {
        self.spatial_compression
    }

    /// Frames of a video that so many latent frames stand for.
    pub(super) fn frames_of(&self, latent_frames: i64) -> i64 {
        (self.temporal_compression * (latent_frames - 1) + 1).max(0)
    }

    fn params(&self) -> Group {
        let mut group = self.conv_in.params(Group::new(ENCODER, ""));
        group = self.down_blocks.iter().fold(group, |group, block| block.params(group));
        group = self.mid_block.params(group);
        group = self.conv_out.params(self.norm_out.params(group));
        group.linear(QUANT_CONV, 2 * self.z_dim, 2 * self.z_dim)
    }

    /// The latents of the next chunk of a video: the mean, and so the mode, of the distribution that the encoder predicts. `cache` starts empty
    /// and sees the video's chunks in order; after an error it is of no more use.
    ///
    /// # Shapes
    /// `video`, between -1 and 1: `[batch, 3, frames, height, width]`, where `frames` is `4 n`, and three fewer where the chunk holds the video's
    /// first one; result: `[batch, z_dim, n, height / s, width / s]`, where `s` is the spec's spatial compression.
    ///
    /// # Errors
    /// libtorch's, and a video of other sides.
    pub fn encode_chunk(&self, w: &Weights, video: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let chunk = self.chunk(&video.size(), video.kind(), cache.is_started())?;
        cache.begin_chunk(&self.slots, chunk, (video.kind(), video.device()))?;

        // 1. Channels last from here on.
        let x = patchify(video, self.patch_size)?;
        let mut x = self.conv_in.forward(w, x, None, cache)?.f_to_kind(Kind::Float)?;

        // 2. Down to the resolution of the latents.
        for block in &self.down_blocks {
            x = block.forward(w, x, cache)?;
        }

        // 3. Middle.
        let x = self.mid_block.forward(w, x, cache)?;

        // 4. The distribution: mean and logarithm of the variance, of which the mean is all that counts.
        let x = self.conv_out.forward(w, x, Some(&self.norm_out), cache)?;
        let distribution = w.linear(QUANT_CONV, &x)?;
        cache.end_chunk();
        Ok(distribution.f_narrow(4, 0, self.z_dim)?.f_permute([0, 4, 1, 2, 3])?.f_contiguous()?)
    }

    /// What a video of such `sides` is as latents.
    pub(super) fn chunk(&self, sides: &[i64], kind: Kind, started: bool) -> Result<Chunk> {
        let (n, side) = (self.temporal_compression, self.spatial_compression);
        if let [batch, COLOURS, frames, height, width] = *sides {
            let frames = if started { frames } else { frames - 1 + n };
            let fits = |pixels: i64, span: i64| pixels >= span && pixels % span == 0;
            if fits(frames, n) && fits(height, side) && fits(width, side) {
                let (latent_frames, latent_height, latent_width) = (frames / n, height / side, width / side);
                let bytes = kind.elt_size_in_bytes() as i64;
                return Ok(Chunk { batch, latent_frames, latent_height, latent_width, bytes });
            }
        }
        let more = if started { "" } else { "1 more than " };
        Err(Error::Input(format!(
            "cannot encode a video of shape {sides:?}: use three colours, {more}a multiple of {n} frames, and a height and a width that are \
             multiples of {side}"
        )))
    }
}

/// Names the layers on the way down: by resolution where that has a shortcut, else one after the other.
struct Names {
    residual: bool,
    layers: usize,
}

impl Names {
    /// The next layer, which is `role` at `level`.
    fn next(&mut self, level: usize, role: &str) -> String {
        self.layers += 1;
        if self.residual { format!("encoder.down_blocks.{level}.{role}") } else { format!("encoder.down_blocks.{}", self.layers - 1) }
    }
}

/// Residual blocks of one resolution, and the way to the next.
#[derive(Debug)]
pub(super) struct DownBlock {
    pub(super) resnets: Vec<ResidualBlock>,
    pub(super) downsampler: Option<Downsampler>,
    /// What goes around all of it.
    pub(super) shortcut: Option<AverageShortcut>,
}

impl DownBlock {
    /// The block of resolution `level`, its convolutions the next ones of `slots`. `temporal` says whether it halves frames; where it is empty,
    /// nothing is reduced.
    fn new(level: usize, names: &mut Names, resnets: i64, [inputs, width]: [i64; 2], temporal: Option<bool>, slots: &mut Slots) -> Self {
        let shortcut = names.residual.then(|| AverageShortcut::new(width, temporal.is_some(), temporal.unwrap_or(false)));
        let resnets = (0..resnets)
            .map(|i| {
                let inputs = if i == 0 { inputs } else { width };
                ResidualBlock::new(&names.next(level, &format!("resnets.{i}")), inputs, width, slots)
            })
            .collect();
        let downsampler = temporal.map(|temporal| Downsampler::new(&names.next(level, "downsampler"), width, temporal, slots));
        Self { resnets, downsampler, shortcut }
    }

    fn params(&self, group: Group) -> Group {
        let group = self.resnets.iter().fold(group, |group, resnet| resnet.params(group));
        self.downsampler.iter().fold(group, |group, downsampler| downsampler.params(group))
    }

    /// # Shapes
    /// `x`, in fp32 and used by nobody else: `[batch, frames, height, width, inputs]`; result, in fp32:
    /// `[batch, frames', height', width', width of the block]`.
    fn forward(&self, w: &Weights, mut x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        // Averaged at once, as it is then smaller than the input.
        let around = self.shortcut.as_ref().map(|shortcut| shortcut.forward(&x, cache)).transpose()?;
        for resnet in &self.resnets {
            x = resnet.forward(w, x, cache)?;
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(w, x, cache)?;
        }
        if let Some(around) = around {
            let _ = x.f_add_(&around)?;
        }
        Ok(x)
    }
}
