//! Attention over some of the keys at a time: what each part comes to is merged by the logarithm of its sum of exponentials, in fp32 (online softmax, as in arXiv:2112.05682).

use tch::{Kind, Tensor};

use crate::error::Result;

/// Attention over some of the keys.
#[derive(Debug)]
pub struct InPart {
    /// What queries attended to, `[B, heads, Lq, D]`.
    pub(super) attended: Tensor,
    /// Of each row of scores the logarithm of the sum of exponentials, `[B, heads, Lq]`, fp32.
    pub(super) log_sum: Tensor,
}

/// Attention over all keys that were added until now.
#[derive(Debug, Default)]
pub struct Merged {
    /// In fp32, and the type that it is rounded to.
    parts: Option<(InPart, Kind)>,
}

impl Merged {
    /// Adds attention over further keys.
    ///
    /// # Errors
    /// libtorch's.
    pub fn add(&mut self, InPart { attended, log_sum }: InPart) -> Result<()> {
        let kind = attended.kind();
        let attended = attended.f_to_kind(Kind::Float)?;
        let Some((all, _)) = &mut self.parts else {
            self.parts = Some((InPart { attended, log_sum }, kind));
            return Ok(());
        };
        let sum = all.log_sum.f_logaddexp(&log_sum)?;
        let share = |part: &Tensor| -> Result<Tensor> { Ok(part.f_sub(&sum)?.f_exp()?.f_unsqueeze(-1)?) };
        let _ = all.attended.f_mul_(&share(&all.log_sum)?)?;
        let _ = all.attended.f_addcmul_(&attended, &share(&log_sum)?)?;
        all.log_sum = sum;
        Ok(())
    }

    /// The result, in the queries' type.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Panics
    /// When nothing was added: a sequence has at least one token.
    pub fn rounded(self) -> Result<Tensor> {
        let (all, kind) = self.parts.expect("a sequence has at least one token");
        Ok(all.attended.f_to_kind(kind)?)
    }
}
