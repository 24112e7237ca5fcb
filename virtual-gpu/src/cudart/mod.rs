//! `libcudart.so.13`: the runtime interface; and `libcudart.so.12`, where functions of the same name differ.

mod capture;
mod device;
mod error;
mod graph;
mod launch;
mod managed;
mod memory;
mod module;
mod pool;
mod properties;
mod properties_12;
mod stream;
mod version;

pub(crate) use capture::{Asked, begin as begin_capture, end as end_capture, go_on_after, status as capture_status, tell as tell_capture};
pub(crate) use error::{code_of, driver_texts};
pub(crate) use graph::{launch_graph, list};
pub(crate) use launch::{active_blocks, launch};
pub(crate) use managed::{Location, advise, allocate as allocate_managed, prefetch};
pub(crate) use memory::{
    BY_ADDRESS, DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, SMALL_COPY_BYTES, copy_flat, fill, fill_words, forget, on_device,
};
pub(crate) use properties::attribute;
pub(crate) use stream::{call_on, record_event, wait_event};
pub(crate) use version::{CUDA_VERSION, runtime_version};
