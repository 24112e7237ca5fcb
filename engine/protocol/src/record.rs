//! The record of one run: what `records.jsonl` holds, and what every table, plot and page is made from.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AttentionKernel, CacheUse, Config, Device, GpuState, HostMemory, HostShortage, Lowered, MemoryCourse, OperationTime, PeakParts, Secs,
    Stage, StageMemory, StageTime,
};

/// The schema of records and manifests that this program writes. It changes with their fields, and reading an older one says what takes the place of what it
/// lacks.
///
/// 1: the first one, which says no number. 2: a record says its schema, the version of lowmem that ran it, and when, and has the whole configuration that ran.
/// 3: the outcome `oom_host`, and a configuration may have `pinned_memory=require`. 4: a stage has its memory of the host, measured and predicted, a manifest the
/// budget of it, and a configuration `load_weights`. 5: caches of sampler steps. 6: how memory went within a stage.
/// 7: what each of several ranks came to.
pub const SCHEMA: u32 = 7;

/// The oldest schema that is still read.
pub const OLDEST_SCHEMA: u32 = 1;

/// The schema of what names none.
pub fn first_schema() -> u32 {
    1
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All stages ran.
    Ok,
    /// The GPU's memory ran out.
    Oom,
    /// The host's memory ran out.
    OomHost,
    /// The worker said what went wrong.
    Failed,
    /// The worker ended by itself without saying why: a crash, or an exit in mid-run.
    Crashed,
    /// A signal from outside ended the worker.
    Killed,
    /// The worker was ended because its time was up.
    Timeout,
}

impl Outcome {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Oom => "oom",
            Outcome::OomHost => "oom_host",
            Outcome::Failed => "failed",
            Outcome::Crashed => "crashed",
            Outcome::Killed => "killed",
            Outcome::Timeout => "timeout",
        }
    }

    /// Whether this is an answer about memory: everything else is a case to look into.
    pub fn is_answer(self) -> bool {
        matches!(self, Outcome::Ok | Outcome::Oom | Outcome::OomHost)
    }

    /// Whether the same case ends so again, whatever else goes on on the machine.
    pub fn is_lasting(self) -> bool {
        matches!(self, Outcome::Ok | Outcome::Oom)
    }
}

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// On the real device.
    Measured,
    /// On the virtual GPU: libtorch's own counters.
    Virtual,
    /// By a model.
    Modelled,
}

impl Source {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Source::Measured => "measured",
            Source::Virtual => "virtual",
            Source::Modelled => "modelled",
        }
    }
}

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageRecord {
    /// Which one.
    pub stage: Stage,
    /// How long it took; empty where that is not known.
    pub time: Option<StageTime>,
    /// Its memory; empty on the CPU.
    pub memory: Option<StageMemory>,
    /// The peak of allocated bytes that was predicted before it ran; empty where there is no estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_peak_allocated_bytes: Option<u64>,
    /// What it held of the host's memory; empty in records of older versions, and where it did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostMemory>,
    /// What was predicted for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_host: Option<HostMemory>,
    /// Of denoise, what the peak of each sampler step that ran was made of; none on the CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PeakParts>,
    /// Of denoise, how long each sampler step that ran took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_secs: Vec<Secs>,
    /// Of denoise, which of the steps that ran reused what a cache had kept, by their place in `step_secs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reused_steps: Vec<u32>,
    /// The kernels that attention came to, each once: what `sdpa` picked is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<AttentionKernel>,
    /// What its operations took, the longest first; none where no profile was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationTime>,
    /// How its memory went, stretch by stretch; steps that went alike are one. None on the CPU, in schemas before 6, and where not every allocation was seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub courses: Vec<MemoryCourse>,
}

impl StageRecord {
    /// Times of the steps after the first that reused, or of those that did not.
    fn later_steps(&self, reused: bool) -> impl Iterator<Item = Secs> + '_ {
        let later = (0..).zip(&self.step_secs).skip(1);
        later.filter(move |(place, _)| self.reused_steps.contains(place) == reused).map(|(_, secs)| *secs)
    }

    /// Their mean; none where none ran.
    fn mean_later_step(&self, reused: bool) -> Option<Secs> {
        let count = self.later_steps(reused).count();
        (count > 0).then(|| self.later_steps(reused).sum::<Secs>() * (1.0 / count as f64))
    }

    /// A stage of which nothing is known yet.
    pub fn new(stage: Stage) -> Self {
        Self {
            stage,
            time: None,
            memory: None,
            predicted_peak_allocated_bytes: None,
            host: None,
            predicted_host: None,
            steps: Vec::new(),
            step_secs: Vec::new(),
            reused_steps: Vec::new(),
            attention: Vec::new(),
            operations: Vec::new(),
            courses: Vec::new(),
        }
    }

    /// How long it took.
    pub fn secs(&self) -> Option<Secs> {
        self.time.map(|time| time.secs)
    }
}

