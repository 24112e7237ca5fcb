//! From settings to a complete and legal configuration.

use serde::{Deserialize, Serialize};

use super::{
    Allocator, AttnType, Dtype, OffloadTextEncoder, OnOom, ResidentBlocks, Sampler, Settings, StreamFrom, WeightDtype, parse_resolution,
};
use crate::ModelSpec;

/// Why a configuration is refused, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {remedy}")]
pub struct ConfigError {
    /// What is wrong, with the key and its value.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl ConfigError {
    /// A refusal and its remedy.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

/// A complete configuration. What means nothing in it is empty, so two cases that are the same in effect are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model definition's name.
    pub model: String,
    /// What the video shows.
    pub prompt: String,
    /// What it should not show: the prompt of the uncond prediction.
    pub negative_prompt: String,
    /// Seed of the starting noise, and of the weights where there is no checkpoint.
    pub seed: i64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames of the video.
    pub frames: u32,
    /// Sampler steps.
    pub steps: u32,
    /// Run only so many of the steps; memory is the same from the second step on.
    pub steps_measured: Option<u32>,
    /// Which sampler walks the sigma schedule.
    pub sampler: Sampler,
    /// Weight of the difference between the cond and the uncond prediction; at 1 there is no uncond pass.
    pub guidance_scale: f64,
    /// With a pool of transformers: the low-noise one's guidance scale.
    pub low_noise_guidance_scale: Option<f64>,
    /// Shift of the sigma schedule.
    pub flow_shift: f64,
    /// Where there is guidance: cond and uncond prediction come from one pass over both, and not from one after the other.
    pub guidance_batch: Option<bool>,
    /// The memory level that the flags below started from.
    pub low_mem_level: u8,
    /// What becomes of a run that is out of memory.
    #[serde(default)]
    pub on_oom: OnOom,
    /// Type of arithmetic and of the weights, the few kept in fp32 apart.
    pub dtype: Dtype,
    /// How the weights of the transformer's blocks are stored.
    pub weight_dtype: WeightDtype,
    /// Attention kernel of the transformer.
    pub attn_type: AttnType,
    /// Where the text encoder runs.
    pub offload_text_encoder: OffloadTextEncoder,
    /// The VAE waits on the CPU until it decodes.
    pub offload_vae: bool,
    /// Transformer blocks live on the CPU and are streamed to the GPU.
    pub offload_dit: bool,
    /// With `offload_dit`: so many blocks stay on the GPU all the same, spread evenly among those that are streamed.
    pub resident_blocks: Option<ResidentBlocks>,
    /// With `offload_dit`: parts of blocks that are on their way while one computes. A block has [`PARTS_OF_A_BLOCK`].
    pub prefetch_blocks: Option<u32>,
    /// With `offload_dit`: the blocks wait in page-locked memory, which copies need to overlap with arithmetic.
    pub pinned_memory: Option<bool>,
    /// With `pinned_memory`: at most so many GiB are page-locked; blocks beyond wait in ordinary memory.
    pub max_pinned_gib: Option<f64>,
    /// With `offload_dit`: where streamed weights come from.
    pub stream_from: Option<StreamFrom>,
    /// Tokens that norms, projections, queries and the feed-forward layer take at a time; empty for all at once. Keys and values are always whole.
    pub sequence_chunk: Option<u32>,
    /// Heads that self-attention takes at a time, so that keys and values exist for those alone; empty for all at once.
    pub head_chunk: Option<u32>,
    /// How libtorch gets the GPU's memory from the driver.
    #[serde(default)]
    pub allocator: Allocator,
    /// Side of a VAE tile in latent pixels; empty for the whole frame at once.
    pub vae_tile_size: Option<u32>,
    /// Latent pixels that neighbouring tiles share.
    pub vae_tile_overlap: Option<u32>,
    /// Latent frames that the VAE decodes at a time.
    pub vae_temporal_chunk: u32,
    /// What the VAE remembers between chunks waits on the CPU.
    pub activation_offload: bool,
}

/// Parts in which a transformer block is streamed: self-attention, cross-attention, feed-forward.
pub const PARTS_OF_A_BLOCK: i64 = 3;

