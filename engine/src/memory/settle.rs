//! What a configuration leaves to the machine: whose kernels compute, how many blocks are resident, when weights are loaded, and whether streamed ones wait in
//! memory. What is given is not changed.

use engine_protocol::{
    Config, Device, DiskRate, Fused, GpuProfile, LoadWeights, Moves, PARTS_OF_A_BLOCK, PlanReport, PlannedStage, ResidentBlocks, Stage,
    StreamFrom, WeightDtype, has_fused,
};

use super::hiding::stalled_fraction;
use super::host_prediction::predict_host;
use super::plan::Plan;
use super::prediction::predict;
use crate::components::Component;
use crate::weights::Precision;

/// What a machine has: room, and rates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room<'a> {
    /// Bytes that the process may hold on the GPU, everything counted; empty where nothing limits it.
    pub gpu_bytes: Option<u64>,
    /// Bytes of the host's memory that the process may take, everything counted; empty where nothing limits it.
    pub host_bytes: Option<u64>,
    /// The GPU's rates; empty where they are not known.
    pub gpu: Option<&'a GpuProfile>,
    /// What the disk gives that streamed weights are read from; empty where that is not known.
    pub disk: Option<DiskRate>,
}

impl Room<'_> {
    /// What the disk gives, assumed where it is not known.
    pub fn disk(&self) -> DiskRate {
        self.disk.unwrap_or(DiskRate::ASSUMED)
    }

    /// What the process holds on the GPU beside tensors, in a case of that plan.
    pub fn process_bytes(&self, report: &PlanReport) -> u64 {
        /// Of a GPU that nobody described: more than was seen on any.
        const UNKNOWN: u64 = 1 << 30;
        self.gpu.map_or(UNKNOWN, |gpu| gpu.process_bytes(report.process_use()))
    }

    /// What is left of the GPU for the caching allocator in a case of that plan.
    pub fn reservable_bytes(&self, report: &PlanReport) -> Option<u64> {
        Some(self.gpu_bytes?.saturating_sub(self.process_bytes(report)))
    }

    /// Whether what the allocator may come to reserve fits. None where that is not known.
    fn has_room_for(&self, report: &PlanReport) -> Option<bool> {
        let reserved = reserved_bytes(report)?;
        Some(self.reservable_bytes(report).is_none_or(|room| reserved <= room))
    }
}

/// `config` with each `auto` in it replaced.
pub fn settle(config: &Config, components: &[Box<dyn Component + '_>], room: Room<'_>) -> Config {
    let mut settled = config.clone();
    if config.fused == Fused::Auto {
        settled.fused = has_fused(room.gpu).into();
    }
    // Before what is resident: it says where streamed weights come from, and so how fast, and what else is on the GPU.
    if config.load_weights == LoadWeights::Auto {
        settled.load_weights = load_weights(&settled, components, room.host_bytes);
    }
    let streamed = components.iter().find(|component| component.moves() == Moves::EachPass);
    if let (Some(ResidentBlocks::Auto), Some(streamed)) = (config.resident_blocks, streamed) {
        settled = ByRoom { components, streamed: streamed.as_ref(), room }.with_resident_blocks(&settled);
    }
    // After that: what is resident does not wait on the host.
    if config.stream_from == Some(StreamFrom::Auto) {
        settled.stream_from = Some(stream_from(&settled, components, room.host_bytes));
    }
    settled
}

/// Arithmetic may stand still for this fraction of a pass and copies still count as hidden.
const UNNOTICED: f64 = 0.005;
/// So many parts of blocks more may be on their way: two blocks.
const MORE_PREFETCHED: u32 = 2 * PARTS_OF_A_BLOCK as u32;

/// Decides how many blocks are resident.
struct ByRoom<'a> {
    components: &'a [Box<dyn Component + 'a>],
    /// The (first) one that is streamed in each pass.
    streamed: &'a dyn Component,
    room: Room<'a>,
}

