//! The VAE as a component: its decoder makes the frames.

use std::cell::OnceCell;

use engine_protocol::{Config, GpuProfile, HostMemory, ModelSpec, Moves, Stage};

use super::between_stages::{CUBLAS_WORKSPACE_BYTES, latent_bytes, number_bytes, vae_numbers};
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

    /// The latents, and what the decoder holds.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>) -> Option<i64> {
        let (decoder, latents) = (VaeDecoder::new(&self.model.vae), config.latent_shape(self.model));
        let numbers = vae_numbers(config, gpu, decoder.head_size());
        let held = decoder.activation_bytes(latents, Pieces::of(config).ok()?, numbers);
        Some(CUBLAS_WORKSPACE_BYTES + latent_bytes(self.model, config) + held)
    }

    /// Those of all its tiles.
    fn decoded_positions(&self, config: &Config) -> Option<u64> {
        Some(Pieces::of(config).ok()?.positions(config.latent_shape(self.model)))
    }

    /// The finished video's pixels, which rows of tiles are gathered in, and what is remembered between chunks where that waits there.
    fn on_host(&self, config: &Config) -> HostMemory {
        let pixels = u64::from(config.frames) * u64::from(config.resolution.width) * u64::from(config.resolution.height) * 3;
        let decoder = VaeDecoder::new(&self.model.vae);
        let remembered = Pieces::of(config)
            .map_or(0, |pieces| decoder.remembered_on_host_bytes(config.latent_shape(self.model), pieces, number_bytes(config)));
        HostMemory { peak_bytes: Some(pixels + remembered), pinned_peak_bytes: remembered }
    }

    fn seed_number(&self) -> i64 {
        2
    }
}
