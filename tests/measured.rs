//! What was measured on real GPUs, a folder each in `reports/measured/`, and what a virtual GPU of the same kind says of the same configurations.

use std::path::{Path, PathBuf};

use engine_protocol::{Config, OffloadTextEncoder, RunRecord, Secs, Stage, StageMemory};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::root;
use crate::sweep::Swept;

/// Where the folders are.
pub const MEASURED: &str = "reports/measured";
/// The file in a folder that has what the virtual GPU says.
pub const VIRTUAL: &str = "virtual.jsonl";

/// libtorch's segment of small tensors: a real decoder of tiles may need one less, since its convolutions ask for other workspaces.
const SEGMENT: u64 = 2 << 20;

/// One folder: a GPU, and the day.
pub struct Folder {
    /// `h100-2026-11-27`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The sweeps in it, each with its records.
    pub sweeps: Vec<(String, Vec<RunRecord>)>,
}

/// All folders, in the order of their names.
///
/// # Panics
/// When one cannot be read.
pub fn folders() -> Vec<Folder> {
    subfolders(&root().join(MEASURED)).iter().map(|path| folder(path)).collect()
}

/// One folder.
///
/// # Panics
/// When it cannot be read.
pub fn folder(path: &Path) -> Folder {
    let sweeps = subfolders(path).into_iter().filter(|sweep| sweep.join(reports::RECORDS).exists());
    let records = |sweep: &Path| reports::load_records(sweep).unwrap_or_else(|error| panic!("{error}")).records;
    Folder { name: name(path), path: path.to_owned(), sweeps: sweeps.map(|sweep| (name(&sweep), records(&sweep))).collect() }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// What a virtual GPU of the same kind says of the records' configurations as they ran, in their order. Every flag is said, so that nothing is left to this
/// machine, and profiles are ours, whatever was calibrated here.
///
/// # Panics
/// When the records are not of one GPU, or another configuration runs.
pub fn said_of(records: &[RunRecord]) -> Vec<RunRecord> {
    said_with(records, tempfile::tempdir().expect("a folder").path())
}

/// As [`said_of`], with a user's own settings folder: what was calibrated there counts.
///
/// # Panics
/// When the records are not of one GPU, or another configuration runs.
pub fn said_with(records: &[RunRecord], settings: &Path) -> Vec<RunRecord> {
    let gpu = records.first().and_then(|record| record.gpu.as_deref()).expect("a GPU with a profile");
    assert!(records.iter().all(|record| record.gpu.as_deref() == Some(gpu)), "records of one GPU");
    let cases: Vec<_> = records.iter().map(|record| case(record.config_run())).collect();
    let environment = [("XDG_CONFIG_HOME", settings.to_owned())];
    let said = Swept::new(&json!({ "cases": cases }).to_string(), gpu, "virtual", &environment).run().records;
    assert_eq!(said.len(), records.len(), "a case for each");
    for (record, said) in records.iter().zip(&said) {
        assert_eq!(record.config_run(), &said.config, "{}: another configuration", record.case);
    }
    said
}

/// A configuration as a case of a sweep.
fn case(config: &Config) -> Value {
    config.settings().into_iter().map(|(flag, value)| (flag.key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
}

/// How the peaks of a stage compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peaks {
    /// Allocated and reserved bytes are the same.
    Same,
    /// The real decoder of tiles reserved a segment of 2 MiB less.
    SegmentLess,
    /// Anything else.
    Different,
}

/// How peaks of allocated and reserved memory compare: one line for each stage in which they are different, and whether all others are the same bytes. Loading
/// is left out: only a real GPU's weights are filled, by way of a buffer.
pub fn compare(measured: &RunRecord, said: &Said) -> (Peaks, Vec<String>) {
    let mut faults = Vec::new();
    let mut worst = Peaks::Same;
    for &(stage, says) in &said.peaks {
        let memory = measured.stage_memory(stage);
        let measured_peaks = memory.map(|memory: StageMemory| [memory.peak_allocated_bytes, memory.peak_reserved_bytes]);
        let is_tiled = measured.config.vae_tile_size.is_some();
        match measured_peaks {
            Some(peaks) if peaks == says => {}
            Some([allocated, reserved])
                if is_tiled && stage == Stage::Decode && allocated == says[0] && says[1].checked_sub(reserved) == Some(SEGMENT) =>
            {
                worst = Peaks::SegmentLess;
            }
            other => {
                faults.push(format!("{}, {}: {other:?} measured, {says:?} virtual (allocated, reserved)", measured.case, stage.name()))
            }
        }
    }
    (if faults.is_empty() { worst } else { Peaks::Different }, faults)
}

/// What the virtual GPU says of one case: a line of [`VIRTUAL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The sweep.
    pub sweep: String,
    /// The case.
    pub case: String,
    /// Peaks of allocated and of reserved bytes.
    pub peaks: Vec<(Stage, [u64; 2])>,
    /// The most of the device, the context included.
    pub peak_device_bytes: u64,
    /// Times. None that hang on the machine that says them: those of a text encoder that runs on the CPU.
    pub times: Vec<(Timed, Secs)>,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timed {
    /// Prompt to prompt embedding.
    Encode,
    /// One sampler step, as most are.
    Step,
    /// Latents to frames.
    Decode,
    /// Prompt to video.
    Total,
}

impl Timed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Encode, Self::Step, Self::Decode, Self::Total];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Step => "step",
            Self::Decode => "decode",
            Self::Total => "total",
        }
    }

    /// Its time in a record.
    pub fn of(self, record: &RunRecord) -> Option<Secs> {
        match self {
            Self::Encode => record.stage_secs(Stage::Encode),
            Self::Step => record.step_secs(),
            Self::Decode => record.stage_secs(Stage::Decode),
            Self::Total => record.total_secs(),
        }
    }
}

