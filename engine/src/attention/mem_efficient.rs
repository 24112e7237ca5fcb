//! Memory-efficient attention: no score matrix, any floating-point type, CUDA only.

use tch::Tensor;

use super::merged::InPart;
use crate::error::{Error, Result};

/// # Errors
/// libtorch's, and inputs on the CPU, where libtorch has no such kernel.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(attend_with(q, k, v, false)?.attended)
}

/// # Errors
/// Those of [`attend`].
pub(super) fn attend_in_part(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<InPart> {
    let InPart { attended, log_sum } = attend_with(q, k, v, true)?;
    // The kernel rounds the number of rows up.
    Ok(InPart { log_sum: log_sum.f_narrow(2, 0, q.size()[2])?, attended })
}

fn attend_with(q: &Tensor, k: &Tensor, v: &Tensor, log_sums: bool) -> Result<InPart> {
    if !q.device().is_cuda() {
        return Err(Error::Input("attn_type=mem_efficient has no kernel for the CPU: use sdpa, flash or math".into()));
    }
    let (attended, log_sum, ..) =
        Tensor::f_internal_scaled_dot_product_efficient_attention::<Tensor>(q, k, v, None, log_sums, 0.0, false, None)?;
    Ok(InPart { attended, log_sum })
}
