//! Flash attention: no score matrix. On CUDA for 16-bit types only.

use tch::Tensor;

use super::merged::InPart;
use crate::error::Result;

/// # Errors
/// libtorch's: on CUDA also for fp32, which its kernel does not take.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(attend_in_part(q, k, v)?.attended)
}

/// # Errors
/// Those of [`attend`].
pub(super) fn attend_in_part(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<InPart> {
    if !q.device().is_cuda() {
        let (attended, log_sum) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<Tensor>(q, k, v, 0.0, false, None, None)?;
        return Ok(InPart { attended, log_sum });
    }
    // The kernel's own entry, which takes `[B, L, heads, D]` and writes where it is told. tch has no binding for the operator above it,
    // `_scaled_dot_product_flash_attention`: two of its results are numbers.
    let [q, k, v] = [q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?];
    let out = q.f_empty_like()?;
    let (queries, keys) = (q.size()[1], k.size()[1]);
    let log_sum = Tensor::f_internal_flash_attention_forward_no_dropout_inplace::<Tensor>(
        &out, &q, &k, &v, None, None, queries, keys, 0.0, false, false, None, None, None, None, None, None, None,
    )?;
    Ok(InPart { attended: out.f_transpose(1, 2)?, log_sum })
}
