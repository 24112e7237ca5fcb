//! A run directory as data: its manifest and its records.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine_protocol::{Device, GpuProfile, ModelSpec, Outcome, RunRecord};
use serde::{Deserialize, Serialize};

/// The manifest's file name in a run directory.
pub const MANIFEST: &str = "manifest.json";
/// The records' file name in a run directory.
pub const RECORDS: &str = "records.jsonl";

/// What went wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no run here.
    #[error("{} is not a run directory: it has no {MANIFEST}", .0.display())]
    NotARun(PathBuf),
    /// A line or a file that is not what it should be.
    #[error("{path}:{line}: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A plot that could not be drawn.
    #[error("plot {name}: {message}")]
    Plot {
        /// The plot's name.
        name: &'static str,
        /// Why.
        message: String,
    },
    /// The page could not be filled in.
    #[error("report.html: {0}")]
    Page(#[from] askama::Error),
    /// A table could not be written as CSV.
    #[error("results.csv: {0}")]
    Csv(#[from] csv::Error),
}

impl Error {
    /// An error of the file system, with the file.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Whether the directory or what is in it is at fault, and not this program.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::NotARun(_) | Error::Parse { .. } => true,
            Error::Io { source, .. } => matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
            Error::Plot { .. } | Error::Page(_) | Error::Csv(_) => false,
        }
    }
}

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

/// What a run was asked to do, on what, and by which version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
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
    /// The profile of the GPU; empty on the CPU, and on a real GPU that no profile is of.
    pub gpu: Option<GpuProfile>,
    /// How the device and the GPU were chosen, in words.
    pub choice: String,
    /// What the GPU or the budget holds, the context included; empty on the CPU.
    pub capacity_bytes: Option<u64>,
    /// What the caching allocator may reserve at most, where that is less than the GPU has.
    pub memory_limit_bytes: Option<u64>,
    /// The models of the cases, by name.
    pub models: Vec<ModelSpec>,
    /// All cases, in order.
    pub cases: Vec<String>,
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
}

impl Run {
    /// A run of these records, the newest one of each case, in the order of the cases.
    pub fn new(manifest: Manifest, records: Vec<RunRecord>) -> Self {
        let newest = |case: &String| records.iter().rev().find(|record| record.case == *case).cloned();
        let records = manifest.cases.iter().filter_map(newest).collect();
        Self { manifest, records }
    }

    /// Reads a run directory.
    ///
    /// # Errors
    /// No run there, or a file that cannot be read. A torn last record, as a lost machine leaves it, is passed over.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let manifest = load_manifest(dir)?;
        let (records, _) = load_records(dir)?;
        Ok(Self::new(manifest, records))
    }

    /// Cases that have not ended yet.
    pub fn missing(&self) -> usize {
        self.manifest.cases.len() - self.records.len()
    }

    /// How many cases ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.records.iter().filter(|record| record.outcome == outcome).count()
    }

    /// Whether any case ended in a way that is no answer about memory.
    pub fn has_failures(&self) -> bool {
        self.records.iter().any(|record| !record.outcome.is_answer())
    }

    /// In words, what the memory figures and the times are and where they come from.
    pub fn provenance(&self) -> String {
        let gpu = self.manifest.gpu.as_ref().map(|gpu| format!("{} ({})", gpu.name, gpu.title));
        let timed = self.records.iter().any(|record| record.time_source.is_some());
        match self.manifest.device {
            Device::Virtual => format!(
                "virtual GPU {}: memory is libtorch's own count on the virtual device (virtual); times are {}",
                gpu.unwrap_or_default(),
                if timed { "modelled" } else { "not known" }
            ),
            Device::Cuda => {
                let name = self.records.iter().find_map(|record| record.device_name.clone()).or(gpu).unwrap_or_default();
                format!("real GPU {name}: memory and times are measured")
            }
            Device::Cpu => "CPU: times are measured; there is no GPU memory to measure".into(),
        }
    }
}

/// Reads the manifest of a run directory.
///
/// # Errors
/// No run there, or a manifest that cannot be read.
pub fn load_manifest(dir: &Path) -> Result<Manifest, Error> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotARun(dir.to_owned()),
        _ => Error::io(&path, error),
    })?;
    serde_json::from_str(&text).map_err(|source| Error::Parse { path, line: source.line(), source })
}

/// Reads the records of a run directory, and how many bytes of the file they are: what follows is a torn last record.
///
/// # Errors
/// A file that cannot be read, or a line other than the last that is not a record.
pub fn load_records(dir: &Path) -> Result<(Vec<RunRecord>, u64), Error> {
    let path = dir.join(RECORDS);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        other => other.map_err(|error| Error::io(&path, error))?,
    };
    let mut records = Vec::new();
    let mut whole = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let is_last = whole + line.len() == bytes.len();
        match serde_json::from_slice(line) {
            // A record without its line end is torn too: more of it may have been meant to come.
            Ok(record) if line.ends_with(b"\n") => records.push(record),
            Err(source) if !is_last => return Err(Error::Parse { path, line: index + 1, source }),
            _ => break,
        }
        whole += line.len();
    }
    Ok((records, whole as u64))
}
