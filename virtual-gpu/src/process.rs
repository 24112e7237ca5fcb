//! The device of this process: made from the environment when it is first asked for, reported on at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::{env, fs, process};

use serde::Serialize;

use crate::device::{Device, Fault, GpuProfile, Refusals, Trace, lock};
use crate::{ffi, unsupported};

const PROFILE: &str = "LOWMEM_VIRTUAL_GPU";
const QUIET: &str = "LOWMEM_VIRTUAL_GPU_QUIET";
const REPORT: &str = "LOWMEM_VIRTUAL_GPU_REPORT";
const TRACE: &str = "LOWMEM_VIRTUAL_GPU_TRACE";
const MASK_NAME: &str = "LOWMEM_VIRTUAL_GPU_MASK_NAME";
const STRICT: &str = "LOWMEM_VIRTUAL_GPU_STRICT";

static DEVICE: LazyLock<Option<Device>> = LazyLock::new(|| {
    let text = env::var(PROFILE).ok()?;
    match GpuProfile::from_json(&text) {
        Ok(mut profile) => {
            profile.is_masked = is_set(MASK_NAME);
            Some(Device::new(profile, Box::new(ffi::Mapped), trace()))
        }
        Err(error) => {
            eprintln!("lowmem: virtual GPU: {PROFILE} is not a GPU profile, so there is no device: {error}");
            None
        }
    }
});

/// Whether the environment says yes, which is spelt 1.
fn is_set(name: &str) -> bool {
    env::var(name).as_deref() == Ok("1")
}

/// Whether something unsupported shall fail for good.
pub(crate) fn is_strict() -> bool {
    is_set(STRICT)
}

/// The trace that the environment asks for.
fn trace() -> Trace {
    let Some(path) = env::var_os(TRACE) else { return Trace::default() };
    match File::create(&path) {
        Ok(file) => Trace::to(Box::new(BufWriter::new(file))),
        Err(error) => {
            eprintln!("lowmem: virtual GPU: no trace, since {} cannot be written: {error}", path.display());
            Trace::default()
        }
    }
}

/// The device, which may be unused yet.
pub(crate) fn device() -> Result<&'static Device, Fault> {
    DEVICE.as_ref().ok_or(Fault::NoDevice)
}

/// The device by ordinal: there is one, 0.
pub(crate) fn device_at(ordinal: i32) -> Result<&'static Device, Fault> {
    let device = device()?;
    if ordinal == 0 { Ok(device) } else { Err(Fault::InvalidDevice) }
}

/// The device with its context: for everything that a real one could not do without.
pub(crate) fn active_device() -> Result<&'static Device, Fault> {
    unsupported::check()?;
    let device = device()?;
    if device.activate()? {
        report_at_exit();
        write_growing_report(device);
        if !is_set(QUIET) {
            let gib = device.profile.memory_bytes.value as f64 / f64::from(1 << 30);
            eprintln!("lowmem: virtual GPU \"{}\" ({gib:.1} GiB): memory is accounted for, nothing is computed", device.profile.name);
        }
    }
    Ok(device)
}

/// Counts a library call that would have run kernels.
pub(crate) fn launched() {
    if let Ok(device) = active_device() {
        device.counters.launched(1);
    }
}

/// Hands on what became of a request for device memory, once the report knows of it.
pub(crate) fn noted<T>(device: &Device, result: Result<T, Fault>) -> Result<T, Fault> {
    write_growing_report(device);
    result
}

#[derive(Serialize)]
struct Report {
    unsupported: BTreeMap<String, u64>,
    /// Whether one of them made everything fail that came after it.
    stopped: bool,
    pinned_peak_bytes: u64,
    /// Those that were used, by ordinal.
    devices: BTreeMap<usize, DeviceReport>,
}

#[derive(Serialize)]
struct DeviceReport {
    peak_device_bytes: u64,
    context_bytes: u64,
    memory_bytes: u64,
    h2d_bytes: u64,
    d2h_bytes: u64,
    kernel_launches: u64,
    /// Requests for memory that failed.
    refusals: Refusals,
}

impl DeviceReport {
    fn of(device: &Device) -> Self {
        Self {
            peak_device_bytes: device.used_and_peak_bytes().1,
            context_bytes: device.profile.context_bytes.value,
            memory_bytes: device.profile.memory_bytes.value,
            h2d_bytes: device.counters.h2d_bytes(),
            d2h_bytes: device.counters.d2h_bytes(),
            kernel_launches: device.counters.kernel_launches(),
            refusals: device.refusals(),
        }
    }
}

/// The process that the device was first used in: a forked child inherits the state and must not write over the report.
static OWNER: LazyLock<u32> = LazyLock::new(process::id);

/// Has the report and the end of the trace written when the process ends. Only a process that used the device or met
/// something unsupported writes them: with `LD_PRELOAD` the library is in every shell around it too.
pub(crate) fn report_at_exit() {
    static ARRANGED: AtomicBool = AtomicBool::new(false);
    let is_wanted = [REPORT, TRACE].iter().any(|name| env::var_os(name).is_some());
    if is_wanted && !ARRANGED.swap(true, Ordering::Relaxed) {
        LazyLock::force(&OWNER);
        ffi::at_exit(report_at_end);
    }
}

extern "C" fn report_at_end() {
    write_report();
    if let (Ok(device), true) = (device(), *OWNER == process::id()) {
        device.trace.flush();
    }
}

/// The file that the report goes to: the one that is named, or one of this process's own in the folder that is named.
fn report_file() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(REPORT)?);
    Some(if path.is_dir() { path.join(format!("{}.json", process::id())) } else { path })
}

/// Writes the report where it has a folder, each time that a device holds more than before: many kinds of processes end without the chance
/// to write one. In a file alone it is written once, since a sweep has no use for more.
fn write_growing_report(device: &Device) {
    static IN_A_FOLDER: LazyLock<bool> = LazyLock::new(|| env::var_os(REPORT).is_some_and(|path| PathBuf::from(path).is_dir()));
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if *IN_A_FOLDER {
        // Peaks and refusals only grow, so their sum says whether anything is new.
        let refusals = device.refusals();
        let state = device.used_and_peak_bytes().1 + refusals.refused + refusals.met_later;
        if WRITTEN.swap(state, Ordering::Relaxed) != state {
            write_report();
        }
    }
}

/// Writes the report where one is wanted.
pub(crate) fn write_report() {
    static WRITING: Mutex<()> = Mutex::new(());
    let Some(path) = report_file() else { return };
    if *OWNER != process::id() {
        return;
    }
    let devices = device().ok().into_iter().enumerate().filter(|(_, device)| device.is_active());
    let report = Report {
        unsupported: unsupported::calls(),
        stopped: unsupported::check().is_err(),
        pinned_peak_bytes: device().map_or(0, Device::pinned_peak_bytes),
        devices: devices.map(|(ordinal, device)| (ordinal, DeviceReport::of(device))).collect(),
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
