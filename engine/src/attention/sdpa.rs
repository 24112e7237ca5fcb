//! The back end that libtorch picks for the device, the type and the shapes.

use tch::Tensor;

use crate::error::Result;

/// # Errors
/// libtorch's.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, false, None, false)?)
}
