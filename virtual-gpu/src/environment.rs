//! What the environment asks for: see `virtual_gpu_protocol::environment` for the names.

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use virtual_gpu_protocol::environment::{
    BEYOND, COUNT, EVENTS, HANG, MASK_NAME, MOST_DEVICES, PATIENCE, PINNED_LIMIT, PROFILE, QUIET, RANKS, REPORT, SENSORS, STRICT, TIMELINE,
    TRACE,
};
use virtual_gpu_protocol::{GpuProfile, Sensors};

use crate::device::{EventOrder, Logs, Timeline, Trace, read_profile};

/// CUDA's own variable.
const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// A minute.
const DEFAULT_PATIENCE_SECS: u64 = 60;

/// Whether the environment says yes, which is spelt 1.
fn is_set(name: &str) -> bool {
    env::var(name).as_deref() == Ok("1")
}

/// Whether something unsupported shall fail for good.
pub(crate) fn is_strict() -> bool {
    is_set(STRICT)
}

/// Whether the banner stays away.
pub(crate) fn is_quiet() -> bool {
    is_set(QUIET)
}

/// Whether a device goes on where its memory is at an end.
pub(crate) fn goes_beyond() -> bool {
    is_set(BEYOND)
}

/// Whether devices go by the real GPU's name.
pub(crate) fn masks_name() -> bool {
    is_set(MASK_NAME)
}

/// What kind of GPU there is, if any.
pub(crate) fn profile() -> Option<GpuProfile> {
    let text = env::var(PROFILE).ok()?;
    read_profile(&text)
        .inspect_err(|error| eprintln!("lowmem: virtual GPU: {PROFILE} is not a GPU profile, so there is no device: {error}"))
        .ok()
}

/// What NVML is to tell of sensors, where that is said.
pub(crate) fn sensors() -> &'static Sensors {
    static GIVEN: LazyLock<Sensors> = LazyLock::new(|| {
        let given = env::var(SENSORS).ok().map(|text| serde_json::from_str(&text));
        given.unwrap_or_else(|| Ok(Sensors::default())).unwrap_or_else(|error| {
            eprintln!("lowmem: virtual GPU: {SENSORS} is not what NVML can tell, so devices have no sensors: {error}");
            Sensors::default()
        })
    });
    &GIVEN
}

/// How much the host page-locks at most, where that is said.
pub(crate) fn pinned_limit() -> Option<u64> {
    let text = env::var(PINNED_LIMIT).ok()?;
    text.parse().inspect_err(|_| eprintln!("lowmem: virtual GPU: {PINNED_LIMIT}={text} is no number of bytes, so there is no limit")).ok()
}

/// The file with which a device hangs, where one is named.
pub(crate) fn hang() -> Option<PathBuf> {
    env::var_os(HANG).map(PathBuf::from)
}

/// For how long a program may read values before it is told that they mean nothing.
pub(crate) fn patience() -> Duration {
    static SECS: LazyLock<u64> =
        LazyLock::new(|| env::var(PATIENCE).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_PATIENCE_SECS));
    Duration::from_secs(*SECS)
}

/// How many devices there are.
pub(crate) fn count() -> u32 {
    let Ok(text) = env::var(COUNT) else { return 1 };
    text.parse().ok().filter(|count| (1..=MOST_DEVICES).contains(count)).unwrap_or_else(|| {
        eprintln!("lowmem: virtual GPU: {COUNT}={text} is no number from 1 to {MOST_DEVICES}, so there is one device");
        1
    })
}

/// Which devices the program is to see, where that is said.
pub(crate) fn visible_devices() -> Option<String> {
    env::var(VISIBLE_DEVICES).ok()
}

/// When events count as passed.
pub(crate) fn event_order() -> EventOrder {
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

/// Where the devices are to write down what they do.
pub(crate) fn logs() -> Logs {
    Logs {
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

/// Whether anything is to be written when the process ends.
pub(crate) fn wants_files() -> bool {
    [REPORT, TRACE, TIMELINE].iter().any(|name| env::var_os(name).is_some())
}

/// Whether there is to be a report.
pub(crate) fn is_reported() -> bool {
    static IS_REPORTED: LazyLock<bool> = LazyLock::new(|| env::var_os(REPORT).is_some());
    *IS_REPORTED
}

/// The file that the report goes to: the one that is named, or one of this process's own in the folder that is named.
pub(crate) fn report_file() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(REPORT)?);
    Some(report_folder().map_or(path, |folder| folder.join(format!("{}.json", process::id()))))
}

/// The folder in which ranks meet, where one is named.
pub(crate) fn ranks_folder() -> Option<&'static PathBuf> {
    static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os(RANKS).map(PathBuf::from));
    FOLDER.as_ref()
}

/// The folder that the reports of all processes go to, where it is one.
pub(crate) fn report_folder() -> Option<&'static PathBuf> {
    static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os(REPORT).map(PathBuf::from).filter(|path| path.is_dir()));
    FOLDER.as_ref()
}
