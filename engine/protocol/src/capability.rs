//! The compute capability of a GPU that kernels are chosen for.

use crate::GpuProfile;

/// Of a GPU that is not known: what recent ones have.
const RECENT: (u32, u32) = (8, 9);

/// That of `gpu`, as major and minor; a recent one where it is not known.
pub(crate) fn capability_of(gpu: Option<&GpuProfile>) -> (u32, u32) {
    gpu.and_then(GpuProfile::capability).unwrap_or(RECENT)
}
