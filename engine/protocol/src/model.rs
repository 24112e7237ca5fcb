//! Model definitions: the shapes of a published model's three parts, as `sweeps/models/NAME.yaml` holds them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CheckpointFiles, Sampler, WeightDtype};

/// A video diffusion model: text encoder, transformer and VAE, and how its authors sample from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The name on the command line, `wan2.1-t2v-14b`.
    pub name: String,
    /// The name that its authors use.
    pub title: String,
    /// Where the shapes come from.
    pub source: String,
    /// The umT5 text encoder.
    pub text_encoder: TextEncoderSpec,
    /// The diffusion transformer: of a pool, each of the two.
    pub transformer: TransformerSpec,
    /// Where the model has two transformers, when each of them is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolSpec>,
    /// The causal 3D VAE.
    pub vae: VaeSpec,
    /// Where a video may begin with a picture, how the transformer is told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInput>,
    /// Where the transformer sees the picture by CLIP too, its vision encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_encoder: Option<ImageEncoderSpec>,
    /// The sampling defaults.
    pub sampling: Sampling,
    /// Where its weights are, where somebody named them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<CheckpointFiles>,
    /// Of a transformer's weights those that its file has packed, in 8 bits or in blocks (GGUF): each with its type, by the component's key and the tensor's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packed: BTreeMap<String, BTreeMap<String, WeightDtype>>,
    /// Where LoRAs are added to weights: the ranks of each, summed up, by the component's key and the tensor's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lora_ranks: BTreeMap<String, BTreeMap<String, i64>>,
}

impl ModelSpec {
    /// What the packed weights of its transformers' files are called, where there are any: the type that most of them are in.
    pub fn packed_dtype(&self) -> Option<WeightDtype> {
        let mut counts: BTreeMap<&str, (usize, WeightDtype)> = BTreeMap::new();
        for &dtype in self.packed.values().flat_map(BTreeMap::values) {
            counts.entry(dtype.name()).or_insert((0, dtype)).0 += 1;
        }
        counts.into_values().max_by_key(|&(count, _)| count).map(|(_, dtype)| dtype)
    }
}

/// Shapes of a umT5 encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderSpec {
    /// Rows of the embedding table.
    pub vocab_size: i64,
    /// Width of the hidden state, and of the prompt embedding.
    pub d_model: i64,
    /// Width of one attention head.
    pub d_kv: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Width of the gated feed-forward layer.
    pub d_ff: i64,
    /// Encoder layers, each with a relative position bias of its own.
    pub num_layers: i64,
    /// Buckets of the relative position bias.
    pub relative_attention_num_buckets: i64,
    /// Distance from which all positions share the last bucket.
    pub relative_attention_max_distance: i64,
    /// Epsilon of the RMS norms.
    pub layer_norm_epsilon: f64,
    /// Prompts are cut or padded to so many tokens.
    pub max_tokens: i64,
    /// Of its weights those that its file has packed, each with its type, by name. They wait so in any case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packed: BTreeMap<String, WeightDtype>,
}

/// Shapes of a Wan transformer (diffusers' `WanTransformer3DModel`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformerSpec {
    /// Transformer blocks.
    pub num_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Width of one attention head; the hidden state is heads times this.
    pub attention_head_dim: i64,
    /// Latent channels in.
    pub in_channels: i64,
    /// Latent channels out.
    pub out_channels: i64,
    /// Width of the feed-forward layer.
    pub ffn_dim: i64,
    /// Width of the prompt embedding.
    pub text_dim: i64,
    /// Width of the sinusoidal timestep embedding.
    pub freq_dim: i64,
    /// Frames, height and width of one patch.
    pub patch_size: [i64; 3],
    /// Epsilon of the norms.
    pub eps: f64,
    /// Where it sees a picture by CLIP, the width of what CLIP says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_dim: Option<i64>,
}