impl ByRoom<'_> {
    /// As few blocks as let the copies of the others hide behind arithmetic: more would take memory and save no time. A part of a block more on its way may do
    /// what many resident blocks would, so that is tried too, and what takes least memory is taken. Where copies cannot hide, what comes nearest to it. Where
    /// rates are not known, as many blocks as there is room for.
    fn with_resident_blocks(&self, config: &Config) -> Config {
        let Some(gpu) = self.room.gpu else { return self.with_most_resident(config) };
        // Of each number of parts on their way: how long arithmetic stands still beyond what nobody notices, and how much is held.
        let nearest = |more: u32| {
            let config = Config { prefetch_blocks: config.prefetch_blocks.map(|parts| parts + more), ..config.clone() };
            let largest = self.with_most_resident(&config);
            let count = largest.resident_blocks.and_then(ResidentBlocks::count).unwrap_or(0);
            let all = (0..count).map(|count| with_resident(&config, count)).chain([largest]);
            let stalls = |config: Config| {
                let plan = Plan::new(&self.with_source(&config), self.components);
                ((stalled_fraction(&config, self.streamed, &plan, gpu, self.room.disk()) - UNNOTICED).max(0.0), config)
            };
            let found = first_of_least(all.map(stalls))?;
            let report = predict(&found.1, self.components, self.room.gpu);
            (more == 0 || self.room.has_room_for(&report)?).then_some((found, reserved_bytes(&report)?))
        };
        let hides_by_itself =
            |found: &((f64, Config), u64)| found.0.0 <= 0.0 && found.0.1.resident_blocks == Some(ResidentBlocks::Count(0));
        let least = nearest(0);
        let nearest = match least {
            // Nothing takes less memory and less time.
            Some(least) if hides_by_itself(&least) => Some(least),
            least => least
                .into_iter()
                .chain((1..=MORE_PREFETCHED).filter_map(nearest))
                .min_by(|((a, _), x), ((b, _), y)| a.total_cmp(b).then(x.cmp(y))),
        };
        nearest.map_or_else(|| self.with_most_resident(config), |((_, config), _)| config)
    }

    /// With what `stream_from=auto` will come to: how many blocks are resident is part of that.
    fn with_source(&self, config: &Config) -> Config {
        match config.stream_from {
            Some(StreamFrom::Auto) => {
                Config { stream_from: Some(stream_from(config, self.components, self.room.host_bytes)), ..config.clone() }
            }
            _ => config.clone(),
        }
    }

    /// As many blocks as leave every stage its predicted peak, and what the allocator will reserve beyond it. None where not even those few fit: what runs
    /// out then says so.
    fn with_most_resident(&self, config: &Config) -> Config {
        let numbers = self.streamed.groups().iter().filter_map(|group| group.name.number);
        let all = numbers.max().map_or(0, |last| last + 1);
        if self.room.gpu_bytes.is_none() {
            return with_resident(config, all);
        }
        let fits = |count: u32| {
            let config = with_resident(config, count);
            self.room.has_room_for(&predict(&config, self.components, self.room.gpu)) == Some(true)
        };
        // All of them need no staging buffers. Of fewer, each takes more than the one before.
        if fits(all) {
            return with_resident(config, all);
        }
        let (mut fewest, mut most) = (0, all);
        while most - fewest > 1 {
            let middle = fewest + (most - fewest) / 2;
            if fits(middle) { fewest = middle } else { most = middle }
        }
        with_resident(config, fewest)
    }
}

/// The first of those with the least figure; nothing is below none.
fn first_of_least(all: impl Iterator<Item = (f64, Config)>) -> Option<(f64, Config)> {
    let mut least: Option<(f64, Config)> = None;
    for next in all {
        if least.as_ref().is_none_or(|(best, _)| next.0 < *best) {
            least = Some(next);
        }
        if least.as_ref().is_some_and(|(best, _)| *best <= 0.0) {
            break;
        }
    }
    least
}

fn with_resident(config: &Config, count: u32) -> Config {
    Config { resident_blocks: Some(ResidentBlocks::Count(count)), ..config.clone() }
}

/// What the allocator may come to reserve at the largest of the stages' peaks; empty where one is not known.
fn reserved_bytes(report: &PlanReport) -> Option<u64> {
    /// For what segments are rounded to, and predictions that are off by some tensors of one row.
    const BESIDE: u64 = 64 << 20;
    let of_stage = |stage: &PlannedStage| {
        let peak = stage.peak_allocated_bytes()?;
        let passing = peak - stage.resident_bytes;
        // What comes and goes leaves gaps: few in denoise, where slices are of equal size, more where sequences go whole, and in a decoder with its many sizes.
        let is_sliced = stage.stage != Stage::Decode && report.config.sequence_chunk.is_some();
        let gaps = if is_sliced { passing / 16 } else { passing / 4 };
        Some(peak + gaps + BESIDE)
    };
    report.stages.iter().map(of_stage).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// At the start, unless the host has too little memory for all of them at once, from wherever they are streamed.
fn load_weights(config: &Config, components: &[Box<dyn Component + '_>], room: Option<u64>) -> LoadWeights {
    let from_memory = match config.stream_from {
        Some(StreamFrom::Auto) => Config { stream_from: Some(StreamFrom::Memory), ..config.clone() },
        _ => config.clone(),
    };
    if fits_host(&from_memory, components, room) { LoadWeights::AtStart } else { LoadWeights::AsUsed }
}

/// Whether the host has room for what all stages are predicted to hold of its memory.
fn fits_host(config: &Config, components: &[Box<dyn Component + '_>], room: Option<u64>) -> bool {
    let Some(room) = room else { return true };
    let planned = predict_host(Stage::Encode, config, components, Device::Cuda);
    planned.into_iter().all(|planned| planned.memory.peak_bytes <= Some(room))
}

/// From memory, unless the host has too little of it.
fn stream_from(config: &Config, components: &[Box<dyn Component + '_>], room: Option<u64>) -> StreamFrom {
    // Files do not hold weights that are packed here.
    if config.weight_dtype != WeightDtype::AsStored && !are_packed(components) {
        return StreamFrom::Memory;
    }
    let from_memory = Config { stream_from: Some(StreamFrom::Memory), ..config.clone() };
    if fits_host(&from_memory, components, room) { StreamFrom::Memory } else { StreamFrom::File }
}

/// Whether these are of a file that has a transformer's weights packed.
fn are_packed(components: &[Box<dyn Component + '_>]) -> bool {
    let mut params = components.iter().flat_map(|component| component.groups()).flat_map(|group| &group.params);
    params.any(|param| matches!(param.precision, Precision::Compressible(Some(_))))
}
