//! `libcudart.so.13`: the runtime interface.

mod device;
mod error;
mod graph;
mod launch;
mod memory;
mod module;
mod pool;
mod properties;
mod stream;

pub(crate) use error::{code_of, driver_texts};
pub(crate) use launch::{active_blocks, launch};
pub(crate) use memory::{
    BY_ADDRESS, DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, SMALL_COPY_BYTES, copy_flat, fill, fill_words, on_device,
};
pub(crate) use properties::{CUDA_VERSION, attribute};