/// One run of one case. What is not known is empty, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// The schema that it is written in.
    #[serde(default = "first_schema")]
    pub schema: u32,
    /// The version of lowmem that ran it; empty in schema 1.
    #[serde(default)]
    pub version: Option<String>,
    /// When it began to run, as in RFC 3339; empty in schema 1.
    #[serde(default)]
    pub began: Option<String>,
    /// The case's name in its run.
    pub case: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, where the outcome is not `ok`.
    pub error: Option<String>,
    /// The stage in which it went wrong.
    pub failed_stage: Option<Stage>,
    /// The allocation that failed, where the GPU's memory ran out.
    #[serde(default)]
    pub requested_bytes: Option<u64>,
    /// What was allocated and reserved when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts_at_failure: Option<PeakParts>,
    /// What was lacking, where the host's memory ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_shortage: Option<HostShortage>,
    /// The GPU profile's name; empty on the CPU.
    pub gpu: Option<String>,
    /// What may be used of it, the CUDA context included; empty on the CPU, and in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    /// What ran it.
    pub device: Device,
    /// The name that the device reported.
    pub device_name: Option<String>,
    /// Where the memory figures come from; empty where there are none.
    pub memory_source: Option<Source>,
    /// Where the times come from; empty where there are none.
    pub time_source: Option<Source>,
    /// The configuration that was asked for, `auto` included: by it a case is known again.
    pub config: Config,
    /// The configuration as it ran, with what was left to the machine settled; empty where that is the one that was asked for. See [`RunRecord::config_run`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_config: Option<Config>,
    /// Each time that it was out of memory and went on at a lower level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<Lowered>,
    /// Each stage that ran, in order, the one that failed included; of one that ran again at a lower level, the last time.
    pub stages: Vec<StageRecord>,
    /// Host to device bytes.
    pub h2d_bytes: Option<u64>,
    /// Device to host bytes.
    pub d2h_bytes: Option<u64>,
    /// The most pinned host memory at once.
    pub host_pinned_peak_bytes: Option<u64>,
    /// Of memory that was to be page-locked and could not be, a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_lock_warning: Option<String>,
    /// What the case itself took to run, from the worker's start to its end. Always measured, on this machine.
    pub wall_secs: f64,
    /// Of a case on a real GPU, what the virtual one said before.
    #[serde(default, alias = "predicted", skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// The case whose sampler steps it has: its own, of which it ran one, cannot differ from those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_of: Option<String>,
    /// What the real GPU was like; empty elsewhere, and where its driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_state: Option<GpuState>,
    /// It was not run, since the virtual GPU says that it cannot fit: what is here is the virtual GPU's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_skipped: bool,
    /// Of a case that ran out of the GPU's memory, what all of it was predicted to take: the stage that takes most, and what the process holds beside its tensors. Empty
    /// where that is not known, and in schemas before 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_need_bytes: Option<u64>,
    /// What a cache of sampler steps came to, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUse>,
    /// Of a case on several GPUs, what each rank came to, in their order; then the stages above have the largest peaks of all, and the times of the first one. None where
    /// there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankRecord>,
    /// Calls that the virtual GPU does not support, by name, with how often each was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unsupported_calls: BTreeMap<String, u64>,
}

/// What one of several ranks came to, each with a GPU of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RankRecord {
    /// Which kind of GPU it had; empty where nobody described it, and in records before 2026-12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// What may be used of it, the context included; empty in records before 2026-12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    /// The most bytes in live tensors at once.
    pub peak_allocated_bytes: Option<u64>,
    /// The most bytes held from the driver at once.
    pub peak_reserved_bytes: Option<u64>,
    /// That and what the device holds beside it: the context and the libraries' own memory.
    pub peak_device_bytes: Option<u64>,
    /// The sampler steps that ran.
    pub denoise_secs: Option<Secs>,
    /// How long arithmetic stood still in them while ranks sent each other what they need; see [`StageTime::exchange`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_secs: Option<Secs>,
    /// How long it stood still in them since another rank was not there yet; see [`StageTime::waiting`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_secs: Option<Secs>,
}

impl RankRecord {
    /// Of the record that the rank has of itself.
    pub fn of(record: &RunRecord) -> Self {
        let largest = |counter| record.largest(counter).map(|(_, bytes)| bytes);
        Self {
            gpu: record.gpu.clone(),
            capacity_bytes: record.capacity_bytes,
            peak_allocated_bytes: largest(|m| m.peak_allocated_bytes),
            peak_reserved_bytes: largest(|m| m.peak_reserved_bytes),
            peak_device_bytes: largest(|m| m.peak_device_bytes),
            denoise_secs: record.stage_secs(Stage::Denoise),
            exchange_secs: record.stage(Stage::Denoise).and_then(|stage| stage.time?.exchange),
            waiting_secs: record.stage(Stage::Denoise).and_then(|stage| stage.time?.waiting),
        }
    }
}

