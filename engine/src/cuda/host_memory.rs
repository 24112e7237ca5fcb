//! Memory of the host in which weights wait, and by way of which they come from their files.
//!
//! libtorch's own page-locking allocator rounds each block up to a power of two, which would lock twice the weights. A slab of our own is as large as
//! the group that it holds.

use tch::{Device, Kind, Tensor};

use super::ffi;
use crate::error::{Error, Result};

/// A slab of so many bytes on the host, not written yet. The GPU can copy from a `pinned` one, whose pages are locked, while it computes.
///
/// # Errors
/// When the host has, or can lock, no such amount.
pub fn host_slab(bytes: i64, pinned: bool) -> Result<Tensor> {
    if pinned {
        return ffi::pinned_bytes(bytes as usize).map_err(|error| match error {
            // CUDA has one code for its own memory and for the host's. What page-locking asks for is the host's.
            Error::Torch(_) if error.is_out_of_memory() => Error::lacks_host_memory(Some(bytes as u64), true),
            other => other,
        });
    }
    Ok(Tensor::f_empty([bytes], (Kind::Uint8, Device::Cpu))?)
}

/// A slab as [`host_slab`] gives it, page-locked where `pinned` and where the host lets it be; and whether it is.
///
/// # Errors
/// When the host has no such amount.
pub(crate) fn host_slab_pinned_if_may(bytes: i64, pinned: bool) -> Result<(Tensor, bool)> {
    match host_slab(bytes, pinned) {
        Err(Error::HostMemory(_)) if pinned => Ok((host_slab(bytes, false)?, false)),
        slab => Ok((slab?, pinned)),
    }
}

/// Bytes that were page-locked at most since the last [`reset_pinned_peak`]. A GPU is in use.
///
/// # Errors
/// libtorch's.
pub(crate) fn pinned_peak_bytes() -> Result<u64> {
    ffi::pinned_peak()
}

/// Begins that peak anew, at what is page-locked now.
///
/// # Errors
/// libtorch's.
pub(crate) fn reset_pinned_peak() -> Result<()> {
    ffi::reset_pinned_peak()
}
