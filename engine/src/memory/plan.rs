//! The placement plan: from a configuration to where each group of weights lives.

use std::iter::repeat_n;

use engine_protocol::{Config, ModelSpec, OffloadTextEncoder};

use crate::transformer::Transformer;

/// Where a group of weights lives, and whether it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the device that computes.
    Resident,
    /// On the host, where its stage computes too.
    Host,
    /// On the host, copied to the device each time that it is used.
    Streamed {
        /// Groups that are on their way while one computes.
        prefetch: u32,
        /// Whether it waits in page-locked memory.
        pinned: bool,
    },
}

/// Where all groups of a model live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The text encoder's table of embeddings.
    pub embedding_table: Place,
    /// The text encoder's layers, and its last norm.
    pub text_encoder_layers: Place,
    /// The transformer's groups before and after its blocks.
    pub transformer_ends: Place,
    /// Each transformer block.
    pub blocks: Vec<Place>,
    /// The VAE.
    pub vae: Place,
}

impl Plan {
    /// The plan that `config` means for `model`.
    pub fn new(config: &Config, model: &ModelSpec) -> Self {
        let pinned = config.pinned_memory.unwrap_or(true);
        let streamed = Place::Streamed { prefetch: config.prefetch_blocks.unwrap_or(0), pinned };
        let resident = if config.offload_dit { config.resident_blocks.unwrap_or(0) as usize } else { usize::MAX };
        let block = |index: usize| if index < resident { Place::Resident } else { streamed };
        // What is used once, for a moment, is neither copied ahead nor worth the time that locking its pages takes.
        let streamed_once = Place::Streamed { prefetch: 0, pinned: false };
        let (embedding_table, text_encoder_layers) = match config.offload_text_encoder {
            OffloadTextEncoder::Off => (Place::Resident, Place::Resident),
            OffloadTextEncoder::Cpu => (Place::Host, Place::Host),
            // Of the table a few rows are read, so it is read where it is.
            OffloadTextEncoder::Stream => (Place::Host, streamed_once),
        };
        Self {
            embedding_table,
            text_encoder_layers,
            // They compute at the two ends of a pass and wait in between, while a block's own buffers are needed.
            transformer_ends: if config.offload_dit { streamed } else { Place::Resident },
            blocks: (0..model.transformer.num_layers as usize).map(block).collect(),
            vae: if config.offload_vae { streamed_once } else { Place::Resident },
        }
    }

    /// The place of each of the text encoder's `groups` groups, in execution order.
    pub fn text_encoder(&self, groups: usize) -> Vec<Place> {
        let layers = repeat_n(self.text_encoder_layers, groups - 1);
        [self.embedding_table].into_iter().chain(layers).collect()
    }

    /// The place of each of the transformer's groups, in execution order.
    pub fn transformer(&self) -> Vec<Place> {
        let before = repeat_n(self.transformer_ends, Transformer::GROUPS_BEFORE);
        let blocks = self.blocks.iter().flat_map(|&place| repeat_n(place, Transformer::GROUPS_A_BLOCK));
        before.chain(blocks).chain([self.transformer_ends]).collect()
    }
}

/// How many staging buffers streamed groups of these bytes take turns in, and the bytes of each: one buffer for the group that computes, others for
/// those that are on their way. There is at least one group.
pub(super) fn staging_buffers(prefetch: usize, groups: &[i64]) -> (usize, i64) {
    (prefetch.min(groups.len() - 1) + 1, groups.iter().copied().max().unwrap_or(0))
}
