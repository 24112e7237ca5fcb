//! What the processes of a program left behind: the virtual GPU's reports, and PyTorch's own counters where a Python process told them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;

use engine_protocol::GpuProfile;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use virtual_gpu_protocol::{DeviceReport, ProcessReport, Refusal};

use super::peak::Peak;
use crate::worker::read_left;

/// What a Python process with PyTorch said.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Torch {
    /// PyTorch's version.
    pub(super) torch: String,
    /// The CUDA version that it is built for; none where it is built without.
    pub(super) cuda: Option<String>,
    devices: BTreeMap<u32, Counted>,
    failed: Option<Failed>,
    /// What was given out at the peak, where it was told.
    #[serde(default)]
    peaks: BTreeMap<u32, Peak>,
    /// The most of the machine's memory that it held.
    #[serde(default)]
    host_peak_bytes: Option<u64>,
    /// Whether it ended since the machine's own memory ran out.
    #[serde(default)]
    lacked_host_memory: bool,
    /// Which devices the program was to see, where that was said.
    pub(super) visible: Option<String>,
    /// Whether it read how much memory a GPU has.
    #[serde(default)]
    asked_size: bool,
    /// The share of each device's memory that it allowed itself, where that is not all.
    #[serde(default)]
    limits: BTreeMap<u32, f64>,
    /// Whether each of its operations told the virtual GPU what it asks for.
    tells_work: bool,
}

impl Torch {
    /// The CUDA version that it is built for, where that is another than the virtual GPU stands in for.
    pub(super) fn foreign_cuda(&self) -> Option<&str> {
        self.cuda.as_deref().filter(|cuda| !CUDA.iter().any(|known| cuda.starts_with(known)))
    }
}

/// The versions of CUDA that the virtual GPU stands in for.
const CUDA: [&str; 2] = ["12.", "13."];

/// Peaks of PyTorch's caching allocator.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Counted {
    pub(super) peak_allocated_bytes: u64,
    pub(super) peak_reserved_bytes: u64,
    /// Allocated, and let go of while a stream was not known to be done with it.
    peak_active_bytes: u64,
}

impl Counted {
    /// What waited for streams at the peak, where that is not next to nothing beside what was reserved.
    fn waiting_bytes(&self) -> Option<u64> {
        let waiting = self.peak_active_bytes.saturating_sub(self.peak_allocated_bytes);
        (waiting > self.peak_reserved_bytes / 100).then_some(waiting)
    }
}

/// The last allocation that PyTorch gave up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Failed {
    device: u32,
    requested_bytes: u64,
    free_bytes: u64,
    /// What lived then.
    allocated_bytes: u64,
    reserved_bytes: u64,
    place: Option<String>,
}

/// One process on one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DeviceUse {
    pub(super) process: u32,
    pub(super) device: u32,
    pub(super) report: DeviceReport,
    /// PyTorch's own counters, where they were told.
    pub(super) counted: Option<Counted>,
    /// The last allocation that PyTorch gave up, where it was told.
    failed: Option<Failed>,
    /// What was given out at the peak, where it was told.
    pub(super) peak: Option<Peak>,
    /// Whether the program asked how much memory there is, or is free: it may decide by that.
    pub(super) asked_memory: bool,
    /// The share of the device's memory that the program allowed itself, where that is not all.
    pub(super) limit: Option<f64>,
    /// Whether all kernels of PyTorch said what they are, so that their time is known.
    pub(super) tells_work: bool,
}

impl DeviceUse {
    /// How much more memory the allocation that failed needed: 0 where there was enough and a limit of the program's own was in the way.
    pub(super) fn missing_bytes(&self) -> Option<u64> {
        self.report.refusals.last.map(|last| last.requested_bytes.saturating_sub(last.free_bytes))
    }

    /// The line that asked for what failed, where it was told.
    pub(super) fn place(&self) -> Option<&str> {
        self.failed.as_ref()?.place.as_deref()
    }

    /// What PyTorch had reserved and not given out when memory ran out, where that is not next to nothing.
    pub(super) fn unused_bytes(&self) -> Option<u64> {
        let failed = self.failed.as_ref()?;
        let unused = failed.reserved_bytes.saturating_sub(failed.allocated_bytes);
        (unused > failed.reserved_bytes / 100).then_some(unused)
    }

