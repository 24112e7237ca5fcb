//! cuDNN's attention: no score matrix. On CUDA for 16-bit types only.

use tch::Tensor;

use crate::error::{Error, Result};
use crate::kernels;

/// # Errors
/// libtorch's, what it says against inputs that it would not give to cuDNN, and inputs on the CPU.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    if !q.device().is_cuda() {
        return Err(Error::Input("attn_type=cudnn has no kernel for the CPU: use sdpa, flash or math".into()));
    }
    kernels::cudnn_attention(q, k, v)
}
