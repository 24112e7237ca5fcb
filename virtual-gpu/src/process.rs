//! The devices of this process: made from the environment when they are first asked for, reported on at the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::{env, fs, process};

use serde::Serialize;

use crate::device::{
    Clock, Device, EventOrder, Fault, GpuProfile, Handles, HostClock, Left, Owner, Records, Refusals, Span, Tally, Timeline, Trace, Work,
    lock,
};
use crate::{cublas, cublaslt, cudnn, cufft, cusolver, cusparse, driver, ffi, nccl, neighbours, nvrtc, observer, unsupported};

const PROFILE: &str = "LOWMEM_VIRTUAL_GPU";
const QUIET: &str = "LOWMEM_VIRTUAL_GPU_QUIET";
const REPORT: &str = "LOWMEM_VIRTUAL_GPU_REPORT";
const TRACE: &str = "LOWMEM_VIRTUAL_GPU_TRACE";
const MASK_NAME: &str = "LOWMEM_VIRTUAL_GPU_MASK_NAME";
const STRICT: &str = "LOWMEM_VIRTUAL_GPU_STRICT";
const TIMELINE: &str = "LOWMEM_VIRTUAL_GPU_TIMELINE";
const EVENTS: &str = "LOWMEM_VIRTUAL_GPU_EVENTS";
const COUNT: &str = "LOWMEM_VIRTUAL_GPU_COUNT";
/// CUDA's own variable.
const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";
/// As many as PyTorch can tell apart.
pub(crate) const MOST_DEVICES: u32 = 64;

/// The devices of the machine, all of one kind.
static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
    let Ok(text) = env::var(PROFILE) else { return Vec::new() };
    match GpuProfile::from_json(&text) {
        Ok(mut profile) => {
            profile.is_masked = is_set(MASK_NAME);
            let (records, order) = (records(), event_order());
            let clock = || Clock::new(Arc::clone(&HOST_CLOCK), order);
            (0..count()).map(|ordinal| Device::new(profile.clone(), ordinal, Box::new(ffi::Mapped), records.clone(), clock())).collect()
        }
        Err(error) => {
            eprintln!("lowmem: virtual GPU: {PROFILE} is not a GPU profile, so there is no device: {error}");
            Vec::new()
        }
    }
});

/// How far the program has come.
static HOST_CLOCK: LazyLock<Arc<HostClock>> = LazyLock::new(Arc::default);

/// Those that the program sees, in its order.
static VISIBLE: LazyLock<Vec<&'static Device>> = LazyLock::new(|| match env::var(VISIBLE_DEVICES) {
    Ok(list) => visible(&list).into_iter().map(|ordinal| &DEVICES[ordinal]).collect(),
    Err(_) => DEVICES.iter().collect(),
});

thread_local! {
    /// The device of this thread, among those that the program sees.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn count() -> u32 {
    let Ok(text) = env::var(COUNT) else { return 1 };
    text.parse().ok().filter(|count| (1..=MOST_DEVICES).contains(count)).unwrap_or_else(|| {
        eprintln!("lowmem: virtual GPU: {COUNT}={text} is no number from 1 to {MOST_DEVICES}, so there is one device");
        1
    })
}

/// `CUDA_VISIBLE_DEVICES`: numbers or UUIDs, up to the first that names no device.
fn visible(list: &str) -> Vec<usize> {
    let by_name = |name: &str| DEVICES.iter().position(|device| name.len() > 4 && uuid_text(device).starts_with(name));
    let named = |name: &str| name.parse().ok().filter(|&ordinal| ordinal < DEVICES.len()).or_else(|| by_name(name));
    list.split(',').map_while(|name| named(name.trim())).collect()
}