    /// What lived at the same time, as far as that is known, with what was asked for in vain. Without PyTorch's counters it is not known what of
    /// the device's memory was a cache.
    pub(super) fn live_bytes(&self) -> u64 {
        let peak = self.counted.map_or(0, |counted| counted.peak_allocated_bytes);
        let asked = match &self.failed {
            Some(failed) => failed.allocated_bytes.saturating_add(failed.requested_bytes),
            None => self.report.refusals.last.map_or(0, |last| last.requested_bytes),
        };
        // A limit of the program's own was in the way where nothing is missing.
        if self.missing_bytes().is_some_and(|missing| missing > 0) { peak.max(asked) } else { peak }
    }

    /// What it allocated.
    fn held_bytes(&self) -> u64 {
        self.report.peak_device_bytes.saturating_sub(self.report.process_bytes)
    }

    /// What it needs of a GPU of that kind.
    fn needed_bytes(&self, profile: &GpuProfile) -> u64 {
        self.held_bytes().saturating_add(profile.process_bytes(self.report.process_use))
    }
}

/// What all processes of a program needed.
#[derive(Debug, Default, PartialEq)]
pub(in crate::commands) struct Need {
    /// By process and device.
    pub(super) uses: Vec<DeviceUse>,
    /// Calls that the virtual GPU does not support, and how often each was made.
    pub(super) unsupported: BTreeMap<String, u64>,
    /// What was decided in the place of values that nobody computed, and how often.
    pub(super) decided: BTreeMap<String, u64>,
    /// Whether one of them made everything fail that came after it.
    pub(super) stopped: bool,
    /// Reports that were left and cannot be read, and why: what is known lacks what stands in them.
    pub(in crate::commands) unreadable: Vec<String>,
    /// The most page-locked memory of the machine, over all processes.
    pub(super) pinned_peak_bytes: u64,
    /// The most of the machine's memory that each process held, where it was told or seen.
    pub(super) host_peaks: BTreeMap<u32, u64>,
    /// Whether a process said that the machine's own memory ran out.
    told_of_host_memory: bool,
    /// Whether a request for page-locked memory failed.
    lacked_page_locked: bool,
    /// Whether the kernel ended a process of the machine meanwhile since its memory ran out.
    pub(super) kernel_killed: bool,
    /// A PyTorch that was met, whether it used the GPU or not.
    pub(super) torch: Option<Torch>,
}

impl Need {
    /// Reads all reports in the folder.
    pub(super) fn read(folder: &Path) -> Self {
        let mut need = Self::default();
        for process in processes(folder) {
            let report: ProcessReport = need.read_file(&folder.join(format!("{process}.json"))).unwrap_or_default();
            let torch: Option<Torch> = need.read_file(&folder.join(format!("{process}.torch.json")));
            need.stopped |= report.stopped;
            need.pinned_peak_bytes += report.pinned_peak_bytes;
            need.host_peaks.extend(torch.as_ref().and_then(|torch| Some((process, torch.host_peak_bytes?))));
            need.told_of_host_memory |= torch.as_ref().is_some_and(|torch| torch.lacked_host_memory);
            need.lacked_page_locked |= report.host_refusals > 0;
            for (what, count) in report.decided {
                *need.decided.entry(what).or_default() += count;
            }
            for (name, count) in report.unsupported {
                *need.unsupported.entry(name).or_default() += count;
            }
            need.uses.extend(report.devices.into_iter().map(|(device, report)| device_use(process, device, report, torch.as_ref())));
            need.torch = need.torch.or(torch);
        }
        need
    }

    /// The most of the machine's memory that all processes held, as if it had been at once.
    pub(super) fn host_peak_bytes(&self) -> Option<u64> {
        (!self.host_peaks.is_empty()).then(|| self.host_peaks.values().sum())
    }

    /// Whether the machine's own memory ran out, for a program that ended so. One that goes on without page-locked memory lacks none.
    pub(super) fn lacked_host_memory(&self, status: ExitStatus) -> bool {
        self.told_of_host_memory || (self.lacked_page_locked && !status.success())
    }

    /// Takes in what was seen of the processes while they ran.
    pub(super) fn saw(&mut self, peaks: BTreeMap<u32, u64>) {
        for (process, bytes) in peaks {
            let known = self.host_peaks.entry(process).or_default();
            *known = bytes.max(*known);
        }
    }

