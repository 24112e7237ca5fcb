//! Which CUDA the program was built for: 13, or 12. The major versions have some functions of the same name with other parameters.

use crate::ffi::is_loaded;

/// CUDA 13.0, for the runtime as for the driver: what PyTorch 2.13 is built with.
pub(crate) const CUDA_VERSION: i32 = 13000;
/// CUDA 12.8, the runtime of programs that are built for CUDA 12.
const CUDA_12_VERSION: i32 = 12080;

/// Whether the program's runtime is CUDA 12's. The loader knows: a program names the library of the version that it was built for. In one that has parts of both the newer one counts.
pub(crate) fn is_cuda_12() -> bool {
    is_loaded(c"libcudart.so.12") && !is_loaded(c"libcudart.so.13")
}

/// The runtime's version.
pub(crate) fn runtime_version() -> i32 {
    if is_cuda_12() { CUDA_12_VERSION } else { CUDA_VERSION }
}
