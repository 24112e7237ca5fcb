//! `libcuda.so.1`: the driver interface. PyTorch asks for most of it by name, through `cudaGetDriverEntryPointByVersion`; Triton and programs in other
//! languages use it alone.

mod device;
mod error;
mod graph;
mod launch;
mod memory;
mod stream;
mod virtual_memory;
