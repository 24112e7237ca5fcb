//! The VAE's encoder as a component: it makes latents of the picture that a video begins with.

use std::cell::OnceCell;

use engine_protocol::{Config, GpuProfile, HostMemory, ModelSpec, Moves, Stage};

use super::between_stages::{FP32, cublas_workspace_bytes, number_bytes, prompt_embedding_bytes, vae_numbers};
use super::component::{Component, Wanted};
use super::vae;
use crate::vae::{Pieces, VaeEncoder, encoder_groups, groups};
use crate::weights::{Group, GroupName};

/// Its key.
pub const KEY: &str = "vae_encoder";

#[derive(Debug)]
pub(super) struct VaeEncoderComponent<'a> {
    model: &'a ModelSpec,
    groups: OnceCell<Vec<Group>>,
}

impl<'a> VaeEncoderComponent<'a> {
    /// The encoder of a model whose videos may begin with a picture; nothing of others.
    pub(super) fn of(model: &'a ModelSpec) -> Option<Self> {
        model.image.map(|_| Self { model, groups: OnceCell::new() })
    }
}

impl Component for VaeEncoderComponent<'_> {
    fn key(&self) -> &'static str {
        KEY
    }

    fn stored_with(&self) -> &'static str {
        vae::KEY
    }

    fn is_used(&self, config: &Config) -> bool {
        config.has_image(self.model)
    }

    fn name(&self) -> &'static str {
        "VAE encoder"
    }

    fn stage(&self) -> Stage {
        Stage::EncodeImage
    }

    fn moves(&self) -> Moves {
        Moves::BeforeEncodeImage
    }

    fn groups(&self) -> &[Group] {
        self.groups.get_or_init(|| encoder_groups(&self.model.vae))
    }

    /// The decoder's.
    fn spare_groups(&self) -> Vec<Group> {
        groups(&self.model.vae)
    }

    /// One encodes the picture for all.
    fn is_of_all_ranks(&self, _config: &Config) -> bool {
        false
    }

    fn wanted(&self, config: &Config, _name: GroupName) -> Wanted {
        if config.offload_vae { Wanted::Streamed } else { Wanted::OnDevice }
    }

    /// The prompt embeddings, which wait, and what the encoder holds.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64> {
        if !self.is_of_rank(config, rank) {
            let latents = config.image_latent_shape(self.model).iter().product::<i64>() * FP32;
            return Some(prompt_embedding_bytes(self.model, config) + latents);
        }
        let encoder = VaeEncoder::new(&self.model.vae);
        let numbers = vae_numbers(config, gpu, encoder.head_size());
        let held = encoder.activation_bytes(config.image_latent_shape(self.model), Pieces::encoded(config).ok()?, numbers);
        Some(cublas_workspace_bytes(gpu) + prompt_embedding_bytes(self.model, config) + held)
    }

    /// What is remembered between chunks, where that waits there.
    fn on_host(&self, config: &Config, _rank: usize) -> HostMemory {
        let (encoder, latents) = (VaeEncoder::new(&self.model.vae), config.image_latent_shape(self.model));
        let remembered =
            Pieces::encoded(config).map_or(0, |pieces| encoder.remembered_on_host_bytes(latents, pieces, number_bytes(config)));
        HostMemory { peak_bytes: Some(remembered), pinned_peak_bytes: remembered }
    }

    fn seed_number(&self) -> i64 {
        4
    }
}
