//! Memory of the host in which weights wait, and by way of which they come from their files.
//!
//! libtorch's own page-locking allocator rounds each block up to a power of two, which would lock twice the weights. A slab of our own is as large as
//! the group that it holds.

use std::fs::File;

use tch::{Device, Kind, Tensor};

use super::ffi;
use crate::error::{Error, Result};

/// A slab of so many bytes on the host, not written yet. The GPU can copy from a `pinned` one, whose pages are locked, while it computes.
///
/// # Errors
/// When the host has, or can lock, no such amount.
pub fn host_slab(bytes: i64, pinned: bool) -> Result<Tensor> {
    if pinned {
        return ffi::pinned_bytes(bytes as usize).map_err(|error| of_host(error, bytes));
    }
    Ok(Tensor::f_empty([bytes], (Kind::Uint8, Device::Cpu))?)
}

/// A slab that is so many bytes of a file from `offset` on, which other processes have too, page-locked where `pinned`. `counted` of them count as this process's.
///
/// # Errors
/// When the host has, or can lock, no such amount.
pub(crate) fn shared_slab(file: &File, offset: u64, bytes: i64, pinned: bool, counted: u64) -> Result<Tensor> {
    ffi::shared_bytes(file, offset, bytes as usize, pinned, counted).map_err(|error| of_host(error, bytes))
}

/// CUDA has one code for its own memory and for the host's. What page-locking asks for is the host's.
fn of_host(error: Error, bytes: i64) -> Error {
    if matches!(error, Error::Torch(_)) && error.is_out_of_memory() { Error::lacks_host_memory(Some(bytes as u64), true) } else { error }
}

/// A slab as [`host_slab`] gives it, page-locked where `pinned` and where the host lets it be; and whether it is.
///
/// # Errors
/// When the host has no such amount.
pub(crate) fn host_slab_pinned_if_may(bytes: i64, pinned: bool) -> Result<(Tensor, bool)> {
    pinned_if_may(pinned, |pinned| host_slab(bytes, pinned))
}

/// What `slab` gives, page-locked where `pinned` and where the host lets it be; and whether it is.
///
/// # Errors
/// When the host has no such amount.
pub(crate) fn pinned_if_may(pinned: bool, mut slab: impl FnMut(bool) -> Result<Tensor>) -> Result<(Tensor, bool)> {
    match slab(pinned) {
        Err(Error::HostMemory(_)) if pinned => Ok((slab(false)?, false)),
        slab => Ok((slab?, pinned)),
    }
}

/// Bytes of shared slabs that other processes counted at most since the last [`reset_pinned_peak`].
pub(crate) fn others_peak_bytes() -> u64 {
    ffi::others_peak()
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