    /// A process that was killed may have left nothing. What it left and cannot be read is noted.
    fn read_file<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        read_left(path).unwrap_or_else(|why| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            self.unreadable.push(format!("{}: {why}", name.unwrap_or_default()));
            None
        })
    }

    /// What is held of each device if it is of that kind, for the device that needs most. Processes count as if their peaks came
    /// at the same time.
    pub(super) fn bytes_on(&self, profile: &GpuProfile) -> u64 {
        let mut devices: BTreeMap<u32, u64> = BTreeMap::new();
        for used in &self.uses {
            let device = devices.entry(used.device).or_default();
            *device = device.saturating_add(used.needed_bytes(profile));
        }
        devices.into_values().max().unwrap_or_default()
    }

    /// The most that PyTorch's allocator had given out at once, on the device where that was most. None where no process told it.
    pub(in crate::commands) fn peak_allocated_bytes(&self) -> Option<u64> {
        self.uses.iter().filter_map(|used| used.counted).map(|counted| counted.peak_allocated_bytes).max()
    }

    /// The most that PyTorch's allocator had taken from a device.
    pub(super) fn peak_reserved_bytes(&self) -> Option<u64> {
        self.uses.iter().filter_map(|used| used.counted).map(|counted| counted.peak_reserved_bytes).max()
    }

    /// How much memory that a program had let go of waited for a device, where that made a difference to what was reserved: how much it is depends on how far
    /// the program is ahead.
    pub(super) fn waiting_bytes(&self) -> Option<u64> {
        self.uses.iter().filter_map(|used| used.counted?.waiting_bytes()).max()
    }

    /// Whether the time of all that it did on the GPU is known.
    pub(in crate::commands) fn tells_work(&self) -> bool {
        self.uses.iter().all(|used| used.tells_work)
    }

    /// Whether an allocation failed for good.
    pub(in crate::commands) fn ran_out(&self) -> bool {
        self.failed().is_some()
    }

    /// The process and device on which an allocation failed for good.
    pub(super) fn failed(&self) -> Option<&DeviceUse> {
        self.uses.iter().find(|used| used.report.refusals.refused > 0)
    }

    /// The operation in which a device held most, where that is known.
    pub(super) fn peak_operation(&self) -> Option<&str> {
        self.uses.iter().max_by_key(|used| used.report.peak_device_bytes)?.report.peak_operation.as_deref()
    }

    /// What was given out on the device where that was most, where it was told.
    pub(super) fn largest_peak(&self) -> Option<&Peak> {
        self.uses.iter().max_by_key(|used| used.counted.map(|counted| counted.peak_allocated_bytes))?.peak.as_ref()
    }

    /// Values that the program read back from the GPU.
    pub(super) fn values_read(&self) -> u64 {
        self.uses.iter().map(|used| used.report.values_read).sum()
    }

    /// How many of them each of PyTorch's operations read, where that is known, those with most first.
    pub(super) fn values_read_by(&self) -> Vec<(&str, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in self.uses.iter().flat_map(|used| &used.report.values_read_by) {
            *sums.entry(name).or_default() += count;
        }
        let mut sums: Vec<(&str, u64)> = sums.into_iter().collect();
        sums.sort_by_key(|&(_, count)| Reverse(count));
        sums
    }

    /// Allocations that were met only after something had been freed.
    pub(super) fn met_later(&self) -> u64 {
        self.uses.iter().map(|used| used.report.refusals.met_later).sum()
    }
}

fn device_use(process: u32, device: u32, mut report: DeviceReport, torch: Option<&Torch>) -> DeviceUse {
    let counted = torch.and_then(|torch| torch.devices.get(&report.number)).copied();
    let failed = torch.and_then(|torch| torch.failed.as_ref()).filter(|failed| failed.device == report.number).cloned();
    if let Some(failed) = &failed {
        // The allocator knows what was asked of it; the device may have been asked for it in pieces.
        let whole = failed.requested_bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(failed.requested_bytes);
        report.refusals.last = Some(Refusal { requested_bytes: whole, free_bytes: failed.free_bytes });
        report.refusals.refused = report.refusals.refused.max(1);
    }
    let tells_work = torch.is_some_and(|torch| torch.tells_work);
    let peak = torch.and_then(|torch| torch.peaks.get(&report.number)).cloned();
    let asked_memory = report.asked_free || torch.is_some_and(|torch| torch.asked_size);
    let limit = torch.and_then(|torch| torch.limits.get(&report.number)).copied();
    DeviceUse { process, device, report, counted, failed, peak, asked_memory, limit, tells_work }
}

