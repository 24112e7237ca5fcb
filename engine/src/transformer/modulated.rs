//! What the timestep does to one of a block's two steps: to what goes in, and to what comes out.

use tch::{Kind, Tensor};

use super::norm::Affine;
use super::slices::slice;
use super::timestep::ByToken;
use crate::error::Result;
use crate::kernels::gate_and_residual;

pub(super) struct Modulated {
    norm: Affine,
    /// How much of the result is added, `[dim]` in fp32.
    pub(super) gate: Tensor,
}

impl Modulated {
    /// From fp32 rows, for a hidden state of type `kind`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new([shift, scale, gate]: [&Tensor; 3], kind: Kind, fused: bool) -> Result<Self> {
        Ok(Self { norm: Affine::new(1.0, [scale, shift], kind, fused)?, gate: gate.shallow_clone() })
    }
}

impl AsRef<Affine> for Modulated {
    fn as_ref(&self) -> &Affine {
        &self.norm
    }
}

impl ByToken<Modulated> {
    /// Adds `gate · out`, and what is `left` to be added to each token, to the tokens of `hidden` from `start` on. fp32 inside, since the gate is: rounded once.
    ///
    /// # Errors
    /// libtorch's, and those of the kernel.
    pub(super) fn add_gated(&self, hidden: &Tensor, start: i64, out: &Tensor, left: Option<&Tensor>) -> Result<()> {
        self.over((start, out.size()[1])).try_for_each(|((first, length), step)| {
            let (mut part, out) = (slice(hidden, first, length)?, slice(out, first - start, length)?);
            if let Some(left) = left {
                return gate_and_residual(&part, &out.f_contiguous()?, &step.gate, left);
            }
            let _ = part.f_addcmul_(&out, &step.gate)?;
            Ok(())
        })
    }
}
