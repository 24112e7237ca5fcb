//! `--log`: a line of JSON for each video, for services that make many. Every video is made by a process of its own, so that its peaks are its own too: none is left over from the one before.

use std::path::Path;

use engine_protocol::{ModelSpec, Outcome, RunRecord, Secs, Source, Stage, StageRecord};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::appended_file::AppendedFile;
use crate::error::Error;

/// Keys that a line does not repeat, or that are nobody's business.
const ELSEWHERE: [&str; 3] = ["model", "prompt", "negative_prompt"];

/// What became of a video, and what it took. What is not known is null.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogLine {
    /// When it was begun, as in RFC 3339.
    time: Option<String>,
    model: String,
    /// The flags by which it differs from what the model gives, by their keys. Prompts are left out.
    settings: Map<String, Value>,
    /// How it ended.
    outcome: Outcome,
    /// What went wrong, and in which stage.
    error: Option<String>,
    failed_stage: Option<Stage>,
    /// The GPU profile's name.
    gpu: Option<String>,
    /// Each stage that ran.
    stages: Vec<StageLine>,
    /// The most that tensors took at once, of a video that was made.
    peak_allocated_bytes: Option<u64>,
    /// The most that the allocator held from the driver at once.
    peak_reserved_bytes: Option<u64>,
    /// The same with the CUDA context and the libraries' own memory.
    peak_device_bytes: Option<u64>,
    /// What memory of the GPU is known from.
    memory_source: Option<Source>,
    /// The most of the machine's memory: measured, or else predicted.
    ram_peak_bytes: Option<u64>,
    /// From prompt to video, without loading.
    total_secs: Option<Secs>,
    /// What times are known from.
    time_source: Option<Source>,
    /// From the start of its process to its end, as the clock says.
    wall_secs: f64,
}

/// A stage of a video.
#[derive(Debug, Serialize, JsonSchema)]
struct StageLine {
    stage: Stage,
    secs: Option<Secs>,
    peak_allocated_bytes: Option<u64>,
    peak_reserved_bytes: Option<u64>,
    peak_device_bytes: Option<u64>,
    /// Resident at once, as it was measured.
    ram_peak_bytes: Option<u64>,
}

impl LogLine {
    /// Of a video that came to an end, by that model.
    fn of(record: &RunRecord, model: &ModelSpec) -> Self {
        let settings = record.config_run().fewest_settings(record.device, model).into_iter();
        let settings = settings.filter(|(flag, _)| !ELSEWHERE.contains(&flag.key));
        Self {
            time: record.began.clone(),
            model: record.config.model.clone(),
            settings: settings.map(|(flag, value)| (flag.key.to_owned(), value)).collect(),
            outcome: record.outcome,
            error: record.error.clone(),
            failed_stage: record.failed_stage,
            gpu: record.gpu.clone(),
            stages: record.stages.iter().map(StageLine::of).collect(),
            peak_allocated_bytes: record.peak_allocated_bytes(),
            peak_reserved_bytes: record.peak_reserved_bytes(),
            peak_device_bytes: record.peak_device_bytes(),
            memory_source: record.memory_source,
            ram_peak_bytes: record.host_needed_bytes(),
            total_secs: record.total_secs(),
            time_source: record.time_source,
            wall_secs: record.wall_secs,
        }
    }
}

impl StageLine {
    fn of(stage: &StageRecord) -> Self {
        Self {
            stage: stage.stage,
            secs: stage.time.map(|time| time.secs),
            peak_allocated_bytes: stage.memory.map(|memory| memory.peak_allocated_bytes),
            peak_reserved_bytes: stage.memory.map(|memory| memory.peak_reserved_bytes),
            peak_device_bytes: stage.memory.map(|memory| memory.peak_device_bytes),
            ram_peak_bytes: stage.host.and_then(|host| host.peak_bytes),
        }
    }
}

/// The file that lines go to.
#[derive(Debug)]
pub(super) struct Log(AppendedFile);

impl Log {
    /// Opens it before anything runs.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        AppendedFile::open("--log", path).map(Self)
    }

    /// Writes a video down, on disk.
    pub(super) fn append(&mut self, record: &RunRecord, model: &ModelSpec) -> Result<(), Error> {
        let line =
            serde_json::to_string(&LogLine::of(record, model)).map_err(|error| Error::Fault(format!("the line is no JSON: {error}")))?;
        self.0.append((line + "\n").as_bytes())?;
        self.0.sync()
    }
}
