//! Memory of the host in which groups wait, or by way of which they come from their files.

use tch::{Device, Kind, Tensor};

use crate::cuda::PinnedSlab;
use crate::error::Result;

/// A slab of bytes on the host.
#[derive(Debug)]
pub(super) enum HostSlab {
    Pageable(Tensor),
    Pinned(PinnedSlab),
}

impl HostSlab {
    /// So many bytes, not written yet, page-locked if `pinned`.
    pub(super) fn new(bytes: i64, pinned: bool) -> Result<Self> {
        if pinned {
            return Ok(Self::Pinned(PinnedSlab::new(bytes)?));
        }
        Ok(Self::Pageable(Tensor::f_empty([bytes], (Kind::Uint8, Device::Cpu))?))
    }

    /// As a tensor of bytes.
    pub(super) fn bytes(&self) -> &Tensor {
        match self {
            HostSlab::Pageable(bytes) => bytes,
            HostSlab::Pinned(slab) => slab.bytes(),
        }
    }
}
