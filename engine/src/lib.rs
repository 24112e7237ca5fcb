//! The lowmem engine: Wan video diffusion on libtorch, in as little GPU memory as can be.

pub mod attention;
pub mod attribution;
pub mod calibration;
pub mod case;
pub mod checkpoint;
pub mod cuda;
pub mod denoising;
pub mod error;
pub mod host_rates;
pub mod memory;
pub mod pipeline;
mod profile;
pub mod scheduler;
pub mod stages;
pub mod text_encoder;
mod timing;
pub mod transformer;
pub mod vae;
pub mod video;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use pipeline::{Pipeline, Target};

/// The libtorch that this engine is built against.
pub const TORCH_VERSION: &str = "2.13.0";
