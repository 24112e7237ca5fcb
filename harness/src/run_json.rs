//! What a run says, for programs: of `lowmem sweep`, `merge` and `report`.

use std::path::{Path, PathBuf};

use engine_protocol::{Device, Outcome, Resolution, RunRecord};
use reports::{Summary, Verdict};
use schemars::JsonSchema;
use serde::Serialize;

use crate::json::{CaseJson, MissJson};

/// What a run says. Every case with every figure stands in its `results.csv`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunJson {
    /// The run directory.
    dir: PathBuf,
    sweep: String,
    gpu: Option<String>,
    device: Device,
    /// What the GPU or the budget holds.
    capacity_bytes: Option<u64>,
    /// What the machine's memory may hold; null where it is taken to be without limit.
    ram_bytes: Option<u64>,
    /// How many cases there are.
    cases: usize,
    /// How many of them have not run: until then nothing is recommended.
    missing: usize,
    /// Cases that ended in a way that is no answer about memory.
    failed: Vec<FailureJson>,
    /// The case to use for all of them.
    recommended: Option<CaseJson>,
    /// One for each model, resolution and number of frames.
    verdicts: Vec<VerdictJson>,
    /// By what cases are ranked.
    rule: String,
    /// What figures are and where they come from.
    provenance: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verdict")]
struct VerdictJson {
    model: String,
    resolution: Resolution,
    frames: u32,
    /// How many cases are about it.
    cases: usize,
    /// The best case so far.
    best: Option<CaseJson>,
    /// Where nothing fits the GPU, the case that needs least.
    nearest_miss: Option<MissJson>,
    /// Where nothing fits the machine's memory, of what the GPU holds the case that takes least of it.
    short_of_ram: Option<CaseJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Failure")]
struct FailureJson {
    case: String,
    outcome: Outcome,
    error: Option<String>,
}

impl RunJson {
    /// Of a run in that directory.
    pub(crate) fn new(summary: &Summary<'_>, dir: &Path) -> Self {
        let (run, manifest) = (summary.run, &summary.run.manifest);
        let case = |record: &RunRecord| {
            CaseJson::new(record, manifest.device, manifest.models.iter().find(|model| model.name == record.config.model))
        };
        let failed = run.records.iter().filter(|record| !record.outcome.is_answer());
        let verdict = |verdict: &Verdict<'_>| {
            let subject = verdict.subject_config();
            VerdictJson {
                model: subject.model.clone(),
                resolution: subject.resolution,
                frames: subject.frames,
                cases: verdict.records.len(),
                best: verdict.best.map(case),
                nearest_miss: verdict.nearest.map(|miss| MissJson::new(miss.record, miss.need, manifest.capacity_bytes)),
                short_of_ram: verdict.short_of_ram.map(case),
            }
        };
        Self {
            dir: dir.to_owned(),
            sweep: manifest.sweep.clone(),
            gpu: manifest.gpu.as_ref().map(|gpu| gpu.name.clone()),
            device: manifest.device,
            capacity_bytes: manifest.capacity_bytes,
            ram_bytes: manifest.ram_bytes,
            cases: manifest.cases.len(),
            missing: run.missing(),
            failed: failed
                .map(|record| FailureJson { case: record.case.clone(), outcome: record.outcome, error: record.error.clone() })
                .collect(),
            recommended: summary.chosen.map(case),
            verdicts: summary.verdicts.iter().map(verdict).collect(),
            rule: summary.ranking.to_owned(),
            provenance: summary.provenance.clone(),
        }
    }
}
