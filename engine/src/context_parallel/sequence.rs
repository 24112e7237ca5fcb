//! The ranks that have the parts of one sequence.

use std::sync::Arc;

use tch::Tensor;

use super::attention::SequenceKeys;
use super::shard::Shard;
use crate::attention::Attention;
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

    /// Of how many tokens a rank holds keys and values, each rank's part after that of the one before: those of all that exchange heads with it.
    pub fn keys_held(&self, shard: Shard) -> i64 {
        self.ulysses.size() as i64 * shard.length()
    }

    /// Of some tokens of each rank that exchanges heads with this one, the keys or the values of this one's heads, in the order of ranks. So much at a time is sent and received
    /// as is given here.
    ///
    /// # Shapes
    /// `[B, n, heads · D]`; each of what comes is `[B, n, heads / u · D]`.
    ///
    /// # Errors
    /// What the ranks say, and libtorch's.
    pub fn heads_of_all(&self, part: Tensor) -> Result<Vec<Tensor>> {
        let size = self.ulysses.size() as i64;
        if size == 1 {
            return Ok(vec![part]);
        }
        let parts = part.f_chunk(size, 2)?;
        drop(part);
        self.ulysses.all_to_all(parts)
    }

    /// The keys of all tokens for self-attention, of those that were gathered.
    ///
    /// # Shapes
    /// Both are `[B, heads / u, u · length, D]`.
    ///
    /// # Errors
    /// Those of [`crate::attention::Keys::new`], and what the ranks say.
    pub fn keys(&self, shard: Shard, attention: Attention, keys: Tensor, values: Tensor) -> Result<SequenceKeys> {
        SequenceKeys::new([&self.ulysses, &self.ring], shard, attention, [keys, values])
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
