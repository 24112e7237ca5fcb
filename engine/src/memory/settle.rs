//! What a configuration leaves to the machine: as many resident blocks as there is room for, and whether streamed weights wait in memory.

use engine_protocol::{Config, ModelSpec, PlanReport, ResidentBlocks, Settled, Stage, StreamFrom, WeightDtype};

use super::prediction::predict;

/// What there is room for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// Bytes that the caching allocator may reserve on the GPU; empty where nothing limits it.
    pub gpu_bytes: Option<u64>,
    /// Bytes of the host's memory that weights may take; empty where nothing limits them.
    pub host_bytes: Option<u64>,
}

/// `config` with each `auto` in it replaced, and what by.
pub fn settle(config: &Config, model: &ModelSpec, room: Room) -> (Config, Settled) {
    let (mut config, mut settled) = (config.clone(), Settled::default());
    if config.resident_blocks == Some(ResidentBlocks::Auto) {
        let count = most_resident_blocks(&config, model, room.gpu_bytes);
        config.resident_blocks = Some(ResidentBlocks::Count(count));
        settled.resident_blocks = Some(count);
    }
    // After that: what is resident does not wait on the host.
    if config.stream_from == Some(StreamFrom::Auto) {
        let from = stream_from(&config, model, room.host_bytes);
        config.stream_from = Some(from);
        settled.stream_from = Some(from);
    }
    (config, settled)
}

/// As many blocks as leave every stage its predicted peak, and what the allocator will reserve beyond it. None where not even those few fit: what runs out
/// then says so.
fn most_resident_blocks(config: &Config, model: &ModelSpec, room: Option<u64>) -> u32 {
    let all = model.transformer.num_layers as u32;
    let Some(room) = room else { return all };
    let fits = |count: u32| {
        let config = Config { resident_blocks: Some(ResidentBlocks::Count(count)), ..config.clone() };
        reserved_bytes(&predict(model, &config)).is_some_and(|bytes| bytes <= room)
    };
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
