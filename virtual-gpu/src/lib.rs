//! The virtual GPU: one shared object that answers for every CUDA library, so that an unmodified PyTorch runs its
//! whole CUDA path (dispatcher, launch code, caching allocator) on a machine with no GPU.
//!
//! Device memory is address space that is reserved and accounted for; kernels are counted and not run. So the
//! allocator's figures are real ones and the numbers in tensors mean nothing.
//!
//! - `device`: what a GPU is here, in safe Rust: memory, streams, events, properties. It knows nothing of C.
//! - one module a library (`cudart`, `driver`, `cublas`, ...): its exported functions, thin, over `device`.
//! - `unsupported`: every other function that PyTorch's libraries ask for. It says so, once, and is counted.
//! - `ffi`: pointers that came over the C interface, address space, strings. `process`: the devices of this process. `neighbours`: what other
//!   processes hold of them.
//!
//! Nothing of the project links this crate and it links nothing of the project: it is met through the loader alone,
//! under the names in `sonames.txt`. What it reads is `LOWMEM_VIRTUAL_GPU` (a GPU profile as JSON; without it there is
//! no device), `LOWMEM_VIRTUAL_GPU_COUNT` (how many of them), `LOWMEM_VIRTUAL_GPU_REPORT` (where to write the counters), `LOWMEM_VIRTUAL_GPU_TRACE` (where to write the
//! operations), `LOWMEM_VIRTUAL_GPU_TIMELINE` (where to write when each began and ended), `LOWMEM_VIRTUAL_GPU_EVENTS` (when events are passed), `LOWMEM_VIRTUAL_GPU_QUIET` (no banner), `LOWMEM_VIRTUAL_GPU_MASK_NAME` (the real GPU's name) and
//! `LOWMEM_VIRTUAL_GPU_STRICT` (what is unsupported fails for good).

#![expect(unsafe_code, reason = "exporting C symbols and following C pointers is what this crate is for")]

#[macro_use]
mod ffi;

mod cublas;
mod cublaslt;
mod cudart;
mod cudnn;
mod cufft;
mod cupti;
mod cusolver;
mod cusparse;
mod driver;
mod nccl;
mod neighbours;
mod nvml;
mod nvrtc;
mod nvshmem;
mod observer;
mod process;
mod unsupported;

pub mod device;
