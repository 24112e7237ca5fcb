//! The VAE's encoder as a component: it makes latents of the picture that a video begins with.

use std::cell::OnceCell;

use engine_protocol::{AttentionKernel, AttnType, Config, GpuProfile, ModelSpec, Moves, Stage};

use super::between_stages::{CUBLAS_WORKSPACE_BYTES, number_bytes, prompt_embedding_bytes};
use super::component::{Component, Wanted};
use super::vae;
use crate::cuda::allocator::block_bytes;
use crate::vae::{Numbers, Pieces, VaeEncoder, encoder_groups, groups};
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

    fn wanted(&self, config: &Config, _name: GroupName) -> Wanted {
        if config.offload_vae { Wanted::Streamed } else { Wanted::OnDevice }
    }

    /// The prompt embeddings, which wait, and what the encoder holds. PyTorch picks its kernels, as it does for the decoder.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>) -> Option<i64> {
        let encoder = VaeEncoder::new(&self.model.vae);
        let has_plain_kernels = AttentionKernel::of(AttnType::Sdpa, config.dtype, gpu, encoder.head_size()) == Some(AttentionKernel::Math);
        let numbers = Numbers { bytes: number_bytes(config), has_plain_kernels, allocated: &|bytes| block_bytes(bytes) as i64 };
        let held = encoder.activation_bytes(config.image_latent_shape(self.model), Pieces::encoded(config).ok()?, numbers);
        Some(CUBLAS_WORKSPACE_BYTES + prompt_embedding_bytes(self.model, config) + held)
    }

    fn seed_number(&self) -> i64 {
        4
    }
}