/// Values of the largest activation that the VAE may make of one chunk by default, in tiles: 96 MiB in bf16, which is small beside the weights and
/// large enough to fill a GPU. Of Wan2.1's VAE that are 1024 latent positions (height x width x frames).
const TILED_CHUNK_VALUES: i64 = 48 << 20;

/// Tokens that a transformer block takes at a time by default. Slices of this size fill a GPU, so they cost no time, and what a block needs in
/// passing is then one or two hundred MiB for the widest published layer, whatever the length of the video.
const SEQUENCE_CHUNK: u32 = 4096;

/// Tile side in latent pixels, the page's default.
pub(super) const TILE_SIZE: u32 = 8;

/// The memory level that takes least of the GPU.
pub(super) const LAST_LEVEL: u8 = 3;

impl Config {
    /// The configuration that `settings` mean for `model`: what is not set comes from the memory level and the model's defaults.
    ///
    /// # Errors
    /// A value out of range or a combination that makes no sense, with what to change.
    pub fn resolve(settings: &Settings, model: &ModelSpec) -> Result<Self, ConfigError> {
        let level = ranged("low_mem_level", settings.low_mem_level.unwrap_or(0), 0, LAST_LEVEL.into())? as u8;
        let [width, height] = match &settings.resolution {
            Some(text) => parse_resolution(text)?,
            None => model.sampling.resolution,
        };
        let [frames_patch, rows_patch, columns_patch] = model.transformer.patch_size;
        let compression = model.vae.spatial_compression();
        divisible("width", width, compression * columns_patch)?;
        divisible("height", height, compression * rows_patch)?;
        let frames = ranged("frames", settings.frames.unwrap_or(model.sampling.frames.into()), 1, 1 << 16)? as u32;
        let span = (model.vae.temporal_compression() * frames_patch) as u32;
        if frames % span != 1 % span {
            let below = frames - (frames - 1) % span;
            return Err(ConfigError::new(
                format!("frames={frames} does not fit the VAE"),
                format!("use 1 more than a multiple of {span}: {below} or {}", below + span),
            ));
        }
        let latent_frames = (frames - 1) / model.vae.temporal_compression() as u32 + 1;

        let steps = ranged("steps", settings.steps.unwrap_or(model.sampling.steps.into()), 1, 1000)? as u32;
        let steps_measured = match settings.steps_measured {
            Some(n) => Some(ranged("steps_measured", n, 1, i64::from(steps))? as u32).filter(|&n| n < steps),
            None => None,
        };
        let guidance_scale = settings.guidance_scale.unwrap_or(model.sampling.guidance_scale);
        let flow_shift = settings.flow_shift.unwrap_or(model.sampling.flow_shift);
        scale("guidance_scale", guidance_scale)?;
        let low_noise_guidance_scale =
            model.pool.as_ref().map(|pool| settings.low_noise_guidance_scale.or(pool.low_noise_guidance_scale).unwrap_or(guidance_scale));
        low_noise_guidance_scale.map_or(Ok(()), |value| scale("low_noise_guidance_scale", value))?;
        if !flow_shift.is_finite() || flow_shift <= 0.0 {
            return Err(ConfigError::new(format!("flow_shift={flow_shift} is out of range"), "use a number above 0"));
        }
        let dtype = settings.dtype.unwrap_or(Dtype::Bf16);
        let attn_type = settings.attn_type.unwrap_or(AttnType::Sdpa);
        if attn_type == AttnType::Flash && dtype == Dtype::Fp32 {
            return Err(ConfigError::new(
                "attn_type=flash has no fp32 kernel",
                "use dtype=bf16 or dtype=fp16, or attn_type=mem_efficient, sdpa or math",
            ));
        }
        only("cp_size", settings.cp_size, 1, "splitting a video over GPUs is not built yet")?;
        if let Some(cache) = settings.flexcache.as_deref().filter(|&cache| cache != "none") {
            return Err(ConfigError::new(format!("flexcache={cache} is not built yet"), "leave it out, or use flexcache=none"));
        }

        let weight_dtype = settings.weight_dtype.unwrap_or_default();
        let streaming = Streaming::resolve(settings, level, model.transformer.num_layers)?;
        streaming.refuse_what_cannot_be(attn_type, weight_dtype)?;
        let sequence_chunk = match settings.sequence_chunk {
            Some(0) => None,
            Some(n) => Some(ranged("sequence_chunk", n, 1, 1 << 30)? as u32),
            None => Some(SEQUENCE_CHUNK),
        };

        let heads = model.transformer.num_attention_heads;
        let head_chunk = ranged("head_chunk", settings.head_chunk.unwrap_or(0), 0, heads)?;

        let tile = tile(settings, level)?;
        let default_chunk = tile.map_or(1, |(size, _)| tiled_chunk(model, size).min(latent_frames));
        let is_guided = guidance_scale > 1.0 || low_noise_guidance_scale.is_some_and(|scale| scale > 1.0);
        let chunk = ranged("vae_temporal_chunk", settings.vae_temporal_chunk.unwrap_or(default_chunk.into()), 1, 1 << 16)? as u32;

        Ok(Self {
            model: model.name.clone(),
            prompt: settings.prompt.clone().unwrap_or_else(|| "a cat".into()),
            negative_prompt: settings.negative_prompt.clone().unwrap_or_default(),
            seed: settings.seed.unwrap_or(0),
            width,
            height,
            frames,
            steps,
            steps_measured,
            sampler: settings.sampler.unwrap_or(model.sampling.sampler),
            guidance_scale,
            low_noise_guidance_scale,
            flow_shift,
            guidance_batch: is_guided.then_some(settings.guidance_batch.unwrap_or(false)),
            low_mem_level: level,
            on_oom: settings.on_oom.unwrap_or_default(),
            dtype,
            weight_dtype,
            attn_type,
            offload_text_encoder: settings.offload_text_encoder.unwrap_or(if level >= 2 {
                OffloadTextEncoder::Cpu
            } else {
                OffloadTextEncoder::Off
            }),
            offload_vae: settings.offload_vae.unwrap_or(level >= 3),
            offload_dit: streaming.offload_dit,
            resident_blocks: streaming.resident_blocks,
            prefetch_blocks: streaming.prefetch_blocks,
            pinned_memory: streaming.pinned_memory,
            max_pinned_gib: streaming.max_pinned_gib,
            stream_from: streaming.stream_from,
            sequence_chunk,
            head_chunk: Some(head_chunk as u32).filter(|&chunk| chunk > 0 && i64::from(chunk) < heads),
            allocator: settings.allocator.unwrap_or_default(),
            vae_tile_size: tile.map(|(size, _)| size),
            vae_tile_overlap: tile.map(|(_, overlap)| overlap),
            vae_temporal_chunk: chunk.min(latent_frames),
            activation_offload: chunk < latent_frames && settings.activation_offload.unwrap_or(false),
        })
    }

