//! Page-locked host memory: what the GPU can copy from while it computes.
//!
//! libtorch's own pinned allocator rounds each block up to a power of two, which would pin twice the weights. A slab of our own is as large as
//! the group that it holds.

use tch::Tensor;

use super::ffi;
use crate::error::Result;

/// A slab of page-locked memory.
#[derive(Debug)]
pub struct PinnedSlab {
    // Declared before the memory, so dropped before it.
    bytes: Tensor,
    _memory: ffi::OwnedPinned,
}

impl PinnedSlab {
    /// So many bytes of page-locked memory, not written yet.
    ///
    /// # Errors
    /// When the host cannot lock that much.
    pub fn new(bytes: i64) -> Result<Self> {
        let memory = ffi::OwnedPinned::new(bytes as usize)?;
        Ok(Self { bytes: memory.tensor(), _memory: memory })
    }

    /// The slab as a tensor of bytes on the CPU.
    pub fn bytes(&self) -> &Tensor {
        &self.bytes
    }
}
