//! The image encoder as a component: by it image to video of Wan2.1 sees its picture.

use std::cell::OnceCell;

use engine_protocol::{Config, GpuProfile, ImageEncoderSpec, ModelSpec, Moves, Stage};

use super::between_stages::{cublas_workspace_bytes, number_bytes, prompt_embedding_bytes};
use super::component::{Component, Wanted};
use crate::image_encoder::ImageEncoder;
use crate::weights::{Group, GroupName};

/// Its key.
pub const KEY: &str = "image_encoder";

#[derive(Debug)]
pub(super) struct ImageEncoderComponent<'a> {
    model: &'a ModelSpec,
    spec: &'a ImageEncoderSpec,
    groups: OnceCell<Vec<Group>>,
}

impl<'a> ImageEncoderComponent<'a> {
    /// That of `model`, where it has one.
    pub(super) fn of(model: &'a ModelSpec) -> Option<Self> {
        model.image_encoder.as_ref().map(|spec| Self { model, spec, groups: OnceCell::new() })
    }
}

impl Component for ImageEncoderComponent<'_> {
    fn key(&self) -> &'static str {
        KEY
    }

    fn name(&self) -> &'static str {
        "image encoder"
    }

    fn stage(&self) -> Stage {
        Stage::EncodeImage
    }

    fn moves(&self) -> Moves {
        Moves::BeforeEncodeImage
    }

    fn groups(&self) -> &[Group] {
        self.groups.get_or_init(|| ImageEncoder::groups(self.spec))
    }

    fn needless(&self, name: &str) -> Option<&'static str> {
        let last = format!("vision_model.encoder.layers.{}.", self.spec.layers_used());
        if name.starts_with(&last) || name.starts_with("vision_model.post_layernorm.") {
            return Some("hidden states are taken before the last layer");
        }
        let others = ["text_model.", "text_projection.", "visual_projection.", "logit_scale", "vision_model.embeddings.position_ids"];
        others.iter().any(|part| name.starts_with(part)).then_some("it compares pictures with texts, which no video needs")
    }

    /// One looks at the picture for all.
    fn is_of_all_ranks(&self, _config: &Config) -> bool {
        false
    }

    fn wanted(&self, config: &Config, _name: GroupName) -> Wanted {
        if config.offload_vae { Wanted::Streamed } else { Wanted::OnDevice }
    }

    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64> {
        if !self.is_of_rank(config, rank) {
            return Some(prompt_embedding_bytes(self.model, config) + self.spec.tokens() * self.spec.hidden_size * number_bytes(config));
        }
        let held = ImageEncoder::new(self.spec).activation_bytes(number_bytes(config));
        Some(cublas_workspace_bytes(gpu) + prompt_embedding_bytes(self.model, config) + held)
    }

    fn seed_number(&self) -> i64 {
        5
    }
}
