//! What tch lacks of CUDA: the caching allocator's counters, streams and events, page-locked host memory.

pub mod allocator;
mod ffi;
mod pinned;
mod stream;

use engine_protocol::Secs;

pub(crate) use ffi::FileMapping;
pub use pinned::PinnedSlab;
pub use stream::{Event, Stream};

/// The one GPU that a worker uses. Which card it is, `CUDA_VISIBLE_DEVICES` says.
pub(crate) const DEVICE: i32 = 0;

/// The host works for so long, which the virtual GPU's clock is told of. Elsewhere time goes by itself.
pub(crate) fn host_work(secs: Secs) {
    ffi::host_work([secs.low, secs.expected, secs.high]);
}
