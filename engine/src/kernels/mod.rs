//! Kernels for the GPU that tch has no call for, as functions of tensors: cuDNN's attention, and our own, which are compiled on the machine when they are first
//! needed.
//!
//! Every function that other files see is safe for every caller: it holds what it is given against what the kernel reads and writes.

mod by_element;
mod compiled;
mod driver;
mod element;
mod gate_and_residual;
mod image_cache;
mod layer_norm;
mod linear;
mod loaded;
pub(crate) mod nccl;
mod norm_and_turn;
mod nvrtc;
#[cfg(test)]
pub(crate) mod ptx;
pub mod sage;
pub mod sparge;
mod unpack;

pub(crate) use crate::cuda::cudnn_attention;
pub use compiled::{CompiledKernels, compiled_everywhere};
pub(crate) use driver::capability;
pub(crate) use gate_and_residual::gate_and_residual;
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{add_linear, linear_gelu, linear_into};
pub use norm_and_turn::norm_and_turn;
pub(crate) use unpack::{unpack_blocks, unpack_rows};
