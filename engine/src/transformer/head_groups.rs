//! Self-attention some heads at a time, so that keys and values exist for those alone.
//!
//! Note: what that costs.
//! Queries and keys are normed over the channels of all heads, so each token's norm must be known before the first head can begin: one pass over
//! all tokens projects them for their norms' sake alone. And the hidden state must stay as it is until the last head is done, so what heads
//! attend to waits beside it, as wide as it. Against that stand keys and values, each as wide as the hidden state, of which only `head_chunk` heads'
//! share is left.

use tch::{Kind, Tensor};

use super::block::{Block, joined};
use super::rope;
use super::slices::{Gathered, slice, slices};
use crate::error::Result;
use crate::kernels::norm_and_turn;
use crate::weights::Weights;

/// One over the root mean square of each token's channels: `[B, L, 1]`, fp32.
struct Scales {
    query: Tensor,
    key: Tensor,
}

/// A projection, and the weight of the norm after it.
const QUERY: (&str, &str) = ("attn1.to_q", "attn1.norm_q.weight");
const KEY: (&str, &str) = ("attn1.to_k", "attn1.norm_k.weight");

impl Block<'_> {
    /// Self-attention of `heads` heads at a time: `add` is given what each slice of tokens attends to, when nobody reads the hidden state any more.
    ///
    /// # Errors
    /// libtorch's, and those of `norm` and `add`.
    pub(super) fn attend_by_heads(
        &self,
        w: &Weights,
        hidden: &Tensor,
        heads: i64,
        norm: impl Fn((i64, i64)) -> Result<Tensor>,
        mut add: impl FnMut(i64, Tensor) -> Result<()>,
    ) -> Result<()> {
        let tokens = hidden.size()[1];
        let scales = self.scales(w, tokens, &norm)?;

        // 1. What each group of heads attends to, side by side.
        let attended = Tensor::f_empty(hidden.size(), (hidden.kind(), hidden.device()))?;
        for group in slices(self.spec.num_attention_heads, Some(heads)) {
            self.attend_with(w, &norm, &scales, group, &attended)?;
        }

        // 2. Projected.
        self.slices(tokens).try_for_each(|(start, length)| add(start, slice(&attended, start, length)?))
    }

    /// The scales of every token's queries and keys.
    fn scales(&self, w: &Weights, tokens: i64, norm: impl Fn((i64, i64)) -> Result<Tensor>) -> Result<Scales> {
        let (mut query, mut key) = (Gathered::new(tokens), Gathered::new(tokens));
        for (start, length) in self.slices(tokens) {
            let normed = norm((start, length))?;
            let scale = |projection: &str| -> Result<Tensor> {
                let projected = w.linear(projection, &normed)?;
                let channels = projected.size()[2] as f64;
                let norms = projected.f_linalg_norm(2, [-1].as_slice(), true, Kind::Float)?;
                Ok(norms.f_square()?.f_div_scalar(channels)?.f_add_scalar(self.spec.eps)?.f_rsqrt()?)
            };
            query.put(start, scale(QUERY.0)?)?;
            key.put(start, scale(KEY.0)?)?;
        }
        Ok(Scales { query: query.whole(), key: key.whole() })
    }

    /// Writes what the heads `(first, count)` attend to into their channels of `attended`.
    fn attend_with(
        &self,
        w: &Weights,
        norm: impl Fn((i64, i64)) -> Result<Tensor>,
        scales: &Scales,
        heads: (i64, i64),
        attended: &Tensor,
    ) -> Result<()> {
        let tokens = attended.size()[1];
        let width = self.spec.attention_head_dim;
        let (first, count) = (heads.0 * width, heads.1 * width);
        let turned = |names: (&str, &str), scale: &Tensor, normed: &Tensor, start: i64| -> Result<Tensor> {
            let length = normed.size()[1];
            let projected = w.linear_part(names.0, normed, first, count)?;
            let (scale, turns) = (slice(scale, start, length)?, self.rope.f_narrow(0, start, length)?);
            let weight = w.get(names.1).f_narrow(0, first, count)?;
            if self.fused {
                norm_and_turn(&projected, &weight, Some(&scale.f_contiguous()?), &turns, self.spec.eps)?;
                return Ok(projected);
            }
            let mut wide = projected.f_to_kind(Kind::Float)?;
            drop(projected);
            let _ = wide.f_mul_(&scale)?;
            let _ = wide.f_mul_(&weight)?;
            let x = wide.f_to_kind(normed.kind())?;
            drop(wide);
            rope::turn(&x, &turns)?;
            Ok(x)
        };

        // 1. Keys and values of all tokens.
        let keys = self.keys_of_all(tokens, |(start, length), values, keys| {
            let normed = norm((start, length))?;
            if let Some(values) = values {
                self.gather(values, start, w.linear_part("attn1.to_v", &normed, first, count)?)?;
            }
            keys.map_or(Ok(()), |keys| self.gather(keys, start, turned(KEY, &scales.key, &normed, start)?))
        })?;

        // 2. Queries of a slice against all of them.
        let query = |(start, length)| self.heads(&turned(QUERY, &scales.query, &norm((start, length))?, start)?);
        keys.attend(self.slices(tokens), query, |(start, length), result| {
            slice(attended, start, length)?.f_narrow(2, first, count)?.f_copy_(&joined(result)?)?;
            Ok(())
        })
    }
}