/// A pool of two transformers of the same shapes: one for high noise, one for low noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// The high-noise transformer predicts at timesteps from this share of all on, the low-noise one below.
    pub boundary: f64,
    /// Guidance scale of the low-noise transformer, where it is another than the high-noise one's, which is the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_noise_guidance_scale: Option<f64>,
}

/// Shapes of CLIP's vision encoder (transformers' `CLIPVisionModel`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageEncoderSpec {
    /// Width of the hidden state.
    pub hidden_size: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Layers of a checkpoint. The last is not used.
    pub num_hidden_layers: i64,
    /// Side of the square of a picture that it sees, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl ImageEncoderSpec {
    /// Hidden states of a picture: one for each patch, and one for the whole of it.
    pub fn tokens(&self) -> i64 {
        let side = self.image_size / self.patch_size.max(1);
        side * side + 1
    }

    /// Layers that are used: Wan takes the hidden states before the last.
    pub fn layers_used(&self) -> u32 {
        (self.num_hidden_layers - 1).max(0) as u32
    }
}

/// How a transformer is told of the picture that a video begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageInput {
    /// Beside the latents it takes those of the picture, and a mask of the frames that are given, as further channels (image to video of A14B). There is always a picture.
    Channels,
    /// The picture's latents are the first latent frame, at timestep 0 (TI2V-5B). There may be none.
    FirstFrame,
}

/// Shapes of a Wan VAE (diffusers' `AutoencoderKLWan`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeSpec {
    /// Channels at full resolution.
    pub base_dim: i64,
    /// Latent channels.
    pub z_dim: i64,
    /// Channels of each resolution, as multiples of `base_dim`, from full resolution down.
    pub dim_mult: Vec<i64>,
    /// Residual blocks a resolution in the encoder; the decoder has one more.
    pub num_res_blocks: i64,
    /// Which of the encoder's downsamplings halve time too; the decoder goes through them backwards.
    pub temporal_downsample: Vec<bool>,
    /// Mean of each latent channel.
    pub latents_mean: Vec<f64>,
    /// Standard deviation of each latent channel.
    pub latents_std: Vec<f64>,
    /// Channels at full resolution in the decoder, where they differ from the encoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_base_dim: Option<i64>,
    /// Whether each resolution has a shortcut that averages or repeats (the VAE of Wan2.2 TI2V-5B).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub residual: bool,
    /// Side of the pixel patches that become channels before the encoder and pixels again after the decoder.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub patch_size: i64,
}

fn one() -> i64 {
    1
}

fn is_one(value: &i64) -> bool {
    *value == 1
}

impl VaeSpec {
    /// Pixels a latent pixel spans in height and width.
    pub fn spatial_compression(&self) -> i64 {
        self.patch_size << self.temporal_downsample.len()
    }

    /// Values that a latent position becomes where the decoder's activations are largest: at full resolution (patches of pixels apart), with the
    /// channels of the resolution before.
    pub fn largest_activation(&self) -> i64 {
        let side = 1 << self.temporal_downsample.len();
        let channels = self.decoder_base_dim.unwrap_or(self.base_dim) * self.dim_mult.get(1).copied().unwrap_or(1);
        channels * side * side * self.temporal_compression()
    }

    /// Frames a latent frame spans, the first one apart.
    pub fn temporal_compression(&self) -> i64 {
        1 << self.temporal_downsample.iter().filter(|&&halves| halves).count()
    }
}

/// How the model's authors sample from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Sampler steps.
    pub steps: u32,
    /// Weight of the difference between the cond and the uncond prediction.
    pub guidance_scale: f64,
    /// Shift of the sigma schedule.
    pub flow_shift: f64,
    /// Which sampler walks the sigma schedule.
    #[serde(default)]
    pub sampler: Sampler,
    /// Width and height in pixels.
    pub resolution: [u32; 2],
    /// Frames of the video.
    pub frames: u32,
    /// Frames a second.
    #[serde(default = "sixteen")]
    pub fps: u32,
}

fn sixteen() -> u32 {
    16
}