    /// Steps that a run takes.
    pub fn steps_to_run(&self) -> u32 {
        self.steps_measured.unwrap_or(self.steps)
    }

    /// Whether there is an uncond prediction.
    pub fn has_guidance(&self) -> bool {
        self.guidance_batch.is_some()
    }

    /// Shape of the latents of one video: channels, frames, height, width.
    pub fn latent_shape(&self, model: &ModelSpec) -> [i64; 4] {
        let frames = (i64::from(self.frames) - 1) / model.vae.temporal_compression() + 1;
        let side = |pixels: u32| i64::from(pixels) / model.vae.spatial_compression();
        [model.vae.z_dim, frames, side(self.height), side(self.width)]
    }

    /// `1280x720`.
    pub fn resolution(&self) -> String {
        format!("{}x{}", self.width, self.height)
    }
}

/// The flags of a transformer whose blocks are streamed; empty where they are not.
pub(super) struct Streaming {
    pub(super) offload_dit: bool,
    pub(super) resident_blocks: Option<ResidentBlocks>,
    pub(super) prefetch_blocks: Option<u32>,
    pub(super) pinned_memory: Option<bool>,
    pub(super) max_pinned_gib: Option<f64>,
    pub(super) stream_from: Option<StreamFrom>,
}

impl Streaming {
    pub(super) fn resolve(settings: &Settings, level: u8, blocks: i64) -> Result<Self, ConfigError> {
        let offload_dit = settings.offload_dit.unwrap_or(level >= 3);
        let resident_blocks = settings.resident_blocks.unwrap_or(ResidentBlocks::Count(0));
        if let ResidentBlocks::Count(count) = resident_blocks {
            ranged("resident_blocks", count.into(), 0, blocks)?;
        }
        let prefetch_blocks = ranged("prefetch_blocks", settings.prefetch_blocks.unwrap_or(1), 0, PARTS_OF_A_BLOCK * blocks)?;
        if let Some(gib) = settings.max_pinned_gib.filter(|gib| !gib.is_finite() || *gib < 0.0) {
            return Err(ConfigError::new(format!("max_pinned_gib={gib} is out of range"), "use 0 or more GiB"));
        }
        let stream_from = settings.stream_from.unwrap_or(StreamFrom::Auto);
        let pinned_memory = settings.pinned_memory.unwrap_or(true);
        Ok(Self {
            offload_dit,
            resident_blocks: offload_dit.then_some(resident_blocks),
            prefetch_blocks: offload_dit.then_some(prefetch_blocks as u32),
            pinned_memory: offload_dit.then_some(pinned_memory),
            max_pinned_gib: settings.max_pinned_gib.filter(|_| offload_dit && pinned_memory && stream_from != StreamFrom::File),
            stream_from: offload_dit.then_some(stream_from),
        })
    }

