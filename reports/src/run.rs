//! A run as data: its manifest and its records. What they mean is judged elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use engine_protocol::{Device, GpuProfile, ModelSpec, Outcome, Quality, RunRecord, first_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The machine that a run was made on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and kernel.
    pub system: String,
    /// The processor's name, where the system tells.
    pub processor: Option<String>,
    /// Processors that may be used.
    pub cores: usize,
    /// Memory in all, where the system tells.
    pub memory_bytes: Option<u64>,
}

/// A kind of GPU, and what it holds as CUDA reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its profile's name.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
}

impl Card {
    /// That of a profile.
    pub fn of(profile: &GpuProfile) -> Self {
        Self { name: profile.name.clone(), memory_bytes: profile.memory_bytes.value }
    }
}

/// One of several GPUs of a run. What a manifest says of its one GPU, it says of each of several here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunGpu {
    /// As it was asked for: `24GB`, `rtx-3060`.
    pub asked: String,
    /// Its profile.
    pub profile: GpuProfile,
    /// How it was chosen, in words.
    pub choice: String,
    /// What it or the budget holds, the context included.
    pub capacity_bytes: u64,
    /// Cards that are sold with as much memory and hold less; none where a card was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smaller: Vec<Card>,
    /// What the caching allocator may reserve at most, where that is less than the GPU has.
    pub memory_limit_bytes: Option<u64>,
}

/// What a run was asked to do, on what, and by which version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The schema that it is written in.
    #[serde(default = "first_schema")]
    pub schema: u32,
    /// This program's version.
    pub version: String,
    /// When the run began, with the time zone.
    pub begun: String,
    /// The command line that began it.
    pub command_line: Vec<String>,
    /// The sweep's name.
    pub sweep: String,
    /// The sweep's definition as it was read.
    pub definition: String,
    /// What ran the cases.
    pub device: Device,
    /// The profile of the GPU; empty on the CPU, on a real GPU that no profile is of, and where there are several.
    pub gpu: Option<GpuProfile>,
    /// How the device and the GPU were chosen, in words.
    pub choice: String,
    /// What the GPU or the budget holds, the context included; empty on the CPU, and where there are several.
    pub capacity_bytes: Option<u64>,
    /// Cards that are sold with as much memory and hold less; none where a card was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smaller: Vec<Card>,
    /// What the caching allocator may reserve at most, where that is less than the GPU has.
    pub memory_limit_bytes: Option<u64>,
    /// The GPUs of a run of several, in order; empty where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<RunGpu>,
    /// What cases may take of the machine's memory, everything counted; empty where nothing limits them, and in schemas before 4.
    #[serde(default)]
    pub ram_bytes: Option<u64>,
    /// Where that is from, in words; empty in schemas before 4.
    #[serde(default)]
    pub ram: Option<String>,
    /// How fast the disk is taken to be that weights are read from, in words; empty where nothing is modelled, and in schemas before 4.
    #[serde(default)]
    pub disk: Option<String>,
    /// Whether a case that gives up quality may be the one to use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allows_lossy: bool,
    /// The models of the cases, by name.
    pub models: Vec<ModelSpec>,
    /// All cases, in order.
    pub cases: Vec<String>,
    /// The values that each flag has over the cases, by its key; empty in runs of versions that did not write them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Vec<Value>>,
    /// What was another one when the cases that were there before were run, in words: somebody had both put into one run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed: Vec<String>,
    /// What cases were left out, since others are the same, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The machine.
    pub host: Host,
}

/// A run: its manifest, and a record for each case that has ended, in the order of the cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was asked.
    pub manifest: Manifest,
    /// What came of it.
    pub records: Vec<RunRecord>,
    /// Lines of the records' file that are no records, a sentence each.
    pub passed_over: Vec<String>,
    /// What the quality of cases is that give some up, as far as it was measured.
    pub quality: Vec<Quality>,
}

impl Run {
    /// A run of these records, the newest one of each case, in the order of the cases.
    pub fn new(manifest: Manifest, records: Vec<RunRecord>) -> Self {
        let mut newest: HashMap<String, RunRecord> = records.into_iter().map(|record| (record.case.clone(), record)).collect();
        let records = manifest.cases.iter().filter_map(|case| newest.remove(case)).collect();
        Self { manifest, records, passed_over: Vec::new(), quality: Vec::new() }
    }

    /// Of a run of several GPUs, the one that a case ran on.
    pub fn gpu_of(&self, record: &RunRecord) -> Option<&RunGpu> {
        let is_its = |gpu: &&RunGpu| Some(&gpu.profile.name) == record.gpu.as_ref() && Some(gpu.capacity_bytes) == record.capacity_bytes;
        self.manifest.gpus.iter().find(is_its)
    }

    /// What is known of the quality of a case.
    pub fn quality_of(&self, record: &RunRecord) -> Option<&Quality> {
        self.quality.iter().find(|quality| quality.case == record.case)
    }

    /// The profile of the GPU that a case ran on, where there is one.
    pub fn profile_of(&self, record: &RunRecord) -> Option<&GpuProfile> {
        self.gpu_of(record).map(|gpu| &gpu.profile).or(self.manifest.gpu.as_ref())
    }

    /// What may be used of the GPU that a case ran on; empty on the CPU.
    pub fn capacity_of(&self, record: &RunRecord) -> Option<u64> {
        self.gpu_of(record).map(|gpu| gpu.capacity_bytes).or(self.manifest.capacity_bytes)
    }

    /// Cards that are sold with as much memory as the GPU that a case ran on, and hold less.
    pub fn smaller_than_of(&self, record: &RunRecord) -> &[Card] {
        self.gpu_of(record).map_or(&self.manifest.smaller, |gpu| &gpu.smaller)
    }

    /// The same as runs of one GPU each. Cases that have not run are open in each of them: no record says which they are of.
    pub fn of_each_gpu(self) -> Vec<Self> {
        if self.manifest.gpus.is_empty() {
            return vec![self];
        }
        let ran: HashSet<&str> = self.records.iter().map(|record| record.case.as_str()).collect();
        let open: Vec<String> = self.manifest.cases.iter().filter(|case| !ran.contains(case.as_str())).cloned().collect();
        let of = |gpu: &RunGpu| {
            let records: Vec<RunRecord> = self.records.iter().filter(|record| self.gpu_of(record) == Some(gpu)).cloned().collect();
            let manifest = Manifest {
                gpu: Some(gpu.profile.clone()),
                choice: gpu.choice.clone(),
                capacity_bytes: Some(gpu.capacity_bytes),
                smaller: gpu.smaller.clone(),
                memory_limit_bytes: gpu.memory_limit_bytes,
                gpus: Vec::new(),
                cases: records.iter().map(|record| record.case.clone()).chain(open.iter().cloned()).collect(),
                ..self.manifest.clone()
            };
            Self { passed_over: self.passed_over.clone(), ..Self::new(manifest, records) }
        };
        self.manifest.gpus.iter().map(of).collect()
    }

    /// Cases that have not ended yet.
    pub fn missing(&self) -> usize {
        self.manifest.cases.len() - self.records.len()
    }

    /// How many cases ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.records.iter().filter(|record| record.outcome == outcome).count()
    }

    /// Whether the machine's memory holds a case, as far as is known.
    pub fn fits_ram(&self, record: &RunRecord) -> bool {
        self.manifest.ram_bytes.is_none_or(|held| record.host_needed_bytes().is_none_or(|needed| needed <= held))
    }

    /// Whether any case ended in a way that is no answer about memory.
    pub fn has_failures(&self) -> bool {
        self.records.iter().any(|record| !record.outcome.is_answer())
    }
}