/// The UUID as NVML spells it.
pub(crate) fn uuid_text(device: &Device) -> String {
    let hex: String = device.uuid().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Whether the environment says yes, which is spelt 1.
fn is_set(name: &str) -> bool {
    env::var(name).as_deref() == Ok("1")
}

/// Whether something unsupported shall fail for good.
pub(crate) fn is_strict() -> bool {
    is_set(STRICT)
}

/// What the environment asks to have written down.
fn records() -> Records {
    Records {
        trace: Arc::new(writer(TRACE, "trace").map_or_else(Trace::default, Trace::to)),
        timeline: Arc::new(writer(TIMELINE, "timeline").map_or_else(Timeline::default, Timeline::to)),
    }
}

/// The file that the variable `name` names, for a `what`.
fn writer(name: &str, what: &str) -> Option<Box<dyn Write + Send>> {
    let path = env::var_os(name)?;
    match File::create(&path) {
        Ok(file) => Some(Box::new(BufWriter::new(file))),
        Err(error) => {
            eprintln!("lowmem: virtual GPU: no {what}, since {} cannot be written: {error}", path.display());
            None
        }
    }
}

/// When events count as passed.
fn event_order() -> EventOrder {
    match env::var(EVENTS).as_deref() {
        Ok("eager") => EventOrder::Eager,
        Ok("lazy") => EventOrder::Lazy,
        Ok("clock") | Err(_) => EventOrder::Clock,
        Ok(other) => {
            eprintln!("lowmem: virtual GPU: {EVENTS}={other} is none of clock, eager and lazy, so the clock says when events are passed");
            EventOrder::Clock
        }
    }
}

/// How far the program has come.
pub(crate) fn host_clock() -> &'static HostClock {
    &HOST_CLOCK
}

/// All devices of the machine, whether the program sees them or not.
pub(crate) fn machine() -> Result<&'static [Device], Fault> {
    if DEVICES.is_empty() { Err(Fault::NoDevice) } else { Ok(&DEVICES) }
}

/// How many devices the program sees.
pub(crate) fn device_count() -> i32 {
    VISIBLE.len() as i32
}

/// This thread's device, which may be unused yet.
pub(crate) fn device() -> Result<&'static Device, Fault> {
    VISIBLE.get(CURRENT.get()).copied().ok_or(Fault::NoDevice)
}

/// The number of this thread's device.
pub(crate) fn current() -> Result<i32, Fault> {
    device().map(|_| CURRENT.get() as i32)
}

/// The device of that number.
pub(crate) fn device_at(ordinal: i32) -> Result<&'static Device, Fault> {
    device()?;
    usize::try_from(ordinal).ok().and_then(|ordinal| VISIBLE.get(ordinal).copied()).ok_or(Fault::InvalidDevice)
}

/// Makes that device this thread's, with its context.
pub(crate) fn set_current(ordinal: i32) -> Result<(), Fault> {
    activate(device_at(ordinal)?)?;
    CURRENT.set(ordinal as usize);
    Ok(())
}

/// The number that the program knows a device by.
pub(crate) fn number_of(device: &Device) -> i32 {
    VISIBLE.iter().position(|other| other.ordinal == device.ordinal).unwrap_or_default() as i32
}

/// The device that a stream, an event or another handle belongs to; this thread's for the streams that every device has.
pub(crate) fn device_of(handle: u64) -> Result<&'static Device, Fault> {
    unsupported::check()?;
    match Handles::device_of(handle) {
        Some(ordinal) => machine()?.get(ordinal as usize).ok_or(Fault::InvalidHandle),
        None => active_device(),
    }
}

/// The device for which `holds` is true; this thread's where there is none, which then says what is wrong.
pub(crate) fn device_that(holds: impl Fn(&Device) -> bool) -> Result<&'static Device, Fault> {
    let this = active_device()?;
    Ok(if holds(this) { this } else { DEVICES.iter().find(|device| holds(device)).unwrap_or(this) })
}

/// Where the host's page-locked memory is kept track of: it is the process's, whichever device it was made for.
pub(crate) fn host() -> Result<&'static Device, Fault> {
    active_device()?;
    machine().map(|devices| &devices[0])
}

/// What the address belongs to, and on which device.
pub(crate) fn owner_of(address: u64) -> Result<(&'static Device, Owner), Fault> {
    let device = device_that(|device| device.owner_of(address) != Owner::Unregistered)?;
    Ok((device, device.owner_of(address)))
}