impl Said {
    /// What a record of the virtual GPU says.
    ///
    /// # Panics
    /// When the case did not come to its end.
    pub fn new(sweep: &str, case: &str, record: &RunRecord) -> Self {
        let peaks = |stage| {
            let memory = record.stage_memory(stage).unwrap_or_else(|| panic!("{case}: {:?}", record.error));
            (stage, [memory.peak_allocated_bytes, memory.peak_reserved_bytes])
        };
        let is_on_cpu = record.config.offload_text_encoder == OffloadTextEncoder::Cpu;
        let hangs_on_us = |timed: Timed| is_on_cpu && [Timed::Encode, Timed::Total].contains(&timed);
        // To the millisecond: what is beyond means nothing.
        let round = |secs: f64| (secs * 1e3).round() / 1e3;
        let secs = |secs: Secs| Secs { low: round(secs.low), expected: round(secs.expected), high: round(secs.high) };
        Self {
            sweep: sweep.to_owned(),
            case: case.to_owned(),
            peaks: [Stage::Encode, Stage::Denoise, Stage::Decode].map(peaks).to_vec(),
            peak_device_bytes: record.peak_device_bytes().expect("a case that came to its end"),
            times: Timed::ALL
                .into_iter()
                .filter(|timed| !hangs_on_us(*timed))
                .filter_map(|timed| Some((timed, secs(timed.of(record)?))))
                .collect(),
        }
    }

    /// A time.
    pub fn secs(&self, timed: Timed) -> Option<Secs> {
        self.times.iter().find(|(other, _)| *other == timed).map(|(_, secs)| *secs)
    }
}

/// What was said, as the text of [`VIRTUAL`].
///
/// # Panics
/// Never: it is plain data.
pub fn told(said: &[Said]) -> String {
    said.iter().map(|said| serde_json::to_string(said).expect("plain data") + "\n").collect()
}

/// What [`VIRTUAL`] of a folder says; nothing where there is none.
///
/// # Panics
/// When a line of it is something else.
pub fn said(folder: &Path) -> Vec<Said> {
    let text = std::fs::read_to_string(folder.join(VIRTUAL)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{VIRTUAL}: {error}"))).collect()
}

/// The rows of a CSV file; none where there is no such file.
///
/// # Panics
/// When a row is not one.
pub fn rows<T: for<'a> Deserialize<'a>>(path: &Path) -> Vec<T> {
    if !path.exists() {
        return Vec::new();
    }
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    reader.deserialize().map(|row| row.unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

/// Rows as the text of a CSV file.
///
/// # Panics
/// When a row has no columns.
pub fn csv_of<T: Serialize>(rows: &[T]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().for_each(|row| writer.serialize(row).expect("a row"));
    String::from_utf8(writer.into_inner().expect("a buffer")).expect("text")
}
