//! The device and its caching allocator: counters, peaks, limits.

use engine_protocol::{PeakParts, StageMemory};

use super::ffi;
use crate::attribution;
use crate::error::Result;

/// `off`: the work of operations is not counted, and their times are not known.
const OBSERVER: &str = "LOWMEM_OBSERVER";

/// Makes the context, so that later figures hold it, has what this thread allocates attributed and what it asks of the GPU counted, and gives the device's name.
///
/// # Errors
/// When there is no GPU, or it cannot be used.
pub fn start(is_profiled: bool) -> Result<String> {
    ffi::start()?;
    ffi::observe()?;
    // Only to measure what it costs: `benches/observer_cost.py`.
    if std::env::var_os(OBSERVER).is_none_or(|value| value != "off") {
        ffi::observe_work(is_profiled)?;
    }
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

/// Bytes that are free on the device.
///
/// # Errors
/// libtorch's.
pub fn free_bytes() -> Result<u64> {
    Ok(ffi::device_memory()?.0)
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

/// What the peak since the last reset, or since this was last called, was made of. Empty where not every allocation was seen.
///
/// # Errors
/// libtorch's.
pub fn end_step() -> Result<Option<PeakParts>> {
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

fn unsigned(bytes: i64) -> u64 {
    bytes.max(0) as u64
}
