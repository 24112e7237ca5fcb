//! The transformer as a component, or each of a pool's two.

use std::cell::OnceCell;

use engine_protocol::{AttentionKernel, Config, GpuProfile, ModelSpec, Moves, ResidentBlocks, Stage};

use super::between_stages::{
    FP32, batch, cublas_workspace_bytes, image_embedding_bytes, input_bytes, number_bytes, pass_shape, prompt_embedding_bytes,
};
use super::component::{Component, Wanted};
use crate::attention::AttentionHolds;
use crate::flexcache::{CacheSize, kept_between_steps};
use crate::transformer::Transformer;
use crate::weights::{Group, GroupName, GroupWork};

/// The key of the only transformer, or of a pool's high-noise one.
pub const KEY: &str = "transformer";

/// The key of a pool's low-noise transformer.
pub const LOW_NOISE_KEY: &str = "transformer_2";

#[derive(Debug)]
pub(super) struct TransformerComponent<'a> {
    model: &'a ModelSpec,
    key: &'static str,
    name: &'static str,
    seed_number: i64,
    groups: OnceCell<Vec<Group>>,
}

impl<'a> TransformerComponent<'a> {
    /// The transformers of `model`, in the order in which they are used.
    pub(super) fn all(model: &'a ModelSpec) -> Vec<Self> {
        let one = |key, name, seed_number| Self { model, key, name, seed_number, groups: OnceCell::new() };
        match model.pool {
            None => vec![one(KEY, "transformer", 1)],
            Some(_) => vec![one(KEY, "high-noise transformer", 1), one(LOW_NOISE_KEY, "low-noise transformer", 3)],
        }
    }
}

/// The groups of the transformer `key` of `model`: with what its file has packed, and with its LoRAs.
fn groups(model: &ModelSpec, key: &str) -> Vec<Group> {
    let groups = Transformer::groups(&model.transformer).into_iter();
    let groups = groups.map(|group| match model.packed.get(key) {
        Some(dtypes) => group.packed(|name| dtypes.get(name).copied()),
        None => group,
    });
    let with_loras = groups.map(|group| match model.lora_ranks.get(key) {
        Some(ranks) => group.with_loras(|name| ranks.get(name).copied().unwrap_or(0)),
        None => group,
    });
    with_loras.collect()
}

impl TransformerComponent<'_> {
    /// What a pass takes, and what cuBLAS has for itself.
    fn inputs_bytes(&self, config: &Config, gpu: Option<&GpuProfile>) -> i64 {
        cublas_workspace_bytes(gpu)
            + prompt_embedding_bytes(self.model, config)
            + image_embedding_bytes(self.model, config)
            + batch(config) * input_bytes(self.model, config)
    }
}

impl Component for TransformerComponent<'_> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn stage(&self) -> Stage {
        Stage::Denoise
    }

    fn moves(&self) -> Moves {
        Moves::EachPass
    }

    fn groups(&self) -> &[Group] {
        self.groups.get_or_init(|| groups(self.model, self.key))
    }

    fn wanted(&self, config: &Config, name: GroupName) -> Wanted {
        let is_resident = match name.number {
            Some(block) => is_resident_block(config, block, self.model.transformer.num_layers as u32),
            // What stands at the two ends of a pass waits in between, while a block's own buffers are needed.
            None => false,
        };
        match name.number {
            Some(_) if config.shard_weights == Some(true) => Wanted::OnRanks,
            _ if is_resident || !config.offload_dit => Wanted::OnDevice,
            _ => Wanted::Streamed,
        }
    }

    /// The prompt embeddings, the latents of a pass, and what the pass holds.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64> {
        let transformer = Transformer::of(config, &self.model.transformer);
        let holds = match AttentionKernel::of(config.attn_type, config.dtype, gpu, self.model.transformer.attention_head_dim) {
            Some(AttentionKernel::Math) => AttentionHolds::Scores,
            Some(kernel @ (AttentionKernel::Sage | AttentionKernel::Sparge)) => {
                AttentionHolds::Packed { chooses: kernel == AttentionKernel::Sparge }
            }
            _ => AttentionHolds::Rows,
        };
        let pass = transformer.activation_bytes(pass_shape(self.model, config, rank), number_bytes(config), holds);
        Some(self.inputs_bytes(config, gpu) + pass)
    }

    fn bytes_between_groups(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> i64 {
        let transformer = Transformer::of(config, &self.model.transformer);
        self.inputs_bytes(config, gpu) + transformer.bytes_throughout(pass_shape(self.model, config, rank), number_bytes(config))
    }

    fn kept_between_passes(&self, config: &Config, rank: usize) -> Option<CacheSize> {
        kept_between_steps(config, self.model, rank)
    }

    fn work(&self, config: &Config, name: GroupName, rank: usize) -> GroupWork {
        Transformer::group_work(&self.model.transformer, name, pass_shape(self.model, config, rank), config.head_chunk.map(i64::from))
    }

    fn sent_bytes(&self, config: &Config, rank: usize) -> i64 {
        let of_sequence =
            Transformer::of(config, &self.model.transformer).sent_bytes(pass_shape(self.model, config, rank), number_bytes(config));
        // The prediction, in fp32, to those that make the other one.
        let prediction = config.latent_shape(self.model).iter().product::<i64>() * FP32;
        of_sequence + (i64::from(config.split().cfg_size) - 1) * prediction
    }

    fn seed_number(&self) -> i64 {
        self.seed_number
    }
}

/// Whether block `block` of so many stays on the GPU: as many do as the configuration says, spread evenly, so that while one of them computes another's copy is
/// under way. Of `auto` that is not settled, none.
fn is_resident_block(config: &Config, block: u32, blocks: u32) -> bool {
    let count = u64::from(config.resident_blocks.and_then(ResidentBlocks::count).unwrap_or(0));
    let (block, blocks) = (u64::from(block), u64::from(blocks));
    (block + 1) * count / blocks > block * count / blocks
}
