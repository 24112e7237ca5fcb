//! The device of this process: made from the environment when it is first asked for, reported on at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::{env, fs, process};

use serde::Serialize;

use crate::device::{Device, Fault, GpuProfile, Trace, lock};
use crate::{ffi, unsupported};

const PROFILE: &str = "LOWMEM_VIRTUAL_GPU";
const QUIET: &str = "LOWMEM_VIRTUAL_GPU_QUIET";
const REPORT: &str = "LOWMEM_VIRTUAL_GPU_REPORT";
const TRACE: &str = "LOWMEM_VIRTUAL_GPU_TRACE";

static DEVICE: LazyLock<Option<Device>> = LazyLock::new(|| {
    let text = env::var(PROFILE).ok()?;
    match GpuProfile::from_json(&text) {
        Ok(profile) => Some(Device::new(profile, Box::new(ffi::Mapped), trace())),
        Err(error) => {
            eprintln!("lowmem: virtual GPU: {PROFILE} is not a GPU profile, so there is no device: {error}");
            None
        }
    }
});

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
    let device = device()?;
    if device.activate()? {
        report_at_exit();
        if env::var(QUIET).as_deref() != Ok("1") {
            let gib = device.profile.memory_bytes.value as f64 / f64::from(1 << 30);
            eprintln!("lowmem: virtual GPU \"{}\" ({gib:.1} GiB): memory is accounted for, nothing is computed", device.profile.name);
        }
    }
    Ok(device)
}

/// Counts a library call that would have run kernels.
pub(crate) fn launched() {
    if let Ok(device) = active_device() {
        device.counters.launched();
    }
}

#[derive(Serialize)]
struct Report {
    unsupported: BTreeMap<String, u64>,
    peak_device_bytes: u64,
    memory_bytes: u64,
    pinned_peak_bytes: u64,
    h2d_bytes: u64,
    d2h_bytes: u64,
    kernel_launches: u64,
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

/// Writes the report where one is wanted.
pub(crate) fn write_report() {
    static WRITING: Mutex<()> = Mutex::new(());
    let Some(path) = env::var_os(REPORT) else { return };
    if *OWNER != process::id() {
        return;
    }
    let device = device().ok();
    let report = Report {
        unsupported: unsupported::calls(),
        peak_device_bytes: device.map_or(0, |device| device.used_and_peak_bytes().1),
        memory_bytes: device.map_or(0, |device| device.profile.memory_bytes.value),
        pinned_peak_bytes: device.map_or(0, Device::pinned_peak_bytes),
        h2d_bytes: device.map_or(0, |device| device.counters.h2d_bytes()),
        d2h_bytes: device.map_or(0, |device| device.counters.d2h_bytes()),
        kernel_launches: device.map_or(0, |device| device.counters.kernel_launches()),
    };
    let _one_at_a_time = lock(&WRITING);
    // In one step, so that a reader or a kill in the middle never leaves half a file.
    let mut draft = path.clone();
    draft.push(format!(".{}", process::id()));
    let written =
        serde_json::to_vec(&report).map_err(Into::into).and_then(|json| fs::write(&draft, json)).and_then(|()| fs::rename(&draft, &path));
    if let Err(error) = written {
        eprintln!("lowmem: virtual GPU: the report {} could not be written: {error}", path.display());
    }
}
