//! The device and its caching allocator: counters, peaks, limits. It knows how much is held, and not what for: that is `attribution`.

use engine_protocol::{MemoryCourse, PeakParts, StageMemory};

use super::ffi;
use crate::attribution;
use crate::error::Result;

/// Makes the context, so that later figures hold it, and has what this thread allocates attributed.
///
/// # Errors
/// When there is no GPU, or it cannot be used.
pub fn start() -> Result<()> {
    ffi::start()?;
    ffi::observe()
}

/// The device's name.
///
/// # Errors
/// When there is no GPU, or it cannot be used.
pub fn device_name() -> Result<String> {
    ffi::device_name()
}

/// Caps what the caching allocator may hold: what goes beyond is out of memory, as on a smaller GPU.
///
/// # Errors
/// libtorch's.
pub fn set_limit(bytes: u64) -> Result<()> {
    let (_, total) = ffi::device_memory()?;
    ffi::set_memory_fraction((bytes as f64 / total as f64).min(1.0))
}

/// Bytes that are free on the device, and all that it has.
///
/// # Errors
/// libtorch's.
pub fn free_and_total_bytes() -> Result<(u64, u64)> {
    ffi::device_memory()
}

/// Begins a new peak at what is held now.
///
/// # Errors
/// libtorch's.
pub fn reset_peaks() -> Result<()> {
    ffi::reset_peaks()?;
    attribution::begin_stage(unsigned(ffi::counters()?.reserved));
    Ok(())
}

/// What the peak since the last reset, or since this was last called, was made of, and how memory went, where anything was allocated. Empty where not every
/// allocation was seen.
///
/// # Errors
/// libtorch's.
pub fn end_step() -> Result<Option<(PeakParts, Option<MemoryCourse>)>> {
    let counters = ffi::counters()?;
    Ok(attribution::end_step(unsigned(counters.allocated), unsigned(counters.reserved)))
}

/// Gives memory that no tensor uses back to the driver.
///
/// # Errors
/// libtorch's.
pub fn empty_cache() -> Result<()> {
    ffi::empty_cache()
}

/// Waits until the device has done all that it was asked for.
///
/// # Errors
/// libtorch's, and whatever went wrong on the device until now.
pub fn synchronize() -> Result<()> {
    ffi::synchronize()
}

/// The counters now, and their peaks since the last reset.
///
/// # Errors
/// libtorch's.
pub fn memory() -> Result<StageMemory> {
    let counters = ffi::counters()?;
    let (free, total) = ffi::device_memory()?;
    // The context and the libraries' own memory do not come and go with tensors: what they hold now they held at the peak.
    let beside = (total - free).saturating_sub(unsigned(counters.reserved));
    Ok(StageMemory {
        allocated_bytes: unsigned(counters.allocated),
        reserved_bytes: unsigned(counters.reserved),
        peak_allocated_bytes: unsigned(counters.peak_allocated),
        peak_reserved_bytes: unsigned(counters.peak_reserved),
        peak_device_bytes: unsigned(counters.peak_reserved) + beside,
        parts: attribution::stage_parts(unsigned(counters.peak_allocated), unsigned(counters.peak_reserved)),
    })
}

/// What an allocation of `bytes` counts for in libtorch's caching allocator (`c10/cuda/CUDACachingAllocator.cpp`, torch 2.13): a multiple of 512
/// bytes, and from 10 MiB on all of its own segment, which is a multiple of 2 MiB, unless more than 1 MiB of that would be left for others.
pub fn block_bytes(bytes: i64) -> u64 {
    const MIB: u64 = 1 << 20;
    let rounded = (bytes as u64).max(1).next_multiple_of(512);
    let segment = rounded.next_multiple_of(2 * MIB);
    if rounded >= 10 * MIB && segment - rounded <= MIB { segment } else { rounded }
}

fn unsigned(bytes: i64) -> u64 {
    bytes.max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::block_bytes;

    #[test]
    fn an_allocation_counts_as_libtorch_counts_it() {
        assert_eq!(block_bytes(1), 512);
        assert_eq!(block_bytes(3 << 20), 3 << 20);
        assert_eq!(block_bytes((20 << 20) - 100), 20 << 20);
        assert_eq!(block_bytes((20 << 20) + 1), (20 << 20) + 512);
    }
}
