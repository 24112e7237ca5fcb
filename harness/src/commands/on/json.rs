//! The verdict of `lowmem on` as JSON.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use reports::write_whole;
use schemars::JsonSchema;
use serde::Serialize;

use super::cards::{Course, Judge, Word};
use super::find::Found;
use super::need::DeviceUse;
use super::peak::Peak;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;

/// All sizes are in bytes. What is not known is null.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verdict")]
pub(crate) struct VerdictJson<'a> {
    gpu: &'a str,
    memory_bytes: u64,
    beyond: bool,
    exit_code: Option<i32>,
    signal: Option<i32>,
    course: Course,
    /// That of the GPU it ran on; none where no process used it.
    verdict: Option<Word>,
    needed_at_least_bytes: u64,
    held_bytes: u64,
    out_of_memory: Option<OutOfMemory<'a>>,
    /// Of all processes, as if their peaks came at once.
    host_peak_bytes: Option<u64>,
    page_locked_peak_bytes: u64,
    processes: Vec<Use<'a>>,
    gpus: BTreeMap<&'a str, Word>,
    /// The smallest GPU that it ran on, where that was asked for and there is one.
    found: Option<&'a str>,
    unsupported: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct OutOfMemory<'a> {
    place: Option<&'a str>,
    requested_bytes: Option<u64>,
    free_bytes: Option<u64>,
    reserved_unused_bytes: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Use<'a> {
    process: u32,
    device: u32,
    /// The number that the program knows the device by.
    number: u32,
    peak_allocated_bytes: Option<u64>,
    peak_reserved_bytes: Option<u64>,
    peak_device_bytes: u64,
    /// What was given out at the peak: by what it was for, by module, and where it came.
    peak: Option<&'a Peak>,
}

/// Writes it into the file, or on standard output for `-`.
pub(super) fn write(
    path: &Path,
    judge: &Judge<'_>,
    profiles: &GpuProfiles,
    found: Option<&Found<'_>>,
    status: ExitStatus,
) -> Result<(), Error> {
    let is_used = !judge.need.uses.is_empty();
    let verdict = VerdictJson {
        gpu: &judge.here.name,
        memory_bytes: judge.here.memory_bytes.value,
        beyond: judge.went_beyond,
        exit_code: status.code(),
        signal: status.signal(),
        course: judge.course,
        verdict: is_used.then(|| judge.word(judge.here)),
        needed_at_least_bytes: judge.at_least_on(judge.here),
        held_bytes: judge.held_on(judge.here),
        out_of_memory: judge.need.failed().map(out_of_memory),
        host_peak_bytes: judge.need.host_peak_bytes(),
        page_locked_peak_bytes: judge.need.pinned_peak_bytes,
        processes: judge.need.uses.iter().map(used).collect(),
        gpus: profiles.iter().filter(|_| is_used).map(|card| (card.name.as_str(), judge.word(card))).collect(),
        found: found.and_then(|found| Some(found.smallest?.name.as_str())),
        unsupported: &judge.need.unsupported,
    };
    let text = serde_json::to_string(&verdict).map_err(|error| Error::Fault(format!("the verdict is no JSON: {error}")))?;
    if path == Path::new("-") {
        say!("{text}");
        return Ok(());
    }
    write_whole(path, text + "\n").map_err(|error| Error::io(path, error))
}

fn out_of_memory(used: &DeviceUse) -> OutOfMemory<'_> {
    let last = used.report.refusals.last;
    OutOfMemory {
        place: used.place(),
        requested_bytes: last.map(|last| last.requested_bytes),
        free_bytes: last.map(|last| last.free_bytes),
        reserved_unused_bytes: used.unused_bytes(),
    }
}

fn used(used: &DeviceUse) -> Use<'_> {
    Use {
        process: used.process,
        device: used.device,
        number: used.report.number,
        peak_allocated_bytes: used.counted.map(|counted| counted.peak_allocated_bytes),
        peak_reserved_bytes: used.counted.map(|counted| counted.peak_reserved_bytes),
        peak_device_bytes: used.report.peak_device_bytes,
        peak: used.peak.as_ref(),
    }
}
