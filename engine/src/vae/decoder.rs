//! The VAE's decoder: a chunk of latent frames in, a chunk of video frames out.
//!
//! Follows `WanDecoder3d` and `AutoencoderKLWan.decode` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`. The
//! reference decodes one latent frame at a time; here a chunk has as many as the caller likes, with the same result.
//!
//! Note: slices.
//! A layer sees the past alone, and remembers what it needs of it. So a chunk need not be at one resolution as a whole before it goes up to the next: where
//! that is large, its frames go up some at a time, each slice all the way to pixels, and the layers above take them for chunks of their own. See
//! [`super::slots::slices`] for how many go at a time.

use engine_protocol::VaeSpec;
use tch::{Kind, Tensor};

use super::COLOURS;
use super::blocks::{MidBlock, ResidualBlock};
use super::causal_conv::CausalConv;
use super::feature_cache::FeatureCache;
use super::norm::Norm;
use super::resample::Upsampler;
use super::shortcut::{add_repeated, unpatchify};
use super::slots::{Chunk, Slots, slices};
use super::tiling::Span;
use crate::error::Result;
use crate::weights::{Group, GroupName, Weights};

/// The decoder's group.
pub const DECODER: GroupName = GroupName::whole("decoder");

/// The decoder's tensors: one group, since every chunk runs through all of it.
pub fn groups(spec: &VaeSpec) -> Vec<Group> {
    vec![VaeDecoder::new(spec).params()]
}

/// The decoder: layers and their names, no weights.
#[derive(Debug)]
pub struct VaeDecoder {
    z_dim: i64,
    spatial_compression: i64,
    temporal_compression: i64,
    conv_in: CausalConv,
    pub(super) mid_block: MidBlock,
    pub(super) up_blocks: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: CausalConv,
    pub(super) patch_size: i64,
    pub(super) slots: Slots,
    /// Channels where there are most of them: attention has one head of that size there.
    widest: i64,
}

const POST_QUANT_CONV: &str = "post_quant_conv";
/// A tensor that is in the compute type.
const COMPUTE: &str = "post_quant_conv.bias";

impl VaeDecoder {
    /// The decoder of the model that `spec` describes.
    pub fn new(spec: &VaeSpec) -> Self {
        let mut slots = Slots::new(1, 1);
        let base_dim = spec.decoder_base_dim.unwrap_or(spec.base_dim);
        let widths: Vec<i64> = spec.dim_mult.iter().rev().map(|multiple| base_dim * multiple).collect();
        let widest = widths.first().copied().unwrap_or(base_dim);

        let conv_in = CausalConv::new("decoder.conv_in".into(), spec.z_dim, widest, 3, &mut slots);
        let mid_block = MidBlock::new("decoder.mid_block", widest, &mut slots);

        let mut channels = widest;
        let mut up_blocks = Vec::with_capacity(widths.len());
        for (level, &width) in widths.iter().enumerate() {
            let name = format!("decoder.up_blocks.{level}");
            let temporal = spec.temporal_downsample.iter().rev().nth(level).copied();
            up_blocks.push(UpBlock::new(&name, spec, [channels, width], temporal, &mut slots));
            channels = if temporal.is_some() && !spec.residual { width / 2 } else { width };
        }

        let norm_out = Norm::new("decoder.norm_out", channels);
        let patch_size = spec.patch_size;
        let conv_out = CausalConv::new("decoder.conv_out".into(), channels, COLOURS * patch_size * patch_size, 3, &mut slots);
        let (z_dim, spatial_compression, temporal_compression) = (spec.z_dim, spec.spatial_compression(), spec.temporal_compression());
        Self {
            z_dim,
            spatial_compression,
            temporal_compression,
            conv_in,
            mid_block,
            up_blocks,
            norm_out,
            conv_out,
            patch_size,
            slots,
            widest,
        }
    }

    /// Size of the one head of its attention.
    pub fn head_size(&self) -> i64 {
        self.widest
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
        let mut group = Group::new(DECODER, "").linear(POST_QUANT_CONV, self.z_dim, self.z_dim);
        group = self.conv_in.params(group);
        group = self.mid_block.params(group);
        group = self.up_blocks.iter().fold(group, |group, block| block.params(group));
        self.conv_out.params(self.norm_out.params(group))
    }

    /// The frames of the next chunk of a video, between -1 and 1. `cache` starts empty and sees the video's chunks in order; after an error it
    /// is of no more use.
    ///
    /// # Shapes
    /// `latents`, as [`super::denormalise`] returns them: `[batch, z_dim, frames, height, width]`; result, a view of channels-last storage:
    /// `[batch, 3, frames', n height, n width]`, where `n` is the spec's spatial compression and `frames'` is `4 frames`, and three fewer
    /// where the chunk holds the video's first one.
    ///
    /// # Errors
    /// libtorch's.
    pub fn decode_chunk(&self, w: &Weights, latents: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let mut slices = Vec::new();
        self.decode_slices(w, latents, cache, &mut |pixels| {
            slices.push(pixels);
            Ok(())
        })?;
        let pixels = if slices.len() == 1 { slices.remove(0) } else { Tensor::f_cat(&slices, 1)? };
        Ok(pixels.f_permute([0, 4, 1, 2, 3])?)
    }

