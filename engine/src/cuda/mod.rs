//! What tch lacks of CUDA: the caching allocator's counters, streams and events, page-locked host memory.

pub mod allocator;
mod ffi;
mod pinned;
mod stream;

pub(crate) use ffi::FileMapping;
pub use pinned::PinnedSlab;
pub use stream::{Event, Stream};

/// The one GPU that a worker uses. Which card it is, `CUDA_VISIBLE_DEVICES` says.
pub(crate) const DEVICE: i32 = 0;
