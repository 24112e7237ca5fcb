//! Memory-efficient attention: no score matrix, any floating-point type, CUDA only.

use tch::Tensor;

use crate::error::{Error, Result};

/// # Errors
/// libtorch's, and inputs on the CPU, where libtorch has no such kernel.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    if !q.device().is_cuda() {
        return Err(Error::Input("attn_type=mem_efficient has no kernel for the CPU: use sdpa, flash or math".into()));
    }
    let (out, ..) = Tensor::f_internal_scaled_dot_product_efficient_attention::<Tensor>(q, k, v, None, false, 0.0, false, None)?;
    Ok(out)
}
