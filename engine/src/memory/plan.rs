//! The placement plan: from a configuration to where each group of weights lives. It walks over components, and knows none of them; it moves nothing.

use std::collections::BTreeMap;

use engine_protocol::{Config, GIB, Moves, PinnedMemory, StreamFrom};

use super::pinned_ring::{PageLocking, RING_BYTES};
use crate::components::{Component, Wanted};
use crate::weights::{Group, WaitingGroup, WeightTypes};

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

impl Place {
    /// Whether a group there lies in the host's memory all the time.
    pub(super) fn takes_host_memory(self) -> bool {
        match self {
            Self::Host | Self::Streamed { waits: Waits::Pinned { .. } | Waits::Pageable { .. }, .. } => true,
            Self::Resident | Self::Streamed { waits: Waits::InFile { .. } | Waits::OnRanks { .. }, .. } => false,
        }
    }
}

/// Where a streamed group waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// In page-locked memory, from which copies overlap with arithmetic.
    Pinned {
        /// Where the machine does not lock its pages it waits in ordinary memory, unless it must not.
        required: bool,
    },
    /// In ordinary memory.
    Pageable {
        /// How the ring of buffers is page-locked by way of which it is copied; never, and there is no ring.
        ring: PageLocking,
    },
    /// In its file, from which it is read each time into a ring of buffers on the host.
    InFile {
        /// How those are page-locked.
        ring: PageLocking,
    },
    /// On the devices of so many ranks, a part on each.
    OnRanks {
        /// How many.
        ranks: u32,
    },
}

/// Where all groups of all components live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(BTreeMap<&'static str, Vec<Place>>);

impl Plan {
    /// The plan that `config` means for `components`, which are in the order of their stages.
    pub fn new(config: &Config, components: &[Box<dyn Component + '_>]) -> Self {
        let mut waiting = Waiting::new(config);
        let mut place = |component: &dyn Component, group: &Group| match component.wanted(config, group.name) {
            Wanted::OnDevice => Place::Resident,
            Wanted::OnHost => Place::Host,
            Wanted::Streamed if component.moves() == Moves::EachPass => {
                Place::Streamed { prefetch: config.prefetch_blocks.unwrap_or(0), waits: waiting.next(group) }
            }
            Wanted::OnRanks => {
                Place::Streamed { prefetch: config.prefetch_blocks.unwrap_or(0), waits: Waits::OnRanks { ranks: config.split().cp_size() } }
            }
            // What is used once, for a moment, is neither copied ahead nor worth the time that locking its pages takes.
            Wanted::Streamed => Place::Streamed { prefetch: 0, waits: waiting.once() },
        };
        let mut places = |component: &dyn Component| component.groups().iter().map(|group| place(component, group)).collect();
        Self(components.iter().map(|component| (component.key(), places(component.as_ref()))).collect())
    }

    /// The places of `component`'s groups, in execution order.
    ///
    /// # Panics
    /// When the plan was made without it.
    pub fn of(&self, component: &dyn Component) -> &[Place] {
        self.0.get(component.key()).unwrap_or_else(|| panic!("no plan was made for the {}", component.name()))
    }
}

/// Gives streamed groups their places to wait, page-locked up to the configuration's limit.
struct Waiting {
    types: WeightTypes,
    in_file: bool,
    /// How what is to be page-locked is.
    locking: PageLocking,
    /// How a ring is.
    ring: PageLocking,
    /// What else may still be.
    pinned_bytes: i64,
}

impl Waiting {
    fn new(config: &Config) -> Self {
        let allowed = config.max_pinned_gib.map_or(i64::MAX, |gib| (gib * GIB as f64) as i64);
        let limit = if config.pinned_memory != Some(PinnedMemory::Off) { allowed } else { 0 };
        // Text encoder, transformer and VAE may each come to have one.
        let rings = 3 * RING_BYTES;
        let has_room = limit >= rings;
        let locking = if config.pinned_memory == Some(PinnedMemory::Require) { PageLocking::Required } else { PageLocking::IfAllowed };
        Self {
            types: WeightTypes::of(config),
            in_file: config.stream_from == Some(StreamFrom::File),
            locking,
            ring: if has_room { locking } else { PageLocking::Never },
            pinned_bytes: if has_room && limit < i64::MAX { limit - rings } else { limit },
        }
    }

    /// Where what is used once waits.
    fn once(&self) -> Waits {
        if self.in_file { Waits::InFile { ring: self.ring } } else { self.pageable() }
    }

    fn pageable(&self) -> Waits {
        Waits::Pageable { ring: self.ring }
    }

    fn next(&mut self, group: &Group) -> Waits {
        if self.in_file {
            return Waits::InFile { ring: self.ring };
        }
        let left = self.pinned_bytes - WaitingGroup::new(group, self.types).layout.bytes;
        if left < 0 {
            // In execution order up to the limit: what comes after it is no smaller.
            self.pinned_bytes = 0;
            return self.pageable();
        }
        self.pinned_bytes = left;
        Waits::Pinned { required: self.locking == PageLocking::Required }
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
    use crate::components;
    use crate::transformer::{BLOCKS, Transformer};
    use engine_protocol::{ModelSpec, Settings, parse_setting};

    fn model() -> ModelSpec {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The places of the transformer's groups.
    fn places(settings: &[&str]) -> Vec<Place> {
        let model = model();
        let settings = settings.iter().map(|text| parse_setting(text).unwrap());
        let config = Config::resolve(&Settings::from_pairs(settings).unwrap(), &model).unwrap();
        let components = components::of(&model);
        let transformer = components.iter().find(|component| component.key() == components::TRANSFORMER).unwrap();
        Plan::new(&config, &components).of(transformer.as_ref()).to_vec()
    }

    #[test]
    fn resident_blocks_are_spread_evenly() {
        let model = model();
        let groups = Transformer::groups(&model.transformer);
        let places = places(&["offload_dit=true", "resident_blocks=2"]);
        let named: Vec<_> = groups.iter().map(|group| group.name).zip(places).collect();
        let is_resident = |block: u32| {
            let mut parts = named.iter().filter(|(name, _)| (name.of, name.number) == (BLOCKS, Some(block)));
            parts.all(|&(_, place)| place == Place::Resident)
        };
        let resident: Vec<bool> = (0..model.transformer.num_layers as u32).map(is_resident).collect();
        assert_eq!(resident, [false, true, false, true]);
        assert!(named.iter().all(|&(name, place)| name.of == BLOCKS || place != Place::Resident), "the two ends wait");
    }

    #[test]
    fn no_more_is_page_locked_than_may_be() {
        let pinned = |settings: &[&str]| {
            let places = places(&[settings, &["offload_dit=true"]].concat());
            places.iter().filter(|&&place| place == Place::Streamed { prefetch: 1, waits: Waits::Pinned { required: false } }).count()
        };
        let all = pinned(&[]);
        assert_eq!(all, Transformer::groups(&model().transformer).len());
        // Some tens of KiB.
        let some = pinned(&["max_pinned_gib=0.00005"]);
        assert!(0 < some && some < all, "{some} of {all}");
        assert_eq!([pinned(&["max_pinned_gib=0"]), pinned(&["pinned_memory=false"]), pinned(&["stream_from=file"])], [0, 0, 0]);
    }
}
