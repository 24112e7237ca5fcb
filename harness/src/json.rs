//! What commands print for programs (`--json`): how a case runs has the same fields everywhere, and each command's answer is a type, of which `lowmem schema` is made.
//!
//! Sizes are in bytes and times in seconds. What is not known is null.

use engine_protocol::{Config, Device, ModelSpec, Resolution, RunRecord, Secs, Source, Stage};
use reports::Need;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// Prints an answer.
pub(crate) fn print(answer: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(answer).map_err(|error| Error::Fault(format!("the answer is no JSON: {error}")))?;
    say!("{text}");
    Ok(())
}

/// How a case runs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Case")]
pub(crate) struct CaseJson {
    /// Its name in the records of its run.
    case: String,
    model: String,
    resolution: Resolution,
    frames: u32,
    low_mem_level: u8,
    /// All flags, by their keys.
    settings: Map<String, Value>,
    /// What was left to the machine, as it was settled: `resident_blocks=12`.
    settled: String,
    /// The most that tensors took at once.
    peak_allocated_bytes: Option<u64>,
    /// The most that the allocator held from the driver at once.
    peak_reserved_bytes: Option<u64>,
    /// The same with the CUDA context and the libraries' own memory: what a card must have.
    peak_device_bytes: Option<u64>,
    /// The stage in which most was allocated.
    peak_stage: Option<Stage>,
    /// What memory of the GPU is known from.
    memory_source: Option<Source>,
    /// The most of the machine's memory.
    ram_peak_bytes: Option<u64>,
    /// How much of that was page-locked at once.
    ram_pinned_peak_bytes: Option<u64>,
    /// `measured` or `predicted`.
    ram_source: String,
    /// From prompt to video, without loading.
    total_secs: Option<Secs>,
    /// What times are known from.
    time_source: Option<Source>,
    /// The command that makes a video with it.
    command: String,
}

impl CaseJson {
    /// Of a case of that model; where the model is not known, the command names every flag.
    pub(crate) fn new(record: &RunRecord, device: Device, model: Option<&ModelSpec>) -> Self {
        let command = reports::generate_line(record, device, model);
        Self {
            settled: reports::settled(record),
            peak_allocated_bytes: record.peak_allocated_bytes(),
            peak_reserved_bytes: record.peak_reserved_bytes(),
            peak_device_bytes: record.peak_device_bytes(),
            peak_stage: record.peak_stage(),
            memory_source: record.memory_source,
            ram_peak_bytes: record.host_needed_bytes(),
            ram_pinned_peak_bytes: record.host().or(record.predicted_host()).map(|host| host.pinned_peak_bytes),
            ram_source: reports::ram_source(record).to_owned(),
            total_secs: record.total_secs(),
            time_source: record.time_source,
            ..Self::that_did_not_run(&record.case, &record.config, command)
        }
    }

    /// A case of which no figure is known.
    pub(crate) fn that_did_not_run(case: &str, config: &Config, command: String) -> Self {
        let settings = reports::settings(config).into_iter().map(|(key, value)| (key.to_owned(), value));
        Self {
            case: case.to_owned(),
            model: config.model.clone(),
            resolution: config.resolution,
            frames: config.frames,
            low_mem_level: config.low_mem_level,
            settings: settings.collect(),
            settled: Default::default(),
            peak_allocated_bytes: None,
            peak_reserved_bytes: None,
            peak_device_bytes: None,
            peak_stage: None,
            memory_source: None,
            ram_peak_bytes: None,
            ram_pinned_peak_bytes: None,
            ram_source: "predicted".to_owned(),
            total_secs: None,
            time_source: None,
            command,
        }
    }
}

/// A case that does not fit the GPU.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Miss")]
pub(crate) struct MissJson {
    /// Its name.
    pub(crate) case: String,
    /// Where it ran out of memory.
    pub(crate) failed_stage: Option<Stage>,
    /// What it needs of a GPU.
    pub(crate) needed_bytes: u64,
    /// Whether all of it needs that, or it had asked for so much when it failed and would have asked for more.
    pub(crate) is_whole: bool,
    /// That, less what the GPU has to give.
    pub(crate) missing_bytes: u64,
}

impl MissJson {
    /// Of a case that ran out of memory, with what is known of its need.
    pub(crate) fn new(record: &RunRecord, need: Need, capacity_bytes: Option<u64>) -> Self {
        let usable = capacity_bytes.map_or(need.bytes, |bytes| record.config.usable_of(bytes));
        Self {
            case: record.case.clone(),
            failed_stage: record.failed_stage,
            needed_bytes: need.bytes,
            is_whole: need.is_whole,
            missing_bytes: need.bytes.saturating_sub(usable),
        }
    }
}

/// What a case is predicted to take.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Need")]
pub(crate) struct NeedJson {
    /// Of the GPU.
    pub(crate) gpu_bytes: u64,
    /// Of the machine's memory.
    pub(crate) ram_bytes: u64,
}
