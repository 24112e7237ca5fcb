//! What a configuration leaves to the machine: how many blocks are resident, and whether streamed weights wait in memory.

use engine_protocol::{
    Config, GpuProfile, ModelSpec, PARTS_OF_A_BLOCK, PlanReport, ResidentBlocks, Settled, Stage, StreamFrom, WeightDtype,
};

use super::hiding::stalled_share;
use super::prediction::predict;

/// What a machine has: room, and rates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room<'a> {
    /// Bytes that the caching allocator may reserve on the GPU; empty where nothing limits it.
    pub gpu_bytes: Option<u64>,
    /// Bytes of the host's memory that weights may take; empty where nothing limits them.
    pub host_bytes: Option<u64>,
    /// The GPU's rates; empty where they are not known.
    pub gpu: Option<&'a GpuProfile>,
}

/// `config` with each `auto` in it replaced, and what by.
pub fn settle(config: &Config, model: &ModelSpec, room: Room<'_>) -> (Config, Settled) {
    let (mut config, mut settled) = (config.clone(), Settled::default());
    if config.resident_blocks == Some(ResidentBlocks::Auto) {
        config = with_resident_blocks(&config, model, room);
        settled.resident_blocks = config.resident_blocks.and_then(ResidentBlocks::count);
        settled.prefetch_blocks = config.prefetch_blocks;
    }
    // After that: what is resident does not wait on the host.
    if config.stream_from == Some(StreamFrom::Auto) {
        let from = stream_from(&config, model, room.host_bytes);
        config.stream_from = Some(from);
        settled.stream_from = Some(from);
    }
    (config, settled)
}

/// Arithmetic may stand still for this share of a pass and copies still count as hidden.
const UNNOTICED: f64 = 0.005;
/// So many parts of blocks more may be on their way: two blocks.
const MORE_PREFETCHED: u32 = 2 * PARTS_OF_A_BLOCK as u32;

/// As few blocks as let the copies of the others hide behind arithmetic: more would take memory and save no time. A part of a block more on its way may do what
/// many resident blocks would, so that is tried too, and what takes least memory is taken. Where copies cannot hide, what comes nearest to it. Where rates are not
/// known, as many blocks as there is room for.
fn with_resident_blocks(config: &Config, model: &ModelSpec, room: Room<'_>) -> Config {
    let most = |config: &Config| with_resident(config, most_resident_blocks(config, model, room.gpu_bytes));
    let Some(gpu) = room.gpu else { return most(config) };
    // Of each number of parts on their way: how long arithmetic stands still beyond what nobody notices, and how much is held.
    let nearest = |more: u32| {
        let config = Config { prefetch_blocks: config.prefetch_blocks.map(|parts| parts + more), ..config.clone() };
        let largest = most(&config);
        let count = largest.resident_blocks.and_then(ResidentBlocks::count).unwrap_or(0);
        let all = (0..count).map(|count| with_resident(&config, count)).chain([largest]);
        let stalls = |config: Config| ((stalled_share(&config, model, gpu) - UNNOTICED).max(0.0), config);
        let found = all.map(stalls).reduce(|best, next| if next.0 < best.0 { next } else { best })?;
        let bytes = reserved_bytes(&predict(model, &found.1))?;
        (more == 0 || room.gpu_bytes.is_none_or(|room| bytes <= room)).then_some((found, bytes))
    };
    let nearest = (0..=MORE_PREFETCHED).filter_map(nearest).min_by(|((a, _), x), ((b, _), y)| a.total_cmp(b).then(x.cmp(y)));
    nearest.map_or_else(|| most(config), |((_, config), _)| config)
}

fn with_resident(config: &Config, count: u32) -> Config {
    Config { resident_blocks: Some(ResidentBlocks::Count(count)), ..config.clone() }
}

/// As many blocks as leave every stage its predicted peak, and what the allocator will reserve beyond it. None where not even those few fit: what runs out
/// then says so.
fn most_resident_blocks(config: &Config, model: &ModelSpec, room: Option<u64>) -> u32 {
    let all = model.transformer.num_layers as u32;
    let Some(room) = room else { return all };
    let fits = |count: u32| reserved_bytes(&predict(model, &with_resident(config, count))).is_some_and(|bytes| bytes <= room);
    (1..=all).rev().find(|&count| fits(count)).unwrap_or(0)
}

/// What the allocator may come to reserve at the largest of the stages' peaks; empty where one is not known.
fn reserved_bytes(report: &PlanReport) -> Option<u64> {
    /// For what segments are rounded to, and predictions that are off by some tensors of one row.
    const BESIDE: u64 = 64 << 20;
    let of_stage = |stage: &engine_protocol::PlannedStage| {
        let peak = stage.peak_allocated_bytes()?;
        let passing = peak - stage.resident_bytes;
        // What comes and goes leaves gaps: few in denoise, where slices are of equal size, more in a decoder with its many.
        let gaps = if stage.stage == Stage::Decode { passing / 4 } else { passing / 16 };
        Some(peak + gaps + BESIDE)
    };
    report.stages.iter().map(of_stage).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// From memory, unless the host has too little of it.
fn stream_from(config: &Config, model: &ModelSpec, room: Option<u64>) -> StreamFrom {
    // Files do not hold weights in our 8 bits.
    if config.weight_dtype != WeightDtype::AsStored {
        return StreamFrom::Memory;
    }
    let report = predict(model, &Config { stream_from: Some(StreamFrom::Memory), ..config.clone() });
    if room.is_some_and(|room| report.host_bytes() > room) { StreamFrom::File } else { StreamFrom::Memory }
}
