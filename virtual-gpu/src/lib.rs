//! The virtual GPU: one shared object that answers for every CUDA library, so that an unmodified PyTorch runs its
//! whole CUDA path (dispatcher, launch code, caching allocator) on a machine with no GPU.
//!
//! Device memory is address space that is reserved and accounted for; kernels are counted and not run. So the
//! allocator's figures are real ones and the numbers in tensors mean nothing.
//!
//! From below, where no module uses one that stands above it:
//!
//! - `device`: what a GPU is here, in safe Rust: memory, streams, events, clock. It knows nothing of C.
//! - `ffi`: pointers that came over the C interface, address space, the loader; and how functions are exported.
//! - `environment`: what the environment asks for. `machine`: the devices that it makes.
//! - `unsupported_calls`, `handle_table`, `operations`: what is counted, what was not given back, and which operation a thread is in. Libraries and observers tell them.
//!   `decisions`: what depends on values that nobody computed. `first_use`: what happens once, for which the host waits.
//! - `neighbours`: what other processes hold. `report`: what is written at the end.
//! - `devices`: the devices as the program sees them, and how one comes into use.
//! - `unsupported`: every function that PyTorch's libraries ask for and nothing else here has. It says so, once, and is counted.
//! - one module a library (`cudart`, `driver`, `cublas`, ...): its exported functions, thin, over `devices`. `observer`: our own interface for observers.
//!
//! Nothing of the project links this crate: it is met through the loader alone, under the names in `sonames.txt`. With those who start it, it shares
//! `virtual-gpu-protocol`: the GPU profile that it gets, the report that it leaves, and the names of the environment variables.

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
mod decisions;
mod devices;
mod driver;
mod environment;
mod first_use;
mod handle_table;
mod machine;
mod nccl;
mod neighbours;
mod nvml;
mod nvrtc;
mod nvshmem;
mod observer;
mod operations;
mod report;
mod unsupported;
mod unsupported_calls;

pub mod device;
