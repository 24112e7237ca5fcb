//! The VAE's norm, and the slices in which what goes over all values of an activation does so.
//!
//! Follows `WanRMS_norm` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::{Kind, Tensor};

use super::tiling::Span;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Added to the mean square of a position's channels: far below what matters, so the norm equals the reference's `x / max(|x|, 1e-12)`,
/// and still a normal fp32 number, so zeros stay zeros.
const NORM_EPSILON: f64 = 1e-24;

/// Bytes in fp32 that are computed at a time. Reading and writing 8 MiB takes a GPU with 1 TB/s some 16 microseconds, several times what it takes to
/// launch a kernel, and what is between two kernels stays in the GPU's second-level cache.
const SLICE_BYTES: i64 = 8 << 20;

/// An activation's positions, in slices. All but the last are equal, so that one takes the other's place in the allocator.
///
/// # Shapes
/// An activation of so many `channels` has `positions` = batch x frames x height x width.
pub(super) fn position_slices(positions: i64, channels: i64) -> impl Iterator<Item = Span> {
    let step = (SLICE_BYTES / (4 * channels)).max(1);
    (0..positions).step_by(step as usize).map(move |start| Span { start, end: positions.min(start + step) })
}

/// RMS norm over channels.
#[derive(Debug)]
pub(super) struct Norm {
    gamma: String,
    channels: i64,
}

impl Norm {
    /// The norm `name`.
    pub(super) fn new(name: &str, channels: i64) -> Self {
        Self { gamma: format!("{name}.gamma"), channels }
    }

    /// Adds the layer's tensors. In fp32, as the norm computes.
    pub(super) fn params(&self, group: Group) -> Group {
        group.fp32(&self.gamma, &[self.channels])
    }

    /// Computed and returned in fp32 whatever the type is.
    ///
    /// # Shapes
    /// `x` and result: `[.., channels]`.
    pub(super) fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_to_kind(Kind::Float)?.f_rms_norm([self.channels], Some(w.get(&self.gamma)), NORM_EPSILON)?)
    }

    /// Norm and SiLU of `x` into `into`, rounded once and to its type. In slices, so that what is between the two stays small.
    ///
    /// # Shapes
    /// `x`, contiguous, and `into`, whose batch entries are: `[batch, frames, height, width, channels]`.
    pub(super) fn silu_into(&self, w: &Weights, x: &Tensor, into: &Tensor) -> Result<()> {
        let x = x.f_contiguous()?;
        for entry in 0..x.size()[0] {
            let rows = |of: &Tensor| of.f_select(0, entry)?.f_view([-1, self.channels]);
            let (x, into) = (rows(&x)?, rows(into)?);
            for Span { start, end } in position_slices(x.size()[0], self.channels) {
                let mut normed = self.forward(w, &x.f_narrow(0, start, end - start)?)?;
                let mut into = into.f_narrow(0, start, end - start)?;
                match into.kind() {
                    Kind::Float => drop(normed.f_silu_out(&into)?),
                    _ => into.f_copy_(&normed.f_silu_()?)?,
                }
            }
        }
        Ok(())
    }
}
