//! What the processes on the same devices hold and what use they put them to. Where the report goes to a folder, each process keeps a file in it that says so, as
//! long as it lives; without a folder a process knows only itself. Nothing but NVML looks at it: memory runs out by a process's own books.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use virtual_gpu_protocol::environment::MOST_DEVICES;

use crate::device::{Device, Usage};
use crate::environment::report_folder;
use crate::ffi::shared_numbers;

const EXTENSION: &str = "use";

/// Of a device: the bytes that are held, how long it computed, bytes read and written, and how long it could have computed. The last three as `f64`.
const NUMBERS: usize = 4;

fn file_of(process: u32) -> Option<PathBuf> {
    Some(report_folder()?.join(format!("{process}.{EXTENSION}")))
}

/// Has what this process holds of the device, and what use it puts it to, written down now and whenever it changes.
pub(crate) fn publish(device: &Device) {
    static ALL: OnceLock<Option<&[AtomicU64]>> = OnceLock::new();
    let this = process::id();
    // A folder that is gone or full is nobody's loss.
    let Some(all) = ALL.get_or_init(|| shared_numbers(&file_of(this)?, MOST_DEVICES as usize * NUMBERS).ok()) else { return };
    let Some([held, usage @ ..]) = all.chunks_exact(NUMBERS).nth(device.ordinal as usize) else { return };
    // A forked child has the books and the file of its parent, and must leave both alone.
    let is_ours = move || process::id() == this;
    device.watch_memory(Box::new(move |bytes| {
        if is_ours() {
            held.store(bytes, Ordering::Relaxed);
        }
    }));
    device.clock().watch(Box::new(move |Usage { compute_secs, bytes, secs }| {
        if is_ours() {
            usage.iter().zip([compute_secs, bytes, secs]).for_each(|(place, number)| place.store(number.to_bits(), Ordering::Relaxed));
        }
    }));
}

/// This process holds nothing any more.
pub(crate) fn withdraw() {
    if let Some(path) = file_of(process::id()) {
        let _ = fs::remove_file(path);
    }
}

/// What a process does with a device.
struct ProcessUse {
    process: u32,
    held_bytes: u64,
    usage: Usage,
}

/// Which processes hold how much of the device, in the order of their ids.
pub(crate) fn holders(device: &Device) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = uses(device).iter().map(|used| (used.process, used.held_bytes)).collect();
    found.sort_unstable();
    found
}

/// What share of the time the device computes, and what share its memory is read or written, since it was first used. Each process has the device to itself and a
/// clock of its own: their work is taken together, as if all of them had begun at the same time.
pub(crate) fn utilization(device: &Device) -> [f64; 2] {
    let uses = uses(device);
    let secs = uses.iter().map(|used| used.usage.secs).fold(0.0, f64::max);
    let sum = |of: fn(&Usage) -> f64| uses.iter().map(|used| of(&used.usage)).sum::<f64>();
    let moving = device.rates.full_bandwidth(sum(|usage| usage.bytes));
    [sum(|usage| usage.compute_secs), moving].map(|busy| if secs > 0.0 { (busy / secs).min(1.0) } else { 0.0 })
}

fn uses(device: &Device) -> Vec<ProcessUse> {
    let this = process::id();
    let entries = report_folder().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|it| it == EXTENSION));
    let others = paths.filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)));
    let others = others.filter(|&(process, _)| process != this && is_alive(process));
    let mut found: Vec<ProcessUse> = others.filter_map(|(process, path)| published(process, &path, device.ordinal)).collect();
    if device.is_active() {
        found.push(ProcessUse { process: this, held_bytes: device.used_and_peak_bytes().0, usage: device.clock().usage() });
    }
    found
}

/// What stands in the file of a process; none where it never used the device.
fn published(process: u32, path: &PathBuf, ordinal: u32) -> Option<ProcessUse> {
    const BYTES: usize = size_of::<u64>();
    let mut bytes = [0; NUMBERS * BYTES];
    let place = u64::from(ordinal) * bytes.len() as u64;
    File::open(path).ok()?.read_exact_at(&mut bytes, place).ok()?;
    let mut numbers = bytes.chunks_exact(BYTES).filter_map(|number| Some(u64::from_ne_bytes(number.try_into().ok()?)));
    let held_bytes = numbers.next().filter(|&bytes| bytes > 0)?;
    let mut secs = numbers.map(f64::from_bits);
    let usage = Usage { compute_secs: secs.next()?, bytes: secs.next()?, secs: secs.next()? };
    Some(ProcessUse { process, held_bytes, usage })
}

/// One that was killed left its file behind, and may wait for its parent to look at its end (`Z`).
fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}
