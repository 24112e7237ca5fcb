//! The placement plan: from a configuration to where each group of weights lives.

use std::iter::repeat_n;

use engine_protocol::{Config, GIB, ModelSpec, OffloadTextEncoder, ResidentBlocks, StreamFrom};

use super::residency::Stored;
use crate::text_encoder::TextEncoder;
use crate::transformer::Transformer;
use crate::vae;
use crate::weights::{Group, WeightTypes};

/// Where a group of weights lives, and whether it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the device that computes.
    Resident,
    /// On the host, where its stage computes too.
    Host,
    /// Elsewhere, copied to the device each time that it is used.
    Streamed {
        /// Groups that are on their way while one computes.
        prefetch: u32,
        /// Where it waits.
        waits: Waits,
    },
}

/// Where a streamed group waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// In page-locked memory, from which copies overlap with arithmetic.
    Pinned,
    /// In ordinary memory.
    Pageable,
    /// In its file, from which it is read each time into a buffer on the host.
    InFile {
        /// Whether that buffer is page-locked.
        pinned_buffer: bool,
    },
}

/// Where all groups of a model live, each list in execution order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The text encoder's groups.
    pub text_encoder: Vec<Place>,
    /// The groups of each transformer.
    pub transformers: Vec<Vec<Place>>,
    /// The VAE's groups.
    pub vae: Vec<Place>,
}

impl Plan {
    /// The plan that `config` means for `model`.
    pub fn new(config: &Config, model: &ModelSpec) -> Self {
        // What is used once, for a moment, is neither copied ahead nor worth the time that locking its pages takes.
        let streamed_once = Place::Streamed { prefetch: 0, waits: Waits::Pageable };
        let (table, layers) = match config.offload_text_encoder {
            OffloadTextEncoder::Off => (Place::Resident, Place::Resident),
            OffloadTextEncoder::Cpu => (Place::Host, Place::Host),
            // Of the table a few rows are read, so it is read where it is.
            OffloadTextEncoder::Stream => (Place::Host, streamed_once),
        };
        let layer_groups = TextEncoder::groups(&model.text_encoder).len() - 1;
        let vae = if config.offload_vae { streamed_once } else { Place::Resident };
        Self {
            text_encoder: [table].into_iter().chain(repeat_n(layers, layer_groups)).collect(),
            transformers: transformers(config, model),
            vae: vec![vae; vae::groups(&model.vae).len()],
        }
    }
}

/// The places of each transformer's groups.
fn transformers(config: &Config, model: &ModelSpec) -> Vec<Vec<Place>> {
    let count = if model.pool.is_some() { 2 } else { 1 };
    let groups = Transformer::groups(&model.transformer);
    if !config.offload_dit {
        return vec![vec![Place::Resident; groups.len()]; count];
    }
    let resident = resident_blocks(config, model.transformer.num_layers as usize);
    let is_resident = |index: usize| {
        let after = index.checked_sub(Transformer::GROUPS_BEFORE);
        // What stands at the two ends of a pass waits in between, while a block's own buffers are needed.
        after.is_some_and(|after| resident.get(after / Transformer::GROUPS_A_BLOCK).copied().unwrap_or(false))
    };
    let mut waiting = Waiting::new(config);
    let mut place = |index: usize, group: &Group| match is_resident(index) {
        true => Place::Resident,
        false => Place::Streamed { prefetch: config.prefetch_blocks.unwrap_or(0), waits: waiting.next(group) },
    };
    (0..count).map(|_| groups.iter().enumerate().map(|(index, group)| place(index, group)).collect()).collect()
}

/// Which blocks stay on the GPU: as many as the configuration says, spread evenly, so that while one of them computes another's copy is under way. Of
/// `auto` that is not settled, none.
fn resident_blocks(config: &Config, blocks: usize) -> Vec<bool> {
    let count = config.resident_blocks.and_then(ResidentBlocks::count).unwrap_or(0) as usize;
    (0..blocks).map(|index| (index + 1) * count / blocks > index * count / blocks).collect()
}

/// Gives streamed groups their places to wait, page-locked up to the configuration's limit.
struct Waiting {
    types: WeightTypes,
    in_file: bool,
    /// What may still be page-locked.
    pinned_bytes: i64,
}

impl Waiting {
    fn new(config: &Config) -> Self {
        let limit = config.max_pinned_gib.map_or(i64::MAX, |gib| (gib * GIB as f64) as i64);
        Self {
            types: WeightTypes::of(config),
            in_file: config.stream_from == Some(StreamFrom::File),
            pinned_bytes: if config.pinned_memory.unwrap_or(true) { limit } else { 0 },
        }
    }

    fn next(&mut self, group: &Group) -> Waits {
        if self.in_file {
            return Waits::InFile { pinned_buffer: self.pinned_bytes > 0 };
        }
        let left = self.pinned_bytes - Stored::new(group, self.types).layout.bytes;
        if left < 0 {
            // In execution order up to the limit: what comes after it is no smaller.
            self.pinned_bytes = 0;
            return Waits::Pageable;
        }
        self.pinned_bytes = left;
        Waits::Pinned
    }
}

/// How many staging buffers streamed groups of these bytes take turns in, and the bytes of each: one buffer for the group that computes, others for
/// those that are on their way. There is at least one group.
pub(super) fn staging_buffers(prefetch: usize, groups: &[i64]) -> (usize, i64) {
    (prefetch.min(groups.len() - 1) + 1, groups.iter().copied().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_protocol::{Settings, parse_setting};

    fn plan(settings: &[&str]) -> Plan {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        let model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let settings = settings.iter().map(|text| parse_setting(text).unwrap());
        Plan::new(&Config::resolve(&Settings::from_pairs(settings).unwrap(), &model).unwrap(), &model)
    }

    #[test]
    fn resident_blocks_are_spread_evenly() {
        let plan = plan(&["offload_dit=true", "resident_blocks=2"]);
        let blocks = plan.transformers[0][Transformer::GROUPS_BEFORE..].chunks_exact(Transformer::GROUPS_A_BLOCK);
        let resident: Vec<bool> = blocks.map(|block| block.iter().all(|&place| place == Place::Resident)).collect();
        assert_eq!(resident, [false, true, false, true]);
    }

    #[test]
    fn no_more_is_page_locked_than_may_be() {
        let pinned = |settings: &[&str]| {
            let plan = plan(&[settings, &["offload_dit=true"]].concat());
            plan.transformers[0].iter().filter(|&&place| place == Place::Streamed { prefetch: 1, waits: Waits::Pinned }).count()
        };
        let all = pinned(&[]);
        assert_eq!(all, 4 * Transformer::GROUPS_A_BLOCK + Transformer::GROUPS_BEFORE + 1);
        // Some tens of KiB.
        let some = pinned(&["max_pinned_gib=0.00005"]);
        assert!(0 < some && some < all, "{some} of {all}");
        assert_eq!([pinned(&["max_pinned_gib=0"]), pinned(&["pinned_memory=false"]), pinned(&["stream_from=file"])], [0, 0, 0]);
    }
}