/// What large allocations are multiples of.
const PAGE_BYTES: u64 = 2 << 20;

/// The processes that left something, in the order of their ids.
fn processes(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<u32> = entries.filter_map(|name| name.strip_suffix(".json")?.trim_end_matches(".torch").parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use virtual_gpu_protocol::Refusals;

    use super::*;
    use crate::gpu_profile::GpuProfiles;

    const GIB: u64 = 1 << 30;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).expect("a file"));
        folder
    }

    fn device(peak_device_bytes: u64, last: Option<Refusal>) -> String {
        let refusals = Refusals { refused: u64::from(last.is_some()), met_later: 1, last };
        let device = DeviceReport {
            peak_device_bytes,
            process_bytes: GIB,
            memory_bytes: 24 * GIB,
            values_read: 3,
            values_read_by: [("any".into(), 1), ("item".into(), 2)].into(),
            refusals,
            ..DeviceReport::default()
        };
        let report =
            ProcessReport { unsupported: [("cufftCreate".into(), 2)].into(), devices: [(0, device)].into(), ..ProcessReport::default() };
        serde_json::to_string(&report).expect("JSON")
    }

    #[test]
    fn processes_count_as_if_their_peaks_came_at_the_same_time() {
        let files = [("7.json", &*device(3 * GIB, None)), ("12.json", &device(5 * GIB, None)), ("8.json.part", "{")];
        let need = Need::read(folder(&files).path());
        let mut profile = GpuProfiles::load().expect("profiles").iter().next().expect("a profile").clone();
        profile.context_bytes.value = GIB / 2;
        // Two contexts of the other GPU's size, and what was held beside the first one's.
        assert_eq!(need.bytes_on(&profile), 2 * GIB + 4 * GIB + GIB);
        assert_eq!(need.uses.iter().map(|used| used.process).collect::<Vec<_>>(), [7, 12]);
        assert_eq!((need.unsupported["cufftCreate"], need.met_later(), need.values_read(), need.failed()), (4, 2, 6, None));
        assert_eq!(need.values_read_by(), [("item", 4), ("any", 2)]);
    }

    #[test]
    fn what_failed_is_what_the_allocator_was_asked_for() {
        let pieces = Refusal { requested_bytes: 20 << 20, free_bytes: 1 << 20 };
        let torch = format!(
            r#"{{"torch": "2.13.0", "cuda": "13.0", "devices": {{"0": {{"peak_allocated_bytes": 5, "peak_reserved_bytes": 6, "peak_active_bytes": 5}}}},
            "failed": {{"device": 0, "requested_bytes": {}, "free_bytes": {}, "allocated_bytes": {}, "reserved_bytes": {}, "place": "a.py:3"}}, "tells_work": false}}"#,
            10 * GIB - 512,
            4 * GIB,
            7 * GIB,
            9 * GIB
        );
        let files = [("7.json", &*device(20 * GIB, Some(pieces))), ("7.torch.json", &torch)];
        let need = Need::read(folder(&files).path());
        let used = need.failed().expect("a failure");
        assert_eq!((used.missing_bytes(), used.place()), (Some(6 * GIB), Some("a.py:3")));
        assert_eq!(used.counted.map(|counted| counted.peak_reserved_bytes), Some(6));
        // What lived then, and what was asked for.
        assert_eq!((used.live_bytes(), used.held_bytes(), used.unused_bytes()), (17 * GIB - 512, 19 * GIB, Some(2 * GIB)));
    }

    #[test]
    fn a_report_that_cannot_be_read_is_named() {
        let whole = device(3 * GIB, None);
        let files = [("7.json", &*whole), ("8.json", &whole[..40]), ("8.torch.json", "{}")];
        let need = Need::read(folder(&files).path());
        assert_eq!(need.uses.iter().map(|used| used.process).collect::<Vec<_>>(), [7]);
        let named: Vec<_> = need.unreadable.iter().filter_map(|what| what.split_once(": ")).map(|(name, _)| name).collect();
        assert_eq!(named, ["8.json", "8.torch.json"]);
    }

    #[test]
    fn a_folder_with_nothing_in_it_needs_nothing() {
        assert_eq!(Need::read(folder(&[]).path()), Need::default());
        assert_eq!(Need::read(Path::new("/nowhere")), Need::default());
    }
}
