//! The ranks that have the parts of one sequence.

use std::sync::Arc;

use engine_protocol::AttnType;
use tch::Tensor;

use super::attention::SequenceKeys;
use super::shard::Shard;
use crate::collectives::{Alone, Group};
use crate::error::Result;

/// The ranks of one sequence: `ulysses · ring`, those that exchange heads side by side.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// All of them, in the order of their parts.
    pub(super) parts: Group,
    /// Those that exchange heads for tokens: their parts follow each other.
    pub(super) ulysses: Group,
    /// Those that pass their keys on.
    pub(super) ring: Group,
}

impl Sequence {
    /// One rank that has all of it.
    pub fn whole_on_one() -> Self {
        let alone = || -> Group { Arc::new(Alone) };
        Self { parts: alone(), ulysses: alone(), ring: alone() }
    }

    /// All of its ranks.
    pub fn group(&self) -> &Group {
        &self.parts
    }

    /// This rank's part of a sequence of so many tokens.
    pub fn shard(&self, tokens: i64) -> Shard {
        Shard { tokens, parts: self.parts.size() as i64, part: self.parts.rank() as i64 }
    }

    /// The keys of all tokens for self-attention, of this rank's keys and values.
    ///
    /// # Shapes
    /// Both are `[B, heads, length, D]`.
    ///
    /// # Errors
    /// Those of [`crate::attention::Keys::new`], and what the ranks say.
    pub fn keys(&self, shard: Shard, kind: AttnType, keys: Tensor, values: Tensor) -> Result<SequenceKeys> {
        SequenceKeys::new([&self.ulysses, &self.ring], shard, kind, [keys, values])
    }

    /// The whole sequence without padding, of each rank's part.
    ///
    /// # Shapes
    /// `[B, length, channels]` to `[B, tokens, channels]`.
    ///
    /// # Errors
    /// What the ranks say, and libtorch's.
    pub fn whole(&self, shard: Shard, part: Tensor) -> Result<Tensor> {
        if shard.parts == 1 {
            return Ok(part);
        }
        let parts = self.parts.all_gather(&part)?;
        drop(part);
        Ok(Tensor::f_cat(&parts, 1)?.f_narrow(1, 0, shard.tokens)?)
    }
}