    fn refuse_what_cannot_be(&self, attn_type: AttnType, weight_dtype: WeightDtype) -> Result<(), ConfigError> {
        if self.resident_blocks == Some(ResidentBlocks::Auto) && attn_type == AttnType::Math {
            return Err(ConfigError::new(
                "resident_blocks=auto goes by a predicted peak, and attn_type=math has none",
                "give a number of blocks, or use attn_type=sdpa, flash or mem_efficient",
            ));
        }
        if self.stream_from == Some(StreamFrom::File) && weight_dtype == WeightDtype::Fp8E4m3 {
            return Err(ConfigError::new(
                "stream_from=file brings weights as the files have them, and weight_dtype=fp8_e4m3 makes them anew",
                "use stream_from=memory, or leave weight_dtype out",
            ));
        }
        Ok(())
    }
}

/// Latent frames that the VAE decodes at a time by default in tiles of this side.
pub(super) fn tiled_chunk(model: &ModelSpec, size: u32) -> u32 {
    let tile_values = model.vae.largest_activation().max(1).saturating_mul(i64::from(size) * i64::from(size));
    (TILED_CHUNK_VALUES / tile_values).clamp(1, u32::MAX.into()) as u32
}

/// Side and overlap of a tile in latent pixels, where the VAE is tiled at all. A tile size by itself does not make it so.
fn tile(settings: &Settings, level: u8) -> Result<Option<(u32, u32)>, ConfigError> {
    let size = ranged("vae_tile_size", settings.vae_tile_size.unwrap_or(TILE_SIZE.into()), 2, 1 << 16)? as u32;
    let overlap = ranged("vae_tile_overlap", settings.vae_tile_overlap.unwrap_or((size / 4).into()), 0, i64::from(size) / 2)? as u32;
    Ok(settings.vae_tiling.unwrap_or(level >= 1).then_some((size, overlap)))
}

fn ranged(key: &str, value: i64, low: i64, high: i64) -> Result<i64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(format!("{key}={value} is out of range"), format!("use {low} to {high}")))
}

fn scale(key: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value >= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new(format!("{key}={value} is out of range"), "use 1 (no guidance) or more"))
}

fn only(key: &str, value: Option<i64>, legal: i64, why: &str) -> Result<(), ConfigError> {
    match value {
        Some(other) if other != legal => {
            Err(ConfigError::new(format!("{key}={other}: {why}"), format!("leave it out, or use {key}={legal}")))
        }
        _ => Ok(()),
    }
}

fn divisible(key: &str, pixels: u32, by: i64) -> Result<(), ConfigError> {
    let by = by as u32;
    if pixels > 0 && pixels.is_multiple_of(by) && pixels <= 1 << 14 {
        return Ok(());
    }
    let near = (pixels.min(1 << 14) / by).max(1) * by;
    Err(ConfigError::new(
        format!("{key}={pixels} does not fit the model"),
        format!("use a multiple of {by} up to 16384, {near} for example"),
    ))
}
