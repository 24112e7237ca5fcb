//! The next lower memory level, for a run that is out of memory.

use super::resolve::tiled_chunk;
use super::table::{Config, LAST_LEVEL, Settings, TILE_SIZE};
use crate::ModelSpec;
use crate::flag_values::{OffloadTextEncoder, ResidentBlocks};

impl Config {
    /// This configuration at the next level that takes less of the GPU; flags that take less than that already stay as they are. After the last level
    /// comes the same without resident blocks, and then nothing.
    pub fn lowered(&self, model: &ModelSpec) -> Option<Self> {
        let mut next = self.clone();
        while next.low_mem_level < LAST_LEVEL {
            next.low_mem_level += 1;
            next.apply_level(model);
            if next != (Self { low_mem_level: next.low_mem_level, ..self.clone() }) {
                return Some(next);
            }
        }
        next.resident_blocks = next.resident_blocks.map(|_| ResidentBlocks::Count(0));
        (next.resident_blocks != self.resident_blocks).then_some(next)
    }

    /// Whether [`Config::lowered`] has anything to give.
    pub(super) fn has_lower(&self) -> bool {
        self.low_mem_level < LAST_LEVEL || self.resident_blocks.is_some_and(|blocks| blocks.count() != Some(0))
    }

    /// Sets what the level presets, where that takes less.
    fn apply_level(&mut self, model: &ModelSpec) {
        let level = self.low_mem_level;
        let settings = Settings { low_mem_level: Some(level), ..Settings::default() };
        let defaults = Self::resolve(&settings, model).expect("a level's own flags are legal");
        if level >= 1 && self.vae_tile_size.is_none() {
            let latent_frames = self.latent_shape(model)[1] as u32;
            (self.vae_tile_size, self.vae_tile_overlap) = (defaults.vae_tile_size, defaults.vae_tile_overlap);
            self.vae_temporal_chunk = tiled_chunk(model, TILE_SIZE).min(latent_frames);
            self.activation_offload &= self.vae_temporal_chunk < latent_frames;
        }
        if level >= 2 && self.offload_text_encoder == OffloadTextEncoder::Off {
            self.offload_text_encoder = OffloadTextEncoder::Cpu;
        }
        if level >= 3 {
            self.offload_vae = true;
        }
        if level >= 3 && !self.offload_dit {
            self.offload_dit = true;
            self.resident_blocks = defaults.resident_blocks;
            self.prefetch_blocks = defaults.prefetch_blocks;
            self.pinned_memory = defaults.pinned_memory;
            self.stream_from = defaults.stream_from;
        }
    }
}
