//! The text encoder as a component.

use std::cell::OnceCell;

use engine_protocol::{Config, GpuProfile, HostMemory, ModelSpec, Moves, OffloadTextEncoder, Stage};

use super::between_stages::{cublas_workspace_bytes, number_bytes, prompt_embedding_bytes, prompts};
use super::component::{Alias, Component, Wanted};
use crate::text_encoder::{TABLE, TextEncoder, byte_tokens};
use crate::weights::{Group, GroupName};

/// Its key.
pub const KEY: &str = "text_encoder";

#[derive(Debug)]
pub(super) struct TextEncoderComponent<'a> {
    model: &'a ModelSpec,
    groups: OnceCell<Vec<Group>>,
}

impl<'a> TextEncoderComponent<'a> {
    pub(super) fn new(model: &'a ModelSpec) -> Self {
        Self { model, groups: OnceCell::new() }
    }

    /// What a pass over the configuration's prompts holds beside the weights, wherever it computes.
    fn pass_bytes(&self, config: &Config) -> i64 {
        let spec = &self.model.text_encoder;
        let uncond = config.has_guidance().then_some(&config.negative_prompt);
        let lengths = [Some(&config.prompt), uncond].into_iter().flatten().map(|prompt| byte_tokens(prompt, spec.max_tokens).len());
        let longest = lengths.max().unwrap_or(0) as i64;
        TextEncoder::new(spec).activation_bytes(prompts(config), longest, number_bytes(config))
    }
}

impl Component for TextEncoderComponent<'_> {
    fn key(&self) -> &'static str {
        KEY
    }

    fn name(&self) -> &'static str {
        "text encoder"
    }

    fn stage(&self) -> Stage {
        Stage::Encode
    }

    fn moves(&self) -> Moves {
        Moves::DuringEncode
    }

    fn groups(&self) -> &[Group] {
        self.groups.get_or_init(|| TextEncoder::groups(&self.model.text_encoder))
    }

    /// transformers writes the embedding table under either name, or under both.
    fn alias(&self) -> Option<Alias> {
        Some(Alias { name: "shared.weight", alias: "encoder.embed_tokens.weight" })
    }

    fn needless(&self, name: &str) -> Option<&'static str> {
        if name == "spiece_model" {
            return Some("it is a tokenizer, and a checkpoint's folder has that in a file of its own");
        }
        ["decoder.", "lm_head."].iter().any(|part| name.starts_with(part)).then_some("the encoder alone makes prompt embeddings")
    }

    /// One encodes for all.
    fn is_of_all_ranks(&self, _config: &Config) -> bool {
        false
    }

    fn wanted(&self, config: &Config, name: GroupName) -> Wanted {
        match config.offload_text_encoder {
            OffloadTextEncoder::Off => Wanted::OnDevice,
            OffloadTextEncoder::Cpu => Wanted::OnHost,
            // Of the table a few rows are read, so it is read where it is.
            OffloadTextEncoder::Stream if name == TABLE => Wanted::OnHost,
            OffloadTextEncoder::Stream => Wanted::Streamed,
        }
    }

    /// Where it runs on the host or for another rank, what it hands on is all that comes to the GPU. Elsewhere prompts are taken to have a token a byte, as without a checkpoint;
    /// real tokenizers make fewer.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64> {
        if config.offload_text_encoder == OffloadTextEncoder::Cpu || !self.is_of_rank(config, rank) {
            return Some(prompt_embedding_bytes(self.model, config));
        }
        Some(cublas_workspace_bytes(gpu) + self.pass_bytes(config))
    }

    fn on_host(&self, config: &Config, _rank: usize) -> HostMemory {
        let computes = config.offload_text_encoder == OffloadTextEncoder::Cpu;
        HostMemory { peak_bytes: Some(if computes { self.pass_bytes(config) as u64 } else { 0 }), pinned_peak_bytes: 0 }
    }

    fn seed_number(&self) -> i64 {
        0
    }
}
