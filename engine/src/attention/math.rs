//! Plain matrix products: the score matrix exists whole, and libtorch computes it in fp32 where the inputs have 16 bits.

use tch::Tensor;

use crate::error::Result;

/// # Errors
/// libtorch's.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (out, _scores) = Tensor::f_internal_scaled_dot_product_attention_math::<Tensor>(q, k, v, None, 0.0, false, None, None, false)?;
    Ok(out)
}
