//! What the virtual GPU writes down of a process.
//!
//! A report is read whole or not at all: a field that is missing or unknown makes it unreadable. A process that never used the device, or was killed, may
//! leave none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{ProcessUse, WorkType};

/// Seconds by the virtual clock: at least, most likely, at most.
pub type ModelledSecs = [f64; 3];

/// What one process asked of the virtual GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessReport {
    /// Calls that are not supported, by name, with how often each was made.
    pub unsupported: BTreeMap<String, u64>,
    /// Whether one of them made everything fail that came after it.
    pub stopped: bool,
    /// What was decided without a value of the device, by those who watch the program, and how often.
    pub decided: BTreeMap<String, u64>,
    /// The most page-locked memory of the host at one time.
    pub pinned_peak_bytes: u64,
    /// Page-locked memory that was not given back.
    pub pinned_left_bytes: u64,
    /// Requests for page-locked memory that the host had no memory for, or a limit forbade.
    pub host_refusals: u64,
    /// Handles that were not destroyed, by library.
    pub handles_left: BTreeMap<String, usize>,
    /// How far the program had come.
    pub host_secs: ModelledSecs,
    /// The devices that were used, by ordinal.
    pub devices: BTreeMap<u32, DeviceReport>,
}

/// What one process did to one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceReport {
    /// The number that the program knows it by: `CUDA_VISIBLE_DEVICES` may give it another than the machine does.
    pub number: u32,
    /// Whether the program asked how much memory is free, by which it may decide.
    pub asked_free: bool,
    /// The most that was in use, the context included.
    pub peak_device_bytes: u64,
    /// PyTorch's operation that reached it, to within a hundredth, where that is known.
    pub peak_operation: Option<String>,
    /// Whether attention held a whole score matrix then, or when memory ran out.
    pub has_score_matrix: bool,
    /// What of it the process held beside its allocations: context, machine code, streams, page tables.
    pub process_bytes: u64,
    /// The most that it used of what takes such memory.
    pub process_use: ProcessUse,
    /// All that there was.
    pub memory_bytes: u64,
    /// Bytes copied to the device.
    pub h2d_bytes: u64,
    /// Bytes copied to the host.
    pub d2h_bytes: u64,
    /// Kernels, and library calls that would have run some.
    pub kernel_launches: u64,
    /// Small copies to the host: values that the program may decide by.
    pub values_read: u64,
    /// How many of them each of PyTorch's operations read, where that is known.
    pub values_read_by: BTreeMap<String, u64>,
    /// Requests for memory that failed.
    pub refusals: Refusals,
    /// What was not given back.
    pub left: NotGivenBack,
    /// How long it computed, copied to the device and copied to the host.
    pub busy_secs: [ModelledSecs; 3],
    /// How long arithmetic stood still because a copy had not arrived.
    pub copy_stall_secs: ModelledSecs,
    /// When it had done all that it was asked for.
    pub end_secs: ModelledSecs,
    /// What it did, by kind.
    pub work: BTreeMap<String, WorkSum>,
    /// The types in which matrices were multiplied.
    pub products: BTreeSet<WorkType>,
}

/// What became of the requests for device memory that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    /// How many were never met.
    pub refused: u64,
    /// How many were met when they were asked again.
    pub met_later: u64,
    /// The last one that was never met.
    pub last: Option<Refusal>,
}

/// A request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What it would have taken of the device, whole pages where it is large.
    pub requested_bytes: u64,
    /// What was left when it was last asked.
    pub free_bytes: u64,
}

/// What a program has not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotGivenBack {
    /// Memory of the device, beside what the process itself holds.
    pub bytes: u64,
    /// What of it the pool holds.
    pub pool_bytes: u64,
    /// Reserved ranges of addresses.
    pub reservations: usize,
    /// Streams.
    pub streams: usize,
    /// Events.
    pub events: usize,
    /// Graphs, made ready or not.
    pub graphs: usize,
}

/// What one kind of work came to.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkSum {
    /// How often it was done.
    pub calls: u64,
    /// How long it took.
    pub secs: ModelledSecs,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut report = ProcessReport { stopped: true, host_secs: [0.5, 1.0, 2.5], ..ProcessReport::default() };
        report.unsupported.insert("cufftThing".into(), 3);
        let refusals = Refusals { refused: 1, met_later: 2, last: Some(Refusal { requested_bytes: 5, free_bytes: 4 }) };
        report.devices.insert(3, DeviceReport { refusals, peak_operation: Some("linear".into()), ..DeviceReport::default() });
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<ProcessReport>(&text).expect("a report"), report);
    }

    #[test]
    fn what_is_cut_short_or_of_another_version_is_no_report() {
        let text = serde_json::to_string(&ProcessReport::default()).expect("JSON");
        let others = [&text[..text.len() / 2], r#"{"unsupported": {}}"#, &text.replacen('{', r#"{"something_new": 1,"#, 1), ""];
        for other in others {
            assert!(serde_json::from_str::<ProcessReport>(other).is_err(), "{other}");
        }
    }
}
