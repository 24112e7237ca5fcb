//! What the processes on the same devices hold. Where the report goes to a folder, each process keeps a file in it that says so, eight bytes a device, as long as it
//! lives; without a folder a process knows only itself. Nothing but NVML looks at it: memory runs out by a process's own books.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;

use crate::device::Device;
use crate::process::report_folder;

const ENTRY_BYTES: u64 = size_of::<u64>() as u64;
const EXTENSION: &str = "memory";

fn file_of(process: u32) -> Option<PathBuf> {
    Some(report_folder()?.join(format!("{process}.{EXTENSION}")))
}

/// Has what this process holds of the device written down, now and whenever it changes.
pub(crate) fn publish(device: &Device) {
    let this = process::id();
    let Some(file) = file_of(this).and_then(|path| OpenOptions::new().write(true).create(true).truncate(false).open(path).ok()) else {
        return;
    };
    let place = u64::from(device.ordinal) * ENTRY_BYTES;
    device.watch_memory(Box::new(move |bytes| {
        // A forked child has the books and the file of its parent, and must leave both alone.
        if process::id() == this {
            // A folder that is gone is nobody's loss.
            let _ = file.write_all_at(&bytes.to_ne_bytes(), place);
        }
    }));
}

/// This process holds nothing any more.
pub(crate) fn withdraw() {
    if let Some(path) = file_of(process::id()) {
        let _ = fs::remove_file(path);
    }
}

/// Which processes hold how much of the device, in the order of their ids.
pub(crate) fn holders(device: &Device) -> Vec<(u32, u64)> {
    let this = process::id();
    let entries = report_folder().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|it| it == EXTENSION));
    let others = paths.filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)));
    let others = others.filter(|&(process, _)| process != this && is_alive(process));
    let mut found: Vec<(u32, u64)> = others.filter_map(|(process, path)| Some((process, held(&path, device.ordinal)?))).collect();
    if device.is_active() {
        found.push((this, device.used_and_peak_bytes().0));
    }
    found.sort_unstable();
    found
}

/// What stands in the file of a process; none where it never used the device.
fn held(path: &PathBuf, ordinal: u32) -> Option<u64> {
    let mut bytes = [0; ENTRY_BYTES as usize];
    File::open(path).ok()?.read_exact_at(&mut bytes, u64::from(ordinal) * ENTRY_BYTES).ok()?;
    Some(u64::from_ne_bytes(bytes)).filter(|&bytes| bytes > 0)
}

/// One that was killed left its file behind, and may wait for its parent to look at its end (`Z`).
fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}
