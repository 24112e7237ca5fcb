//! Layer norms of the hidden state, each with its scale and shift.

use tch::{Kind, Tensor};

use super::slices::{Gathered, slice};
use super::timestep::ByToken;
use crate::error::Result;
use crate::kernels::layer_norm;

/// What a layer norm does to what it has normed, `[dim]` each.
pub(super) enum Affine {
    /// `x weight + bias`, in the hidden state's type: as libtorch's kernel takes them.
    Libtorch { weight: Tensor, bias: Tensor },
    /// `x (offset + scale) + shift`, in fp32 where they lie: as our own kernel takes them.
    Fused { offset: f64, scale: Tensor, shift: Tensor },
}

impl Affine {
    /// `x (offset + scale) + shift`, both in fp32, for a hidden state of type `kind`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(offset: f64, [scale, shift]: [&Tensor; 2], kind: Kind, fused: bool) -> Result<Self> {
        if fused {
            return Ok(Self::Fused { offset, scale: scale.shallow_clone(), shift: shift.shallow_clone() });
        }
        let weight = if offset == 0.0 { scale.shallow_clone() } else { scale.f_add_scalar(offset)? };
        Ok(Self::Libtorch { weight: weight.f_to_kind(kind)?, bias: shift.f_to_kind(kind)? })
    }

    /// The layer norm of `x` plus what is `left` to be added to each token, over its channels, then scale and shift: fp32 inside and rounded once.
    ///
    /// # Errors
    /// libtorch's, and those of the kernel.
    pub(super) fn layer_norm(&self, x: &Tensor, left: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        match (self, left) {
            (Self::Fused { offset, scale, shift }, _) => layer_norm(x, left, *offset, [scale, shift], eps),
            (Self::Libtorch { .. }, Some(left)) => self.layer_norm(&x.f_add(left)?, None, eps),
            (Self::Libtorch { weight, bias }, None) => Ok(x.f_layer_norm(weight.size(), Some(weight), Some(bias), eps, false)?),
        }
    }
}

impl AsRef<Affine> for Affine {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T: AsRef<Affine>> ByToken<T> {
    /// The layer norm of a slice of `hidden`, each token with its own scale and shift, and with what is `left` to be added to all.
    ///
    /// # Errors
    /// libtorch's, and those of the kernel.
    pub(super) fn layer_norm(&self, hidden: &Tensor, span: (i64, i64), left: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let mut normed = Gathered::new(span.1);
        for ((start, length), norm) in self.over(span) {
            normed.put(start - span.0, norm.as_ref().layer_norm(&slice(hidden, start, length)?, left, eps)?)?;
        }
        Ok(normed.whole())
    }
}
