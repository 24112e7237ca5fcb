//! From settings to a complete and legal configuration: the rules that tie flags together. What concerns one flag alone stands in `table.rs`.

use super::error::ConfigError;
use super::flag::At;
use super::table::{self, Config, Settings};
use crate::Device;
use crate::GIB;
use crate::SAGE_HEAD_SIZE;
use crate::flag_values::{
    AttnType, Dtype, Fused, LinearDtype, PinnedMemory, ResidentBlocks, Sampler, StepsMeasured, StreamFrom, WeightDtype,
};
use crate::linear::PRODUCT_SIDE;
use crate::{ImageInput, ModelSpec};

/// Parts in which a transformer block is streamed: self-attention, cross-attention, feed-forward.
pub const PARTS_OF_A_BLOCK: i64 = 3;

/// Values of the largest activation that the VAE may make of one chunk by default, in tiles: 96 MiB in bf16, which is small beside the weights and
/// large enough to fill a GPU. Of Wan2.1's VAE that are 1024 latent positions (height x width x frames).
const TILED_CHUNK_VALUES: i64 = 48 << 20;

impl Config {
    /// The configuration that `settings` mean for `model` on a GPU: what is not set comes from the memory level and the model's defaults.
    ///
    /// # Errors
    /// A value out of range or a combination that makes no sense, with what to change.
    pub fn resolve(settings: &Settings, model: &ModelSpec) -> Result<Self, ConfigError> {
        Self::resolve_on(Device::Cuda, settings, model)
    }

    /// As [`Config::resolve`], on any device.
    ///
    /// # Errors
    /// Those of [`Config::resolve`].
    pub fn resolve_on(device: Device, settings: &Settings, model: &ModelSpec) -> Result<Self, ConfigError> {
        settings.check()?;
        let level = settings.low_mem_level.unwrap_or(0);
        let mut config = table::preset(settings, &At { level, device, model });
        config.model.clone_from(&model.name);
        config.fit_video(model)?;
        config.resolve_images(model)?;
        config.resolve_sigmas(settings)?;
        config.resolve_sampling(model)?;
        config.resolve_flexcache(device, model)?;
        config.resolve_arithmetic(device, model)?;
        config.resolve_linear(device, model)?;
        config.resolve_streaming(model)?;
        config.check_weight_dtype(model)?;
        config.resolve_vae(settings, model)?;
        Ok(config)
    }

    /// The video is one that the model can make.
    fn fit_video(&self, model: &ModelSpec) -> Result<(), ConfigError> {
        let [frames_patch, rows_patch, columns_patch] = model.transformer.patch_size;
        let compression = model.vae.spatial_compression();
        divisible("width", self.resolution.width, compression * columns_patch)?;
        divisible("height", self.resolution.height, compression * rows_patch)?;
        let span = (model.vae.temporal_compression() * frames_patch) as u32;
        if self.frames % span != 1 % span {
            let below = self.frames - (self.frames - 1) % span;
            return Err(ConfigError::new(
                format!("frames={} does not fit the VAE", self.frames),
                format!("use 1 more than a multiple of {span}: {below} or {}", below + span),
            ));
        }
        Ok(())
    }

