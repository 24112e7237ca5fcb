//! The lowmem engine: Wan video diffusion on libtorch, in as little GPU memory as can be.

pub mod attention;
pub mod attribution;
pub mod calibration;
pub mod case;
pub mod checkpoint;
pub mod collectives;
pub mod components;
pub mod compute_device;
pub mod context_parallel;
pub mod cuda;
pub mod disk_rate;
pub mod error;
pub mod files;
pub mod finite;
pub mod flexcache;
pub mod host_rates;
mod host_use;
pub mod image_encoder;
pub mod kernels;
pub mod memory;
mod operation_times;
pub mod pipeline;
pub mod scheduler;
mod signs;
pub mod stages;
pub mod text_encoder;
mod timing;
pub mod transformer;
pub mod vae;
pub mod video;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use compute_device::ComputeDevice;
pub use error::{Error, Result};
pub use pipeline::Pipeline;

/// The libtorch that this engine is built against.
pub const TORCH_VERSION: &str = "2.13.0";