    /// As [`VaeDecoder::decode_chunk`], with some frames at a time given to `take`, as they lie in memory: `[batch, frames', n height, n width, 3]`.
    pub(super) fn decode_slices(&self, w: &Weights, latents: &Tensor, cache: &mut FeatureCache, take: Take<'_>) -> Result<()> {
        let (batch, _, latent_frames, latent_height, latent_width) = latents.size5()?;
        let bytes = latents.kind().elt_size_in_bytes() as i64;
        let chunk = Chunk { batch, latent_frames, latent_height, latent_width, bytes };
        cache.begin_chunk(&self.slots, chunk, (latents.kind(), latents.device()))?;

        // 1. Channels last from here on.
        let z = w.linear(POST_QUANT_CONV, &latents.f_permute([0, 2, 3, 4, 1])?.f_contiguous()?)?;
        let x = self.conv_in.forward(w, z, None, cache)?.f_to_kind(Kind::Float)?;

        // 2. Middle.
        let x = self.mid_block.forward(w, x, cache)?;

        // 3. Up to full resolution, and colours.
        self.go_up(w, &self.up_blocks, x, cache, take)?;
        cache.end_chunk();
        Ok(())
    }

    /// What is left of the way for frames that come to the first of `blocks`.
    ///
    /// # Shapes
    /// `x`, in fp32 and used by nobody else: `[batch, frames, height, width, inputs]`.
    fn go_up(&self, w: &Weights, blocks: &[UpBlock], x: Tensor, cache: &mut FeatureCache, take: Take<'_>) -> Result<()> {
        let Some((block, above)) = blocks.split_first() else { return take(self.colours(w, x, cache)?) };
        let (input, x) = block.resnets(w, x, cache)?;
        let Some(upsampler) = &block.upsampler else { return self.go_up(w, above, x, cache, take) };

        let place = cache.place();
        let x = upsampler.in_time(w, x, w.get(COMPUTE).kind(), cache)?;
        let (batch, frames, height, width, _) = x.size5()?;
        let frame_bytes = batch * 4 * height * width * upsampler.conv.outputs * x.kind().elt_size_in_bytes() as i64;
        for Span { start, end } in slices(frames, frame_bytes) {
            cache.go_to(place.part(start, end, frames));
            let large = upsampler.in_space(w, &x.f_narrow(1, start, end - start)?, cache)?;
            if let Some(input) = &input {
                add_repeated(&large, start, input, block.temporal, place.starts)?;
            }
            self.go_up(w, above, large, cache, take)?;
        }
        Ok(())
    }

    /// Pixels from what comes out of the last block.
    fn colours(&self, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let pixels = self.conv_out.forward(w, x, Some(&self.norm_out), cache)?;
        let mut pixels = unpatchify(pixels, self.patch_size)?;
        Ok(pixels.f_clamp_(-1.0, 1.0)?)
    }
}

/// Takes pixels as they are done.
type Take<'a> = &'a mut dyn FnMut(Tensor) -> Result<()>;

/// Residual blocks of one resolution, and the way to the next.
#[derive(Debug)]
pub(super) struct UpBlock {
    pub(super) resnets: Vec<ResidualBlock>,
    pub(super) upsampler: Option<Upsampler>,
    /// Whether the input goes around all of it too.
    pub(super) shortcut: bool,
    temporal: bool,
}

impl UpBlock {
    /// The block `name`, its convolutions the next ones of `slots`. `temporal` says whether it doubles frames; where it is empty, nothing is
    /// enlarged.
    fn new(name: &str, spec: &VaeSpec, [inputs, width]: [i64; 2], temporal: Option<bool>, slots: &mut Slots) -> Self {
        let resnet = |i| ResidualBlock::new(&format!("{name}.resnets.{i}"), if i == 0 { inputs } else { width }, width, slots);
        let resnets = (0..=spec.num_res_blocks).map(resnet).collect();
        let (upsampler, outputs) = if spec.residual { ("upsampler", width) } else { ("upsamplers.0", width / 2) };
        let upsampler = temporal.map(|temporal| Upsampler::new(&format!("{name}.{upsampler}"), width, outputs, temporal, slots));
        let shortcut = spec.residual && upsampler.is_some();
        Self { resnets, upsampler, shortcut, temporal: temporal.unwrap_or(false) }
    }

    fn params(&self, group: Group) -> Group {
        let group = self.resnets.iter().fold(group, |group, resnet| resnet.params(group));
        self.upsampler.iter().fold(group, |group, upsampler| upsampler.params(group))
    }

    /// What the residual blocks make of `x`, and `x` itself where it goes around them.
    ///
    /// # Shapes
    /// `x`, in fp32 and used by nobody else: `[batch, frames, height, width, inputs]`; result: `[batch, frames, height, width, outputs]`.
    fn resnets(&self, w: &Weights, mut x: Tensor, cache: &mut FeatureCache) -> Result<(Option<Tensor>, Tensor)> {
        let input = self.shortcut.then(|| x.shallow_clone());
        if self.shortcut && self.resnets.first().is_some_and(ResidualBlock::adds_to_its_input) {
            x = x.f_alias_copy()?;
        }
        for resnet in &self.resnets {
            x = resnet.forward(w, x, cache)?;
        }
        Ok((input, x))
    }
}
