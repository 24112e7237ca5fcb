//! A configuration told: its flags on one line, and the settings that give it again. Which one is best is judged elsewhere.

use engine_protocol::{Allocator, Config, WeightDtype};
use serde_json::{Value, json};

/// The flags of a configuration that decide about memory, on one line.
pub fn flags(config: &Config) -> String {
    let mut flags = vec![format!("attn_type={}", config.attn_type.name()), format!("dtype={}", config.dtype.name())];
    if let Some(size) = config.vae_tile_size {
        flags.push(format!("vae_tile_size={size}"));
    }
    if config.weight_dtype != WeightDtype::AsStored {
        flags.push(format!("weight_dtype={}", config.weight_dtype.name()));
    }
    if config.allocator != Allocator::Native {
        flags.push(format!("allocator={}", config.allocator.name()));
    }
    flags.push(format!("offload_text_encoder={}", config.offload_text_encoder.name()));
    let switches =
        [("offload_vae", config.offload_vae), ("offload_dit", config.offload_dit), ("activation_offload", config.activation_offload)];
    for (name, is_on) in switches {
        if is_on {
            flags.push(format!("{name}=true"));
        }
    }
    flags.join(", ")
}

/// The settings that give `config` again: its level, and all that the level and the model leave open.
pub fn settings(config: &Config) -> Vec<(&'static str, Value)> {
    let mut settings = vec![
        ("model", json!(config.model)),
        ("resolution", json!(config.resolution())),
        ("frames", json!(config.frames)),
        ("steps", json!(config.steps)),
        ("sampler", json!(config.sampler.name())),
        ("guidance_scale", json!(config.guidance_scale)),
        ("flow_shift", json!(config.flow_shift)),
        ("low_mem_level", json!(config.low_mem_level)),
        ("dtype", json!(config.dtype.name())),
        ("attn_type", json!(config.attn_type.name())),
        ("offload_text_encoder", json!(config.offload_text_encoder.name())),
        ("offload_vae", json!(config.offload_vae)),
        ("offload_dit", json!(config.offload_dit)),
        ("weight_dtype", json!(config.weight_dtype.name())),
        ("allocator", json!(config.allocator.name())),
        ("sequence_chunk", json!(config.sequence_chunk.unwrap_or(0))),
        ("head_chunk", json!(config.head_chunk.unwrap_or(0))),
        ("vae_tiling", json!(config.vae_tile_size.is_some())),
        ("vae_temporal_chunk", json!(config.vae_temporal_chunk)),
        ("activation_offload", json!(config.activation_offload)),
    ];
    let where_it_has_meaning = [
        ("low_noise_guidance_scale", config.low_noise_guidance_scale.map(|scale| json!(scale))),
        ("resident_blocks", config.resident_blocks.map(|n| json!(n))),
        ("prefetch_blocks", config.prefetch_blocks.map(|n| json!(n))),
        ("pinned_memory", config.pinned_memory.map(|yes| json!(yes))),
        ("max_pinned_gib", config.max_pinned_gib.map(|gib| json!(gib))),
        ("stream_from", config.stream_from.map(|from| json!(from.name()))),
        ("guidance_batch", config.guidance_batch.map(|yes| json!(yes))),
        ("vae_tile_size", config.vae_tile_size.map(|n| json!(n))),
        ("vae_tile_overlap", config.vae_tile_overlap.map(|n| json!(n))),
    ];
    settings.extend(where_it_has_meaning.into_iter().filter_map(|(key, value)| Some((key, value?))));
    settings
}

#[cfg(test)]
mod tests {
    use engine_protocol::Settings;

    use super::*;
    use crate::samples;

    #[test]
    fn the_recommended_settings_give_the_chosen_configuration_again() {
        for level in 0..4 {
            let record = samples::ok("a", level, 5);
            let pairs = settings(&record.config).into_iter().map(|(key, value)| (key.to_owned(), value));
            let settings = Settings::from_pairs(pairs).expect("settings");
            let run = samples::run(vec![record.clone()]);
            assert_eq!(Config::resolve(&settings, &run.manifest.models[0]).expect("legal"), record.config);
        }
    }
}
