//! What a plan comes to in bytes, before anything is allocated: exact for weights and staging buffers, estimated from shapes for activations. It walks over
//! components, and knows none of them.

use engine_protocol::{
    BufferUse, Config, GpuProfile, Home, LoadWeights, Moves, PlanReport, PlannedBuffers, PlannedGroups, PlannedStage, Stage,
};

use super::pinned_ring::RING_BYTES;
use super::plan::{Place, Plan, Waits, staging_buffers};
use super::shards::part_bytes;
use crate::components::{Component, Wanted};
use crate::cuda::allocator::block_bytes;
use crate::flexcache::CacheSize;
use crate::weights::{Group, GroupName, WaitingGroup, WeightTypes, packing};

/// What will live where under `config` on `gpu`, or on a recent one where it is not known, and the predicted peak of each stage.
///
/// Counted is what libtorch's caching allocator calls allocated; what it reserves beyond that and the context are not.
pub fn predict(config: &Config, components: &[Box<dyn Component + '_>], gpu: Option<&GpuProfile>) -> PlanReport {
    predict_from(Stage::Encode, 0, config, components, gpu)
}

/// As [`predict`], for a pipeline that is loaded for the stages from `first` on, by that one of the ranks.
pub fn predict_from(
    first: Stage,
    rank: usize,
    config: &Config,
    components: &[Box<dyn Component + '_>],
    gpu: Option<&GpuProfile>,
) -> PlanReport {
    let plan = Plan::new(config, components);
    let loaded = loaded(first, rank, config, components);
    let placed: Vec<_> =
        loaded.map(|component| PlacedComponent::new(component.as_ref(), plan.of(component.as_ref()), config, rank)).collect();
    let of_stage = |stage| placed.iter().filter(move |placed| placed.component.stage() == stage).map(PlacedComponent::resident_bytes);
    let stages = stages(rank, config, components).map(|stage| PlannedStage {
        stage,
        resident_bytes: match config.load_weights {
            LoadWeights::Auto | LoadWeights::AtStart => placed.iter().map(PlacedComponent::resident_bytes).sum(),
            // Of a pool's transformers one after the other.
            LoadWeights::AsUsed => of_stage(stage).max().unwrap_or(0),
        },
        // Transformers of a pool come one after the other, each with buffers of its own.
        staging_bytes: if stage == Stage::Load && config.load_weights != LoadWeights::AsUsed {
            loading_bytes(&placed)
        } else {
            placed.iter().filter(|placed| placed.component.stage() == stage).map(PlacedComponent::buffer_bytes).max().unwrap_or(0)
        },
        activation_bytes: activation_bytes(stage, rank, config, components, gpu).map(|bytes| bytes as u64),
    });
    PlanReport {
        config: config.clone(),
        groups: placed.iter().flat_map(PlacedComponent::rows).collect(),
        buffers: placed.iter().flat_map(PlacedComponent::buffers).collect(),
        stages: stages.collect(),
        host: Vec::new(),
        vae_positions: components.iter().find_map(|component| component.decoded_positions(config)),
        process_bytes: None,
        ranks: None,
    }
}

/// Bytes beside all that stays on the device, while components are loaded one after the other.
fn loading_bytes(placed: &[PlacedComponent<'_>]) -> u64 {
    let later = |place: usize| placed[place + 1..].iter().map(PlacedComponent::resident_bytes).sum::<u64>();
    (0..placed.len()).map(|place| placed[place].sharding_bytes().saturating_sub(later(place))).max().unwrap_or(0)
}

/// The components that a rank loads for the stages from `first` on.
pub(super) fn loaded<'a, 'b>(
    first: Stage,
    rank: usize,
    config: &'a Config,
    components: &'a [Box<dyn Component + 'b>],
) -> impl Iterator<Item = &'a Box<dyn Component + 'b>> {
    components.iter().filter(move |component| component.stage() >= first && component.is_used(config) && component.is_of_rank(config, rank))
}

/// The stages of a run on a rank, in order. What one encodes for all the others wait for; who does not decode is done before.
pub(super) fn stages(rank: usize, config: &Config, components: &[Box<dyn Component + '_>]) -> impl Iterator<Item = Stage> {
    let is_one = move |stage: &Stage| {
        let mut of_stage = components.iter().filter(|component| component.stage() == *stage && component.is_used(config));
        *stage == Stage::Load || of_stage.any(|component| *stage < Stage::Denoise || component.is_of_rank(config, rank))
    };
    Stage::ALL.into_iter().filter(is_one)
}

/// The most that a component of `stage` holds on a rank beside weights and buffers; empty where one has no estimate.
fn activation_bytes(
    stage: Stage,
    rank: usize,
    config: &Config,
    components: &[Box<dyn Component + '_>],
    gpu: Option<&GpuProfile>,
) -> Option<i64> {
    let mut components = components.iter().filter(|component| component.stage() == stage);
    components.try_fold(0, |most, component| {
        let unpacking = component.bytes_between_groups(config, gpu, rank) + unpacking_bytes(component.as_ref(), config, false);
        let unpacking = if component.is_of_rank(config, rank) { unpacking } else { 0 };
        Some(component.activation_bytes(config, gpu, rank)?.max(unpacking).max(most))
    })
}

/// Bytes that are there in passing while a group of `component` is unpacked, beside the room for it: of the groups that compute on the host, or of all others.
pub(super) fn unpacking_bytes(component: &dyn Component, config: &Config, on_host: bool) -> i64 {
    let are_there = component.groups().iter().filter(|group| (component.wanted(config, group.name) == Wanted::OnHost) == on_host);
    are_there.map(|group| packing::unpacking_bytes(group, WeightTypes::of(config))).max().unwrap_or(0)
}

/// Bytes that are there for weights of `component` in passing: on the device that computes, and of the ring of the host by way of which they come to a GPU, which is
/// page-locked where it may be.
pub(super) fn bytes_in_passing(component: &dyn Component, places: &[Place], config: &Config, rank: usize) -> (u64, Option<i64>) {
    let placed = PlacedComponent::new(component, places, config, rank);
    (placed.buffer_bytes(), placed.passing_bytes())
}

/// A component whose groups, in execution order, each have a place.
struct PlacedComponent<'a> {
    component: &'a dyn Component,
    groups: Vec<PlacedGroup>,
    kept: Option<CacheSize>,
}

#[derive(Clone, Copy)]
struct PlacedGroup {
    name: GroupName,
    bytes: i64,
    /// In the type of arithmetic, where it waits in another.
    unpacked_bytes: i64,
    place: Place,
}

impl<'a> PlacedComponent<'a> {
    fn new(component: &'a dyn Component, places: &[Place], config: &Config, rank: usize) -> Self {
        let types = WeightTypes::of(config);
        let placed = |(group, &place): (&Group, &Place)| {
            let waiting = WaitingGroup::new(group, types);
            PlacedGroup { name: group.name, bytes: waiting.layout.bytes, unpacked_bytes: waiting.unpacked_bytes(), place }
        };
        Self {
            component,
            groups: component.groups().iter().zip(places).map(placed).collect(),
            kept: component.kept_between_passes(config, rank),
        }
    }

    /// Its resident groups, which are one allocation.
    fn resident_bytes(&self) -> u64 {
        let bytes: i64 = self.groups.iter().map(PlacedGroup::resident_bytes).sum();
        if bytes == 0 { 0 } else { block_bytes(bytes) }
    }

    /// Bytes on the device in which a group is whole while its part is taken from it.
    fn sharding_bytes(&self) -> u64 {
        let is_sharded = |group: &&PlacedGroup| matches!(group.place, Place::Streamed { waits: Waits::OnRanks { .. }, .. });
        self.groups.iter().filter(is_sharded).map(|group| block_bytes(group.bytes)).max().unwrap_or(0)
    }

    /// What is there in passing for its groups: staging buffers, room to unpack one, and what they pass through on the host; and what is kept between passes.
    fn buffers(&self) -> impl Iterator<Item = PlannedBuffers> {
        self.staging().into_iter().chain(self.room_to_unpack()).chain(self.cache()).chain(self.passing())
    }

    fn cache(&self) -> Option<PlannedBuffers> {
        let CacheSize { tensors, bytes, on_host } = self.kept?;
        let on_gpu = self.planned_buffers(BufferUse::Cache, tensors, bytes);
        Some(if on_host { PlannedBuffers { purpose: BufferUse::CacheOnHost, buffer_bytes: bytes as u64, ..on_gpu } } else { on_gpu })
    }

    fn passing(&self) -> Option<PlannedBuffers> {
        let bytes = self.passing_bytes()?;
        Some(PlannedBuffers { buffer_bytes: bytes as u64, ..self.planned_buffers(BufferUse::Passing, 1, bytes) })
    }

    /// Bytes of the ring by way of which its groups come.
    fn passing_bytes(&self) -> Option<i64> {
        let by_ring = |group: &PlacedGroup| match group.place {
            Place::Streamed { waits: Waits::InFile { ring } | Waits::Pageable { ring }, .. } => ring.is_wanted(),
            _ => false,
        };
        self.groups.iter().any(by_ring).then_some(RING_BYTES)
    }

    fn room_to_unpack(&self) -> Option<PlannedBuffers> {
        let on_gpu = self.groups.iter().filter(|group| group.place != Place::Host);
        let largest = on_gpu.map(|group| group.unpacked_bytes).max().filter(|&bytes| bytes > 0)?;
        Some(self.planned_buffers(BufferUse::Unpacking, 1, largest))
    }

    fn planned_buffers(&self, purpose: BufferUse, count: u64, bytes: i64) -> PlannedBuffers {
        PlannedBuffers {
            component: self.component.name().into(),
            stage: self.component.stage(),
            purpose,
            count,
            buffer_bytes: block_bytes(bytes),
        }
    }

    fn staging(&self) -> Option<PlannedBuffers> {
        let (count, largest) = self.staging_buffers()?;
        Some(self.planned_buffers(BufferUse::Staging, count as u64, largest))
    }

    fn staging_buffers(&self) -> Option<(usize, i64)> {
        let streamed = self.groups.iter().filter_map(|group| match group.place {
            Place::Streamed { prefetch, .. } => Some((prefetch as usize, group.bytes)),
            Place::Resident | Place::Host => None,
        });
        let (prefetch, bytes): (Vec<usize>, Vec<i64>) = streamed.unzip();
        Some(staging_buffers(*prefetch.last()?, &bytes))
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffers().filter(|buffers| buffers.purpose.is_on_gpu()).map(|buffers| buffers.count * buffers.buffer_bytes).sum()
    }

    /// What its groups are parts of, neighbours that are alike in one row.
    fn rows(&self) -> Vec<PlannedGroups> {
        let whole = |parts: &[PlacedGroup]| PlacedGroup { bytes: parts.iter().map(|part| part.bytes).sum(), ..parts[0] };
        let wholes: Vec<PlacedGroup> = self.groups.chunk_by(PlacedGroup::is_of_the_same).map(whole).collect();
        let mut rows: Vec<Vec<PlacedGroup>> = Vec::new();
        for whole in wholes {
            let is_like = |row: &&mut Vec<PlacedGroup>| row[0].is_like(&whole);
            match rows.iter_mut().find(is_like) {
                Some(row) => row.push(whole),
                None => rows.push(vec![whole]),
            }
        }
        rows.iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, groups: &[PlacedGroup]) -> PlannedGroups {
        let moves = self.component.moves();
        let (home, moves) = match groups[0].place {
            Place::Resident => (Home::Gpu, Moves::Never),
            Place::Host => (Home::Cpu, Moves::Never),
            Place::Streamed { waits: Waits::Pinned { .. }, .. } => (Home::Pinned, moves),
            Place::Streamed { waits: Waits::Pageable { .. }, .. } => (Home::Pageable, moves),
            Place::Streamed { waits: Waits::InFile { .. }, .. } => (Home::File, moves),
            Place::Streamed { waits: Waits::OnRanks { .. }, .. } => (Home::Ranks, moves),
        };
        let (count, bytes) = (groups.len() as u64, groups.iter().map(|group| group.bytes as u64).sum());
        PlannedGroups { component: self.component.name().into(), name: name_of(groups), count, bytes, home, moves }
    }
}

impl PlacedGroup {
    /// Those that stay on the device.
    fn resident_bytes(&self) -> i64 {
        match self.place {
            Place::Resident => self.bytes,
            Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => part_bytes(self.bytes, ranks),
            Place::Host | Place::Streamed { .. } => 0,
        }
    }

    /// Whether it and `other` are parts of one thing in one place.
    fn is_of_the_same(&self, other: &Self) -> bool {
        (self.name.of, self.name.number, self.place) == (other.name.of, other.name.number, other.place)
    }

    /// Whether it may stand in one row with `other`: things of which there are many, alike in size and place.
    fn is_like(&self, other: &Self) -> bool {
        let are_many = self.name.of == other.name.of && self.name.number.is_some();
        are_many && (self.bytes, self.place) == (other.bytes, other.place)
    }
}

/// The name of a row: `blocks 0-39`, or where there are gaps `20 of blocks 0-38`.
fn name_of(groups: &[PlacedGroup]) -> String {
    let (first, last) = (groups[0].name, groups[groups.len() - 1].name);
    let of = first.of;
    match (first.number, last.number) {
        (Some(first), Some(last)) if first < last => {
            let gaps = if (last - first + 1) as usize == groups.len() { String::new() } else { format!("{} of ", groups.len()) };
            format!("{gaps}{of} {first}-{last}")
        }
        (Some(number), _) => format!("{of} {number}"),
        (None, _) => of.to_owned(),
    }
}
