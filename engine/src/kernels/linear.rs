//! Linear layers with what stands after them, as one product: libtorch's own kernels, of which tch makes no layer.

use tch::{Device, Tensor};

use crate::error::Result;

/// `x` through a linear layer, written into `place`, which lies whole.
///
/// # Shapes
/// `x` is `[.., inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`, `place` `[.., outputs]`.
///
/// # Errors
/// libtorch's.
pub(crate) fn linear_into(x: &Tensor, weight: &Tensor, bias: &Tensor, place: Tensor) -> Result<Tensor> {
    let rows_there = place.f_view([-1, weight.size()[0]])?;
    let _ = bias.f_addmm_out(&rows_there, &rows(x, weight)?, &weight.f_transpose(0, 1)?)?;
    Ok(place)
}

/// Adds `x` times `weight` to `to`, in the product itself: its sums begin with what is there.
///
/// # Shapes
/// `x` is `[B, n, inputs]`, `weight` `[outputs, inputs]`, `to` `[B, n, outputs]`.
///
/// # Errors
/// libtorch's.
pub(crate) fn add_linear(to: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()> {
    // Video by video: some of the tokens of several do not lie whole.
    (0..to.size()[0]).try_for_each(|video| {
        let _ = to.f_get(video)?.f_addmm_(&x.f_get(video)?, &weight.f_transpose(0, 1)?)?;
        Ok(())
    })
}

/// GELU, by tanh, of `x` through a linear layer. On a GPU cuBLASLt takes it of the sums, so that it is rounded once; on the CPU libtorch has the exact one alone in its product.
///
/// # Shapes
/// Those of [`linear_into`].
///
/// # Errors
/// libtorch's.
pub(crate) fn linear_gelu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device() == Device::Cpu {
        return Ok(x.f_linear(weight, Some(bias))?.f_gelu_("tanh")?);
    }
    let result = bias.f_internal_addmm_activation(&rows(x, weight)?, &weight.f_transpose(0, 1)?, true)?;
    let mut shape = x.size();
    *shape.last_mut().expect("a linear layer's input has channels") = weight.size()[0];
    Ok(result.f_view(shape.as_slice())?)
}

fn rows(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(x.f_reshape([-1, weight.size()[1]])?)
}