/// This thread's device with its context: for everything that a real one could not do without.
pub(crate) fn active_device() -> Result<&'static Device, Fault> {
    activate(device()?)
}

/// The device with its context.
pub(crate) fn activate(device: &'static Device) -> Result<&'static Device, Fault> {
    unsupported::check()?;
    if device.activate()? {
        report_at_exit();
        write_growing_report(device);
        neighbours::publish(device);
        static SAID: AtomicBool = AtomicBool::new(false);
        if !is_set(QUIET) && !SAID.swap(true, Ordering::Relaxed) {
            let gib = device.profile.memory_bytes.value as f64 / f64::from(1 << 30);
            eprintln!("lowmem: virtual GPU \"{}\" ({gib:.1} GiB): memory is accounted for, nothing is computed", device.profile.name);
        }
    }
    Ok(device)
}

/// Puts work on a stream of this thread's device.
pub(crate) fn launch(stream: u64, work: Work) -> Result<(), Fault> {
    launch_on(active_device()?, stream, work)
}

/// Puts work on a stream of that device.
pub(crate) fn launch_on(device: &'static Device, stream: u64, work: Work) -> Result<(), Fault> {
    let begins = device.launch(stream, work)?;
    observer::launched(device, stream, work, begins);
    Ok(())
}

/// Counts a library call that would have run kernels, on a stream that is not known here.
pub(crate) fn launched() {
    let _ = launch(0, Work::UNKNOWN);
}

/// Hands on what became of a request for device memory, once the report knows of it.
pub(crate) fn noted<T>(device: &Device, result: Result<T, Fault>) -> Result<T, Fault> {
    let peak = device.used_and_peak_bytes().1;
    let mut peaks = lock(&PEAKS);
    let known = peaks.entry(device.ordinal).or_default();
    // What adds a little to what another one took says nothing.
    if peak > known.0 + known.0 / 100 {
        *known = (peak, observer::running_operation());
    }
    drop(peaks);
    write_growing_report(device);
    result
}

/// The peak of each device so far, to within a hundredth, and the operation that reached it, where that is known.
static PEAKS: Mutex<BTreeMap<u32, (u64, Option<String>)>> = Mutex::new(BTreeMap::new());

#[derive(Serialize)]
struct Report {
    unsupported: BTreeMap<String, u64>,
    /// Whether one of them made everything fail that came after it.
    stopped: bool,
    pinned_peak_bytes: u64,
    /// Page-locked memory that was not given back.
    pinned_left_bytes: u64,
    /// Handles that were not destroyed, by library.
    handles_left: BTreeMap<&'static str, usize>,
    /// How far the program had come, by the clock.
    host_secs: Span,
    /// Those that were used, by ordinal.
    devices: BTreeMap<usize, DeviceReport>,
}

#[derive(Serialize)]
struct DeviceReport {
    peak_device_bytes: u64,
    /// PyTorch's operation that reached it, to within a hundredth, where that is known.
    peak_operation: Option<String>,
    context_bytes: u64,
    memory_bytes: u64,
    h2d_bytes: u64,
    d2h_bytes: u64,
    kernel_launches: u64,
    /// Small copies to the host: values that the program may decide by.
    values_read: u64,
    /// How many of them each of PyTorch's operations read.
    values_read_by: BTreeMap<String, u64>,
    /// Requests for memory that failed.
    refusals: Refusals,
    /// What was not given back.
    left: Left,
    /// How long it computed, copied to the device and copied to the host, by the clock.
    busy_secs: [Span; 3],
    /// How long arithmetic stood still because a copy had not arrived.
    copy_stall_secs: Span,
    /// When it had done all that it was asked for.
    end_secs: Span,
    /// What it did, by kind.
    work: BTreeMap<&'static str, Tally>,
}

impl DeviceReport {
    fn of(device: &Device) -> Self {
        let clock = device.clock();
        Self {
            busy_secs: clock.busy(),
            copy_stall_secs: clock.stalled(),
            end_secs: clock.end(),
            work: clock.tallies(),
            peak_device_bytes: device.used_and_peak_bytes().1,
            peak_operation: lock(&PEAKS).get(&device.ordinal).and_then(|(_, operation)| operation.clone()),
            context_bytes: device.profile.context_bytes.value,
            memory_bytes: device.profile.memory_bytes.value,
            h2d_bytes: device.counters.h2d_bytes(),
            d2h_bytes: device.counters.d2h_bytes(),
            kernel_launches: device.counters.kernel_launches(),
            values_read: device.counters.values_read(),
            values_read_by: device.counters.values_read_by(),
            refusals: device.refusals(),
            left: device.left(),
        }
    }
}

/// Handles that were not destroyed, by library.
fn handles_left() -> BTreeMap<&'static str, usize> {
    let counts = [
        ("cublas", cublas::handles()),
        ("cublaslt", cublaslt::handles()),
        ("cudnn", cudnn::handles()),
        ("cufft", cufft::handles()),
        ("cusolver", cusolver::handles()),
        ("cusparse", cusparse::handles()),
        ("cuda", driver::handles()),
        ("nccl", nccl::handles()),
        ("nvrtc", nvrtc::handles()),
    ];
    counts.into_iter().filter(|&(_, count)| count > 0).collect()
}

