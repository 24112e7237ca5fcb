//! The VAE as a component: its decoder makes the frames.

use std::cell::OnceCell;

use engine_protocol::{Config, GpuProfile, HostMemory, ModelSpec, Moves, Stage};

use super::between_stages::{cublas_workspace_bytes, latent_bytes, number_bytes, vae_numbers};
use super::component::{Component, Wanted};
use crate::vae::{self, Pieces, VaeDecoder};
use crate::weights::{Group, GroupName};

/// Its key.
pub const KEY: &str = "vae";

#[derive(Debug)]
pub(super) struct VaeComponent<'a> {
    model: &'a ModelSpec,
    groups: OnceCell<Vec<Group>>,
}

impl<'a> VaeComponent<'a> {
    pub(super) fn new(model: &'a ModelSpec) -> Self {
        Self { model, groups: OnceCell::new() }
    }
}

impl Component for VaeComponent<'_> {
    fn key(&self) -> &'static str {
        KEY
    }

    fn name(&self) -> &'static str {
        "VAE"
    }

    fn stage(&self) -> Stage {
        Stage::Decode
    }

    fn moves(&self) -> Moves {
        Moves::BeforeDecode
    }

    fn groups(&self) -> &[Group] {
        self.groups.get_or_init(|| vae::groups(&self.model.vae))
    }

    /// The encoder's: the way back, from a video to latents.
    fn spare_groups(&self) -> Vec<Group> {
        vae::encoder_groups(&self.model.vae)
    }

    fn wanted(&self, config: &Config, _name: GroupName) -> Wanted {
        if config.offload_vae { Wanted::Streamed } else { Wanted::OnDevice }
    }

    /// Ranks share tiles.
    fn is_of_all_ranks(&self, config: &Config) -> bool {
        self.tiles(config) > 1
    }

    /// The latents, and what the decoder holds.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64> {
        let of = if rank == 0 { VaeDecoder::activation_bytes } else { VaeDecoder::activation_bytes_for_first };
        let (decoder, latents) = (VaeDecoder::new(&self.model.vae), config.latent_shape(self.model));
        let held = of(&decoder, latents, Pieces::of(config).ok()?, vae_numbers(config, gpu, decoder.head_size()));
        Some(cublas_workspace_bytes(gpu) + latent_bytes(self.model, config) + held)
    }

    /// Those of all its tiles.
    fn decoded_positions(&self, config: &Config) -> Option<u64> {
        let (all, tiles) = (Pieces::of(config).ok()?.positions(config.latent_shape(self.model)), self.tiles(config) as u64);
        // All tiles have one size.
        Some(all / tiles * tiles.div_ceil(u64::from(config.split().ranks())))
    }

    /// The finished video's pixels, which the first rank gathers rows of tiles in, and what is remembered between chunks where that waits there.
    fn on_host(&self, config: &Config, rank: usize) -> HostMemory {
        let pixels = u64::from(config.frames) * u64::from(config.resolution.width) * u64::from(config.resolution.height) * 3;
        let pixels = if rank == 0 { pixels } else { 0 };
        let decoder = VaeDecoder::new(&self.model.vae);
        let remembered = Pieces::of(config)
            .map_or(0, |pieces| decoder.remembered_on_host_bytes(config.latent_shape(self.model), pieces, number_bytes(config)));
        HostMemory { peak_bytes: Some(pixels + remembered), pinned_peak_bytes: remembered }
    }

    fn seed_number(&self) -> i64 {
        2
    }
}

impl VaeComponent<'_> {
    fn tiles(&self, config: &Config) -> usize {
        Pieces::of(config).map_or(1, |pieces| pieces.tiles(config.latent_shape(self.model)))
    }
}
