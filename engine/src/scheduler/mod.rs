//! Samplers. They run on the CPU, in fp32 for tensors and in fp64 for coefficients: a step costs microseconds there, and nothing is decided
//! by a value that lives on the device.

mod sigma_schedule;
mod unipc;

pub use sigma_schedule::{TRAIN_TIMESTEPS, sigma_schedule, timesteps};
pub use unipc::UniPc;