/// The process that the device was first used in: a forked child inherits the state and must not write over the report.
static OWNER: LazyLock<u32> = LazyLock::new(process::id);

/// Has the report and the end of the trace written when the process ends. Only a process that used the device or met
/// something unsupported writes them: with `LD_PRELOAD` the library is in every shell around it too.
pub(crate) fn report_at_exit() {
    static ARRANGED: AtomicBool = AtomicBool::new(false);
    let is_wanted = [REPORT, TRACE, TIMELINE].iter().any(|name| env::var_os(name).is_some());
    if is_wanted && !ARRANGED.swap(true, Ordering::Relaxed) {
        LazyLock::force(&OWNER);
        ffi::at_exit(report_at_end);
    }
}

extern "C" fn report_at_end() {
    write_report();
    neighbours::withdraw();
    if let (Some(device), true) = (DEVICES.first(), *OWNER == process::id()) {
        device.trace.flush();
        device.timeline.flush();
    }
}

/// Whether there is to be a report.
pub(crate) fn is_reported() -> bool {
    static IS_REPORTED: LazyLock<bool> = LazyLock::new(|| env::var_os(REPORT).is_some());
    *IS_REPORTED
}

/// The file that the report goes to: the one that is named, or one of this process's own in the folder that is named.
fn report_file() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(REPORT)?);
    Some(report_folder().map_or(path, |folder| folder.join(format!("{}.json", process::id()))))
}

/// The folder that the reports of all processes go to, where it is one.
pub(crate) fn report_folder() -> Option<&'static PathBuf> {
    static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os(REPORT).map(PathBuf::from).filter(|path| path.is_dir()));
    FOLDER.as_ref()
}

/// Writes the report where it has a folder, each time that a device holds more than before: many kinds of processes end without the chance
/// to write one. In a file alone it is written once, since a sweep has no use for more.
fn write_growing_report(device: &Device) {
    static WRITTEN: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());
    if report_folder().is_some() {
        // Peaks and refusals only grow, so that their sum says whether anything is new.
        let refusals = device.refusals();
        let state = device.used_and_peak_bytes().1 + refusals.refused + refusals.met_later;
        if lock(&WRITTEN).insert(device.ordinal, state) != Some(state) {
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
    let devices = DEVICES.iter().enumerate().filter(|(_, device)| device.is_active());
    let (pinned_left_bytes, pinned_peak_bytes) = DEVICES.first().map(Device::pinned_and_peak_bytes).unwrap_or_default();
    let report = Report {
        unsupported: unsupported::calls(),
        stopped: unsupported::check().is_err(),
        pinned_peak_bytes,
        pinned_left_bytes,
        handles_left: handles_left(),
        host_secs: HOST_CLOCK.now(),
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