/// What a case came to on a virtual GPU of the real one's kind. What is known from shapes alone is a prediction instead, as in [`StageRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// The most bytes of the device at once, the context included.
    pub peak_device_bytes: Option<u64>,
    /// From prompt to video, loading apart.
    pub total_secs: Option<Secs>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

impl RunRecord {
    /// The configuration as it ran: that of the last level, where memory ran out and the run went on.
    pub fn config_run(&self) -> &Config {
        self.settled_config.as_ref().unwrap_or(&self.config)
    }

    /// What makes its figures doubtful, in sentences without their point.
    pub fn warnings(&self) -> Vec<String> {
        let of_gpu = self.gpu_state.as_ref().map(GpuState::warnings).unwrap_or_default();
        of_gpu.into_iter().chain(self.page_lock_warning.clone()).collect()
    }

    /// What a stage came to, where it began.
    pub fn stage(&self, stage: Stage) -> Option<&StageRecord> {
        self.stages.iter().find(|s| s.stage == stage)
    }

    /// The largest `counter` over the stages that ran, and its stage.
    fn largest(&self, counter: fn(&StageMemory) -> u64) -> Option<(Stage, u64)> {
        let stages = self.stages.iter().filter_map(|s| Some((s.stage, counter(s.memory.as_ref()?))));
        // The first of equals: the stage that set the peak, not one that only kept it.
        stages.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// As [`RunRecord::largest`], for a run that came to its end: the peak of one that did not is not known.
    fn peak(&self, counter: fn(&StageMemory) -> u64) -> Option<(Stage, u64)> {
        if self.outcome == Outcome::Ok { self.largest(counter) } else { None }
    }

    /// The largest peak of allocated bytes over the stages of a run that came to its end.
    pub fn peak_allocated_bytes(&self) -> Option<u64> {
        self.peak(|m| m.peak_allocated_bytes).map(|(_, bytes)| bytes)
    }

    /// The largest peak of reserved bytes over the stages of a run that came to its end.
    pub fn peak_reserved_bytes(&self) -> Option<u64> {
        self.peak(|m| m.peak_reserved_bytes).map(|(_, bytes)| bytes)
    }

    /// The largest peak of device bytes, context included, over the stages of a run that came to its end.
    pub fn peak_device_bytes(&self) -> Option<u64> {
        self.peak(|m| m.peak_device_bytes).map(|(_, bytes)| bytes)
    }

    /// What was predicted for the stage in which most was allocated, of a run that came to its end.
    pub fn predicted_peak_allocated_bytes(&self) -> Option<u64> {
        let stage = self.peak_stage()?;
        self.stage(stage)?.predicted_peak_allocated_bytes
    }

    /// The stage in which most was allocated, of a run that came to its end.
    pub fn peak_stage(&self) -> Option<Stage> {
        self.peak(|m| m.peak_allocated_bytes).map(|(stage, _)| stage)
    }

    /// What the peak of allocated bytes was made of, of a run that came to its end: of the stage in which most was allocated.
    pub fn peak_parts(&self) -> Option<PeakParts> {
        self.stage_memory(self.peak_stage()?)?.parts
    }

    /// The most device bytes that were held, context included, whether or not the run came to its end.
    pub fn reached_device_bytes(&self) -> Option<u64> {
        self.largest(|m| m.peak_device_bytes).map(|(_, bytes)| bytes)
    }

    /// The most of the host's memory over the stages that ran, as it was measured: resident, and page-locked.
    pub fn host(&self) -> Option<HostMemory> {
        self.stages.iter().filter_map(|stage| stage.host).reduce(HostMemory::max)
    }

    /// What was predicted for that.
    pub fn predicted_host(&self) -> Option<HostMemory> {
        self.stages.iter().filter_map(|stage| stage.predicted_host).reduce(HostMemory::max)
    }

    /// What the case takes of the host's memory: measured, or else predicted.
    pub fn host_needed_bytes(&self) -> Option<u64> {
        self.host().and_then(|host| host.peak_bytes).or(self.predicted_host()?.peak_bytes)
    }

    /// The counters when the last stage ended.
    pub fn last_memory(&self) -> Option<StageMemory> {
        self.stages.iter().rev().find_map(|s| s.memory)
    }

    /// Memory of a stage; empty where it did not run, and on the CPU.
    pub fn stage_memory(&self, stage: Stage) -> Option<StageMemory> {
        self.stage(stage)?.memory
    }

    /// How long a stage took.
    pub fn stage_secs(&self, stage: Stage) -> Option<Secs> {
        self.stage(stage)?.secs()
    }

    /// By how much what happened in denoise is scaled, where fewer steps ran than were asked for. Steps that leave blocks out wait for no copy.
    fn scale(&self) -> f64 {
        let reused_that_ran = self.stage(Stage::Denoise).map_or(0, |denoise| denoise.reused_steps.len() as u32);
        let reused = self.cache.map_or(reused_that_ran, |cache| cache.reused_steps);
        let computed = |steps: u32, reused: u32| f64::from(steps.saturating_sub(reused).max(1));
        computed(self.config.steps, reused) / computed(self.config.steps_to_run(), reused_that_ran)
    }

    /// One sampler step that computes, as most are: the mean of those that ran after the first, which also pays for what happens once (kernels are chosen and
    /// loaded). Where the steps' own times are not known, or only one ran, the mean of all.
    pub fn step_secs(&self) -> Option<Secs> {
        let denoise = self.stage(Stage::Denoise)?;
        denoise.mean_later_step(false).or_else(|| Some(denoise.secs()? * (1.0 / f64::from(self.config.steps_to_run()))))
    }

    /// One sampler step that reuses what a cache has kept, where one ran.
    pub fn reused_step_secs(&self) -> Option<Secs> {
        self.stage(Stage::Denoise)?.mean_later_step(true)
    }

    /// The shortest and the longest of the sampler steps that ran after the first, where several were measured: how far repeated steps differ. Those of the
    /// virtual GPU are equal, and their time has an interval of its own.
    pub fn step_spread(&self) -> Option<[f64; 2]> {
        let denoise = self.stage(Stage::Denoise)?;
        let later: Vec<Secs> = denoise.later_steps(false).collect();
        let secs = || later.iter().map(|secs| secs.expected);
        (later.len() > 1 && self.time_source == Some(Source::Measured))
            .then(|| [secs().fold(f64::INFINITY, f64::min), secs().fold(0.0, f64::max)])
    }

    /// The first sampler step, where more than one ran: it also pays for what happens once.
    pub fn first_step_secs(&self) -> Option<Secs> {
        let denoise = self.stage(Stage::Denoise)?;
        denoise.step_secs.first().copied().filter(|_| denoise.step_secs.len() > 1)
    }

    /// All sampler steps: those that ran as they were, and each of the others as most are.
    pub fn denoise_secs(&self) -> Option<Secs> {
        Some(self.stage_secs(Stage::Denoise)? + self.left_steps_secs()?)
    }

    /// The sampler steps that did not run, each as most are: those that leave blocks out by what a cache has kept as those of that kind which ran.
    pub fn left_steps_secs(&self) -> Option<Secs> {
        let left = self.config.steps - self.config.steps_to_run();
        let reused_that_ran = self.stage(Stage::Denoise)?.reused_steps.len() as u32;
        let reused_left = self.cache.map_or(0, |cache| cache.reused_steps.saturating_sub(reused_that_ran)).min(left);
        let reused = if reused_left > 0 { self.reused_step_secs()? * f64::from(reused_left) } else { Secs::default() };
        Some(self.step_secs()? * f64::from(left - reused_left) + reused)
    }

    /// From prompt to video, loading apart.
    pub fn total_secs(&self) -> Option<Secs> {
        Some(
            self.stage_secs(Stage::Encode)?
                + self.of_image(|stage| self.stage_secs(stage))?
                + self.denoise_secs()?
                + self.stage_secs(Stage::Decode)?,
        )
    }

    /// What `of` gives for picture to latents: no time where the video begins with none.
    fn of_image(&self, of: impl Fn(Stage) -> Option<Secs>) -> Option<Secs> {
        if self.stage(Stage::EncodeImage).is_some() { of(Stage::EncodeImage) } else { Some(Secs::default()) }
    }

    /// How long arithmetic stood still from prompt to video because a copy had not arrived.
    pub fn copy_stall_secs(&self) -> Option<Secs> {
        let of = |stage: Stage| self.stage(stage)?.time?.copy_stall;
        Some(of(Stage::Encode)? + self.of_image(of)? + of(Stage::Denoise)? * self.scale() + of(Stage::Decode)?)
    }

    /// How long arithmetic stood still in the sampler steps while ranks sent each other what they need.
    pub fn exchange_secs(&self) -> Option<Secs> {
        Some(self.stage(Stage::Denoise)?.time?.exchange? * self.scale())
    }

    /// How long the first rank's arithmetic stood still in the sampler steps that ran since another rank was not there yet.
    pub fn waiting_secs(&self) -> Option<Secs> {
        self.stage(Stage::Denoise)?.time?.waiting
    }

    /// Multiplications and additions a second that the sampler steps reached.
    pub fn denoise_operations_per_sec(&self) -> Option<f64> {
        let time = self.stage(Stage::Denoise)?.time?;
        Some(time.work?.operations / time.secs.expected).filter(|rate| rate.is_finite())
    }
}
