//! The virtual GPU as its users meet it: one shared object, opened under the CUDA libraries' names.
//!
//! `wheel` holds it against what PyTorch asks for, `prototypes` against NVIDIA's headers; `runtime`, `clock`, `devices`, `graph`, `pool`, `driver`, `nccl`, `report`, `solvers` and `trace` call it as PyTorch does; `cudarc` as programs in Rust do;
//! `soak` at random and from several threads.

#![expect(unsafe_code, reason = "calling C functions by name is what is tested")]

#[macro_use]
mod library;
mod managed;

mod clock;
mod cudarc;
mod devices;
mod driver;
mod errors;
mod graph;
mod nccl;
mod pool;
mod prototypes;
mod report;
mod runtime;
mod soak;
mod solvers;
mod trace;
mod wheel;
