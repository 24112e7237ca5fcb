//! Settings that change nothing in the configuration that they became part of: said, never silent.

use super::resolve::LAST_LEVEL;
use super::{Config, OnOom, Settings, StreamFrom};

impl Config {
    /// Keys of `settings` that have no effect in this configuration, and why.
    pub fn without_effect(&self, settings: &Settings) -> Vec<String> {
        const TILING: &str = "the VAE is not tiled: set vae_tiling=true or low_mem_level=1";
        const STREAMING: &str = "no transformer block is streamed: set offload_dit=true or low_mem_level=3";
        const GUIDANCE: &str = "guidance_scale=1 has no uncond prediction";
        const ONE_CHUNK: &str = "the VAE decodes all latent frames at once: set vae_temporal_chunk lower";
        let (tiled, streamed) = (self.vae_tile_size.is_some(), self.offload_dit);
        let pinning = match (streamed, self.stream_from) {
            (false, _) => STREAMING,
            (true, Some(StreamFrom::File)) => "blocks come from their files: set stream_from=memory",
            (true, _) => "no block waits in page-locked memory: set pinned_memory=true",
        };
        let has_lower = self.low_mem_level < LAST_LEVEL || self.resident_blocks.is_some_and(|blocks| blocks.count() != Some(0));
        let rows = [
            ("vae_tile_size", settings.vae_tile_size.is_some(), tiled, TILING),
            ("vae_tile_overlap", settings.vae_tile_overlap.is_some(), tiled, TILING),
            ("resident_blocks", settings.resident_blocks.is_some(), streamed, STREAMING),
            ("prefetch_blocks", settings.prefetch_blocks.is_some(), streamed, STREAMING),
            ("pinned_memory", settings.pinned_memory.is_some(), streamed, STREAMING),
            ("stream_from", settings.stream_from.is_some(), streamed, STREAMING),
            ("max_pinned_gib", settings.max_pinned_gib.is_some(), self.max_pinned_gib.is_some(), pinning),
            (
                "low_noise_guidance_scale",
                settings.low_noise_guidance_scale.is_some(),
                self.low_noise_guidance_scale.is_some(),
                "this model has one transformer",
            ),
            ("negative_prompt", settings.negative_prompt.is_some(), self.has_guidance(), GUIDANCE),
            (
                "head_chunk",
                settings.head_chunk.is_some_and(|heads| heads > 0),
                self.head_chunk.is_some(),
                "those are all of the model's heads",
            ),
            ("gradient_checkpointing", settings.gradient_checkpointing == Some(true), false, "nothing is trained, so no gradient is kept"),
            ("guidance_batch", settings.guidance_batch == Some(true), self.has_guidance(), GUIDANCE),
            ("activation_offload", settings.activation_offload == Some(true), self.activation_offload, ONE_CHUNK),
            ("on_oom", self.on_oom == OnOom::Lower, has_lower, "level 3 without resident blocks takes least already"),
        ];
        let idle = rows.into_iter().filter(|(_, set, has_effect, _)| *set && !has_effect);
        idle.map(|(key, _, _, why)| format!("{key} has no effect: {why}")).collect()
    }
}