    /// Pictures are for models that take them.
    fn resolve_images(&mut self, model: &ModelSpec) -> Result<(), ConfigError> {
        for path in [&mut self.image, &mut self.last_image] {
            path.take_if(|path| path.is_empty());
        }
        let shown = |key: &str, path: &String| format!("{key}={path}: {}", model.title);
        match (&self.image, &self.last_image, model.image) {
            (Some(path), _, None) => Err(ConfigError::new(
                format!("{} takes no picture", shown("image", path)),
                "use a model that does, wan2.2-i2v-a14b or wan2.2-ti2v-5b for example, or leave it out",
            )),
            (None, Some(path), _) => Err(ConfigError::new(
                format!("last_image={path}: there is no picture to begin with"),
                "name one with image, or leave last_image out",
            )),
            (_, Some(path), input) if input != Some(ImageInput::Channels) || model.image_encoder.is_some() => {
                Err(ConfigError::new(format!("{} takes the first picture alone", shown("last_image", path)), "leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// Levels say how many steps there are. Euler's sampler and that of LCM take any; the others have a schedule of their own.
    fn resolve_sigmas(&mut self, settings: &Settings) -> Result<(), ConfigError> {
        let Some(sigmas) = &self.sigmas else { return Ok(()) };
        if !matches!(self.sampler, Sampler::Euler | Sampler::Lcm) {
            return Err(ConfigError::new("sigmas are for sampler=euler and sampler=lcm", "set one of them, or leave sigmas out"));
        }
        let steps = sigmas.levels().len() as u32;
        if let Some(asked) = settings.steps.filter(|&asked| asked != steps) {
            return Err(ConfigError::new(
                format!("steps={asked}, and sigmas has {steps} levels"),
                "leave steps out, or give as many levels",
            ));
        }
        self.steps = steps;
        Ok(())
    }

    fn resolve_sampling(&mut self, model: &ModelSpec) -> Result<(), ConfigError> {
        let measured = self.steps_measured.and_then(StepsMeasured::count);
        ranged("steps_measured", measured.unwrap_or(self.steps).into(), 1, self.steps.into())?;
        self.steps_measured = measured.filter(|&measured| measured < self.steps).map(StepsMeasured::Count);
        if self.flow_shift <= 0.0 {
            return Err(ConfigError::new(format!("flow_shift={} is out of range", self.flow_shift), "use a number above 0"));
        }
        self.low_noise_guidance_scale =
            model.pool.as_ref().map(|pool| self.low_noise_guidance_scale.or(pool.low_noise_guidance_scale).unwrap_or(self.guidance_scale));
        let is_guided = self.guidance_scale > 1.0 || self.low_noise_guidance_scale.is_some_and(|scale| scale > 1.0);
        self.guidance_batch = self.guidance_batch.filter(|_| is_guided);
        Ok(())
    }

    fn resolve_arithmetic(&mut self, device: Device, model: &ModelSpec) -> Result<(), ConfigError> {
        let name = self.attn_type.name();
        let channels = model.transformer.attention_head_dim;
        if self.attn_type.is_in_8_bits() && (channels > SAGE_HEAD_SIZE || channels % 8 != 0) {
            return Err(ConfigError::new(
                format!(
                    "attn_type={name} takes heads of 8 to {SAGE_HEAD_SIZE} channels, a multiple of 8, and those of {} have {channels}",
                    self.model
                ),
                "use attn_type=sdpa",
            ));
        }
        if matches!(self.attn_type, AttnType::MemEfficient | AttnType::Cudnn) && device == Device::Cpu {
            return Err(ConfigError::new(format!("attn_type={name} has no CPU kernel"), "use attn_type=sdpa or math on the CPU"));
        }
        if matches!(self.attn_type, AttnType::Flash | AttnType::Cudnn) && self.dtype == Dtype::Fp32 {
            return Err(ConfigError::new(
                format!("attn_type={name} has no fp32 kernel"),
                "use dtype=bf16 or dtype=fp16, or attn_type=mem_efficient, sdpa or math",
            ));
        }
        if self.attn_type != AttnType::Sparge {
            *self = self.clone().without_choice();
        }
        if self.fused == Fused::Auto && device == Device::Cpu {
            self.fused = Fused::Off;
        }
        self.sequence_chunk = self.sequence_chunk.filter(|&tokens| tokens > 0);
        let heads = model.transformer.num_attention_heads;
        ranged("head_chunk", self.head_chunk.unwrap_or(0).into(), 0, heads)?;
        self.head_chunk = self.head_chunk.filter(|&chunk| chunk > 0 && i64::from(chunk) < heads);
        self.resolve_split(model)
    }

    /// What is multiplied in 8 bits waits in the same 8 bits.
    fn resolve_linear(&mut self, device: Device, model: &ModelSpec) -> Result<(), ConfigError> {
        let Some(multiplied) = self.linear_dtype.weight_dtype() else { return Ok(()) };
        let name = self.linear_dtype.name();
        let waiting =
            model.packed_dtype().unwrap_or(if self.weight_dtype == WeightDtype::AsStored { multiplied } else { self.weight_dtype });
        if waiting != multiplied {
            return Err(ConfigError::new(
                format!("linear_dtype={name} multiplies weights in {}, and these wait in {}", multiplied.name(), waiting.name()),
                match (model.packed_dtype(), waiting) {
                    (None, _) => "leave one of weight_dtype and linear_dtype out",
                    (_, WeightDtype::Fp8E4m3) => "use linear_dtype=fp8, or leave it out",
                    (_, WeightDtype::Int8) => "use linear_dtype=int8, or leave it out",
                    _ => "leave linear_dtype out, or use a file with weights in bf16",
                },
            ));
        }
        self.weight_dtype = multiplied;
        if self.linear_dtype == LinearDtype::Fp8 && device != Device::Cpu && self.dtype != Dtype::Bf16 {
            let reason = format!("linear_dtype=fp8 gives its results in bf16, and dtype={}", self.dtype.name());
            return Err(ConfigError::new(reason, "use dtype=bf16, or leave linear_dtype out"));
        }
        let spec = &model.transformer;
        let heads = self.head_chunk.map_or(spec.num_attention_heads, i64::from);
        let sides = [spec.num_attention_heads, heads, spec.num_attention_heads % heads].map(|heads| heads * spec.attention_head_dim);
        match sides.into_iter().chain([spec.ffn_dim]).find(|side| side % PRODUCT_SIDE != 0) {
            Some(side) => Err(ConfigError::new(
                format!("linear_dtype={name} takes layers whose sides are a multiple of {PRODUCT_SIDE}, and one here has {side}"),
                "leave linear_dtype out, or set head_chunk so that its heads have such a number of channels together",
            )),
            None => Ok(()),
        }
    }

    fn resolve_streaming(&mut self, model: &ModelSpec) -> Result<(), ConfigError> {
        let blocks = model.transformer.num_layers;
        if let Some(ResidentBlocks::Count(count)) = self.resident_blocks {
            ranged("resident_blocks", count.into(), 0, blocks)?;
        }
        ranged("prefetch_blocks", self.prefetch_blocks.unwrap_or(0).into(), 0, PARTS_OF_A_BLOCK * blocks)?;
        if !self.offload_dit {
            (self.resident_blocks, self.stream_from) = (None, None);
            self.prefetch_blocks = self.prefetch_blocks.filter(|_| self.shard_weights.is_some());
            (self.pinned_memory, self.max_pinned_gib) = (None, None);
            return Ok(());
        }
        if self.pinned_memory == Some(PinnedMemory::Off) || self.stream_from == Some(StreamFrom::File) {
            self.max_pinned_gib = None;
        }
        if self.stream_from == Some(StreamFrom::File) && self.weight_dtype != WeightDtype::AsStored && model.packed.is_empty() {
            let reason = format!(
                "stream_from=file brings weights as the files have them, and weight_dtype={} makes them anew",
                self.weight_dtype.name()
            );
            let key = if self.linear_dtype == LinearDtype::Dtype { "weight_dtype" } else { "linear_dtype" };
            return Err(ConfigError::new(reason, format!("use stream_from=memory, or leave {key} out")));
        }
        Ok(())
    }

    /// What a file has packed stays as it is there, or is made the type of arithmetic.
    fn check_weight_dtype(&self, model: &ModelSpec) -> Result<(), ConfigError> {
        match model.packed_dtype() {
            Some(stored) if self.weight_dtype != stored && self.weight_dtype != WeightDtype::AsStored => Err(ConfigError::new(
                format!(
                    "weight_dtype={}: the file has its weights in {}, and they are not packed anew",
                    self.weight_dtype.name(),
                    stored.name()
                ),
                format!("use weight_dtype={} or as_stored, or leave it out", stored.name()),
            )),
            _ => Ok(()),
        }
    }

    /// A tile size by itself does not make the VAE decode in tiles.
    fn resolve_vae(&mut self, settings: &Settings, model: &ModelSpec) -> Result<(), ConfigError> {
        let size = self.vae_tile_size.unwrap_or(table::TILE_SIZE);
        let overlap = self.vae_tile_overlap.unwrap_or_else(|| table::TILE_OVERLAP.min(size / 4));
        ranged("vae_tile_overlap", overlap.into(), 0, i64::from(size) / 2)?;
        let is_tiled = settings.vae_tiling.unwrap_or(self.low_mem_level >= 1);
        (self.vae_tile_size, self.vae_tile_overlap) = if is_tiled { (Some(size), Some(overlap)) } else { (None, None) };

        let latent_frames = self.latent_shape(model)[1] as u32;
        let chunk = settings.vae_temporal_chunk.unwrap_or(if is_tiled { tiled_chunk(model, size) } else { 1 });
        self.vae_temporal_chunk = chunk.min(latent_frames);
        self.activation_offload &= self.vae_temporal_chunk < latent_frames;
        Ok(())
    }

    /// Steps that a run takes.
    pub fn steps_to_run(&self) -> u32 {
        self.steps_measured.and_then(StepsMeasured::count).unwrap_or(self.steps)
    }

    /// What of a GPU or a budget of that size may be used: room that is left to others is taken off.
    pub fn usable_of(&self, capacity_bytes: u64) -> u64 {
        capacity_bytes.saturating_sub((self.reserve_gib * GIB as f64) as u64)
    }

    /// Whether there is an uncond prediction.
    pub fn has_guidance(&self) -> bool {
        self.guidance_batch.is_some()
    }

    /// Whether the video begins with a picture: one that was named, or the grey one that stands in where a model needs one.
    pub fn has_image(&self, model: &ModelSpec) -> bool {
        match model.image {
            Some(ImageInput::Channels) => true,
            Some(ImageInput::FirstFrame) => self.image.is_some(),
            None => false,
        }
    }

    /// Shape of the latents that a picture is encoded to: of a whole video, grey where no picture is, or of one frame.
    pub fn image_latent_shape(&self, model: &ModelSpec) -> [i64; 4] {
        let [channels, frames, height, width] = self.latent_shape(model);
        let frames = if model.image == Some(ImageInput::FirstFrame) { 1 } else { frames };
        [channels, frames, height, width]
    }

    /// Shape of the latents of one video: channels, frames, height, width.
    pub fn latent_shape(&self, model: &ModelSpec) -> [i64; 4] {
        let frames = (i64::from(self.frames) - 1) / model.vae.temporal_compression() + 1;
        let side = |pixels: u32| i64::from(pixels) / model.vae.spatial_compression();
        [model.vae.z_dim, frames, side(self.resolution.height), side(self.resolution.width)]
    }
}

/// Latent frames that the VAE decodes at a time by default in tiles of this side.
pub(super) fn tiled_chunk(model: &ModelSpec, size: u32) -> u32 {
    let tile_values = model.vae.largest_activation().max(1).saturating_mul(i64::from(size) * i64::from(size));
    (TILED_CHUNK_VALUES / tile_values).clamp(1, u32::MAX.into()) as u32
}

fn ranged(key: &str, value: i64, low: i64, high: i64) -> Result<i64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(format!("{key}={value} is out of range"), format!("use {low} to {high}")))
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
