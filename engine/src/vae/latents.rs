//! Latents as the VAE has them, and as the transformer does: each channel with mean 0 and deviation 1.

use engine_protocol::VaeSpec;
use tch::Tensor;

use crate::error::Result;

/// The latents as the decoder wants them, from the transformer's.
///
/// # Shapes
/// `latents` and result: `[batch, channels, frames, height, width]`.
///
/// # Errors
/// libtorch's.
pub fn denormalise(spec: &VaeSpec, latents: &Tensor) -> Result<Tensor> {
    let mut scaled = latents.f_mul(&per_channel(&spec.latents_std, latents)?)?;
    let _ = scaled.f_add_(&per_channel(&spec.latents_mean, latents)?)?;
    Ok(scaled)
}

/// The latents as the transformer wants them, from the encoder's: the inverse of [`denormalise`].
///
/// # Shapes
/// `latents` and result: `[batch, channels, frames, height, width]`.
///
/// # Errors
/// libtorch's.
pub fn normalise(spec: &VaeSpec, latents: &Tensor) -> Result<Tensor> {
    let mut centred = latents.f_sub(&per_channel(&spec.latents_mean, latents)?)?;
    let _ = centred.f_div_(&per_channel(&spec.latents_std, latents)?)?;
    Ok(centred)
}

/// One value a channel, to go with `latents`.
fn per_channel(values: &[f64], latents: &Tensor) -> Result<Tensor> {
    let values = Tensor::f_from_slice(values)?.f_view([1, -1, 1, 1, 1])?;
    Ok(values.f_to_kind(latents.kind())?.f_to_device(latents.device())?)
}
