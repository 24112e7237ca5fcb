//! The report of this process: what the devices were asked for, which is written when the process ends, and in a folder of reports whenever a device holds more than before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::{fs, process};

use virtual_gpu_protocol::{DeviceReport, ProcessReport};

use crate::decisions::all_decided;
use crate::device::{Device, Fault, lock};
use crate::environment::{report_file, report_folder, wants_files};
use crate::ffi::at_exit;
use crate::handle_table::handles_left;
use crate::machine::{all_devices, host_clock};
use crate::neighbours;
use crate::operations::{holds_score_matrix, running_operation};
use crate::unsupported_calls;

/// The peak of a device so far, to within a hundredth.
#[derive(Default)]
struct Peak {
    bytes: u64,
    /// What reached it, where that is known.
    operation: Option<String>,
    /// Whether that was attention with a score matrix, or an allocation of it failed.
    has_score_matrix: bool,
}

/// That of each device.
static PEAKS: Mutex<BTreeMap<u32, Peak>> = Mutex::new(BTreeMap::new());

/// How the program knows a device.
#[derive(Clone, Copy, Default)]
struct Known {
    number: u32,
    asked_free: bool,
}

/// That of each device.
static KNOWN: Mutex<BTreeMap<u32, Known>> = Mutex::new(BTreeMap::new());

/// The program knows the device by that number.
pub(crate) fn numbered(device: &Device, number: u32) {
    lock(&KNOWN).entry(device.ordinal).or_default().number = number;
}

/// The program asked how much memory of the device is free. Where memory has just run out it is PyTorch that asks, for its message.
pub(crate) fn asked_free(device: &Device) {
    lock(&KNOWN).entry(device.ordinal).or_default().asked_free |= !device.has_just_refused();
}

/// The process that the device was first used in: a forked child inherits the state and must not write over the report.
static OWNER: LazyLock<u32> = LazyLock::new(process::id);

/// Hands on what became of a request for device memory, once the report knows of it.
pub(crate) fn noted<T>(device: &Device, result: Result<T, Fault>) -> Result<T, Fault> {
    let peak = device.used_and_peak_bytes().1;
    let mut peaks = lock(&PEAKS);
    let known = peaks.entry(device.ordinal).or_default();
    // What adds a little to what another one took says nothing.
    if peak > known.bytes + known.bytes / 100 {
        *known = Peak { bytes: peak, operation: running_operation(), has_score_matrix: holds_score_matrix() };
    }
    known.has_score_matrix |= matches!(result, Err(Fault::OutOfMemory)) && holds_score_matrix();
    drop(peaks);
    write_growing(device);
    result
}

fn report_of(device: &Device) -> DeviceReport {
    let (busy, stalled, end, work) = {
        let clock = device.clock();
        (clock.busy(), clock.stalled(), clock.end(), clock.sums())
    };
    let (process_bytes, process_use) = device.process_at_peak();
    let (peak_operation, has_score_matrix) =
        lock(&PEAKS).get(&device.ordinal).map(|peak| (peak.operation.clone(), peak.has_score_matrix)).unwrap_or_default();
    let known = lock(&KNOWN).get(&device.ordinal).copied().unwrap_or_default();
    DeviceReport {
        number: known.number,
        asked_free: known.asked_free,
        peak_device_bytes: device.used_and_peak_bytes().1,
        peak_operation,
        has_score_matrix,
        process_bytes,
        process_use,
        memory_bytes: device.profile.memory_bytes.value,
        h2d_bytes: device.counters.h2d_bytes(),
        d2h_bytes: device.counters.d2h_bytes(),
        kernel_launches: device.counters.kernel_launches(),
        values_read: device.counters.values_read(),
        values_read_by: device.counters.values_read_by(),
        refusals: device.refusals(),
        left: device.not_given_back(),
        busy_secs: busy.map(|span| span.0),
        copy_stall_secs: stalled.0,
        end_secs: end.0,
        work,
        products: device.counters.products(),
    }
}

/// Has the report and the end of the trace written when the process ends. Only a process that used the device or met
/// something unsupported writes them: with `LD_PRELOAD` the library is in every shell around it too.
pub(crate) fn write_at_exit() {
    static ARRANGED: AtomicBool = AtomicBool::new(false);
    if wants_files() && !ARRANGED.swap(true, Ordering::Relaxed) {
        LazyLock::force(&OWNER);
        at_exit(write_at_end);
    }
}

extern "C" fn write_at_end() {
    write();
    neighbours::withdraw();
    if let (Some(device), true) = (all_devices().first(), *OWNER == process::id()) {
        device.trace.flush();
        device.timeline.flush();
    }
}

/// Writes the report where it has a folder, each time that a device holds more than before: many kinds of processes end without the chance
/// to write one. In a file alone it is written once, since a sweep has no use for more.
pub(crate) fn write_growing(device: &Device) {
    static WRITTEN: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());
    if report_folder().is_some() {
        // Peaks and refusals only grow, so that their sum says whether anything is new.
        let refusals = device.refusals();
        let state = device.used_and_peak_bytes().1 + refusals.refused + refusals.met_later;
        if lock(&WRITTEN).insert(device.ordinal, state) != Some(state) {
            write();
        }
    }
}

/// Writes the report where one is wanted.
pub(crate) fn write() {
    static WRITING: Mutex<()> = Mutex::new(());
    let Some(path) = report_file() else { return };
    if *OWNER != process::id() {
        return;
    }
    let devices = all_devices();
    let (pinned_left_bytes, pinned_peak_bytes) = devices.first().map(Device::pinned_and_peak_bytes).unwrap_or_default();
    let report = ProcessReport {
        unsupported: unsupported_calls::calls(),
        decided: all_decided(),
        stopped: unsupported_calls::check().is_err(),
        pinned_peak_bytes,
        pinned_left_bytes,
        host_refusals: devices.first().map(|device| device.counters.host_refusals()).unwrap_or_default(),
        handles_left: handles_left(),
        host_secs: host_clock().now().0,
        devices: devices.iter().filter(|device| device.is_active()).map(|device| (device.ordinal, report_of(device))).collect(),
    };
    let _one_at_a_time = lock(&WRITING);
    // In one step, so that a reader or a kill in the middle never leaves half a file.
    let mut draft = path.clone().into_os_string();
    draft.push(format!(".{}", process::id()));
    let written =
        serde_json::to_vec(&report).map_err(Into::into).and_then(|json| fs::write(&draft, json)).and_then(|()| fs::rename(&draft, &path));
    if let Err(error) = written {
        eprintln!("lowmem: virtual GPU: the report {} could not be written: {error}", path.display());
    }
}
