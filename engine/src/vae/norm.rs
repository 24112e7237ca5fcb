//! The VAE's norm.
//!
//! Follows `WanRMS_norm` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::Tensor;

use crate::error::Result;
use crate::weights::{Group, Weights};

/// Added to the mean square of a position's channels: far below what matters, so the norm equals the reference's `x / max(|x|, 1e-12)`,
/// and still a normal fp32 number, so zeros stay zeros.
const NORM_EPSILON: f64 = 1e-24;

/// Bytes that are normalised at a time. Reading and writing 16 MiB takes a GPU with 1 TB/s some 30 microseconds, several times what it takes to
/// launch a kernel.
pub(super) const SLICE_BYTES: i64 = 16 << 20;

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

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        group.param(&self.gamma, &[self.channels])
    }

    /// One kernel, which accumulates in fp32 whatever the type is.
    ///
    /// # Shapes
    /// `x` and result: `[.., channels]`.
    pub(super) fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_rms_norm([self.channels], Some(w.get(&self.gamma)), NORM_EPSILON)?)
    }

    /// Norm and SiLU of `x` into `into`, some frames at a time where there are many, so that what is between the two stays small.
    ///
    /// # Shapes
    /// `x` and `into`: `[batch, frames, height, width, channels]`.
    pub(super) fn silu_into(&self, w: &Weights, x: &Tensor, into: &Tensor) -> Result<()> {
        let (batch, frames, height, width, channels) = x.size5()?;
        let frame_bytes = batch * height * width * channels * x.kind().elt_size_in_bytes() as i64;
        let step = (SLICE_BYTES / frame_bytes).max(1);
        if frames <= step {
            drop(self.forward(w, x)?.f_silu_out(into)?);
            return Ok(());
        }
        for start in (0..frames).step_by(step as usize) {
            let len = step.min(frames - start);
            drop(self.forward(w, &x.f_narrow(1, start, len)?)?.f_silu_out(&into.f_narrow(1, start, len)?)?);
        }
        Ok(())
    }
}
