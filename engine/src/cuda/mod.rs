//! What tch lacks of CUDA: the caching allocator's counters, streams and events, page-locked host memory, files mapped into memory.
//!
//! Nothing here knows of models, of memory levels or of what is done with what it measures: listeners are given to it.

pub mod allocator;
mod ffi;
mod host_memory;
pub(crate) mod snapshot;
mod stream;

use engine_protocol::Secs;

use crate::error::Result;

pub(crate) use ffi::{
    DEVICE, FileMapping, ObservedOperation, OperationListener, OwnKernel, PlaceInFile, cudnn_attention, launch_observed,
    leave_out_autograd, read_from_file,
};
pub use host_memory::host_slab;
pub(crate) use host_memory::{
    host_slab_pinned_if_may, others_peak_bytes, pinned_if_may, pinned_peak_bytes, reset_pinned_peak, shared_slab,
};
pub use stream::{CopyStream, Event, Stream};

/// The host works for so long, which the virtual GPU's clock is told of. Elsewhere time goes by itself.
pub(crate) fn host_work(secs: Secs) {
    ffi::host_work([secs.low, secs.expected, secs.high]);
}

/// How long what was put into streams has waited for other ranks, which the virtual GPU's clock knows. Nothing elsewhere.
pub(crate) fn waited_for_ranks() -> Option<Secs> {
    ffi::waited_for_ranks().map(|[low, expected, high]| Secs { low, expected, high })
}

/// How far the host has come by the virtual GPU's clock. Nothing elsewhere.
pub(crate) fn modelled_now() -> Option<Secs> {
    ffi::modelled_now().map(|[low, expected, high]| Secs { low, expected, high })
}

/// Has `L` hear of every operation on the GPU from here on. Once a process.
///
/// # Errors
/// libtorch's.
pub(crate) fn observe_operations<L: OperationListener>() -> Result<()> {
    ffi::observe_operations::<L>()
}
