//! What this process holds of the host's memory in a stage: resident at most, as the kernel counts it, and page-locked at most, as it was asked for.

use std::fs;
use std::sync::LazyLock;

use engine_protocol::HostMemory;
use host_memory::status_bytes;

use crate::compute_device::ComputeDevice;
use crate::cuda::{self, host_slab};
use crate::error::Result;

/// Has the peaks begin at what is held now.
///
/// # Errors
/// libtorch's.
pub(crate) fn begin_stage(device: ComputeDevice) -> Result<()> {
    // 5 resets the peak of resident memory (`proc_pid_clear_refs(5)`). Where that may not be, the peak is the process's until then, which is no less.
    let _ = fs::write("/proc/self/clear_refs", "5");
    if device.is_gpu() { cuda::reset_pinned_peak() } else { Ok(()) }
}

/// The peaks since the stage began.
///
/// # Errors
/// libtorch's.
pub(crate) fn end_stage(device: ComputeDevice) -> Result<HostMemory> {
    let pinned_peak_bytes = if device.is_gpu() { cuda::pinned_peak_bytes()? } else { 0 };
    // Where nothing is computed, weights were never written, so they are not resident either.
    let resident = if device.computes { status_bytes("VmHWM") } else { None };
    let beside = if device.computes && pinned_peak_bytes > 0 && !*LOCKED_IS_RESIDENT { pinned_peak_bytes } else { 0 };
    // What ranks share is resident in each of them; each counts a part of it.
    let of_others = if device.is_gpu() { cuda::others_peak_bytes() } else { 0 };
    Ok(HostMemory { peak_bytes: resident.map(|bytes| (bytes + beside).saturating_sub(of_others)), pinned_peak_bytes })
}

/// Whether the kernel counts page-locked memory as resident in this process: some drivers' locked pages are no process's. A slab tells, once; where none can be locked,
/// nobody can tell, and it is taken for resident.
static LOCKED_IS_RESIDENT: LazyLock<bool> = LazyLock::new(|| {
    const SLAB: i64 = 64 << 20;
    let before = status_bytes("VmRSS");
    let filled = host_slab(SLAB, true).and_then(|mut slab| Ok(slab.f_fill_(1)?));
    filled.is_err() || status_bytes("VmRSS") >= before.map(|bytes| bytes + SLAB as u64 / 2)
});
