//! The ranks that have the parts of one sequence.

use std::sync::Arc;

use tch::Tensor;

use super::attention::{SequenceKeys, first};
use super::shard::Shard;
use super::shares::{Part, Shares};
use crate::attention::{Attention, Values};
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
    /// What each has of the sequence.
    pub(super) shares: Shares,
}

impl Sequence {
    /// One rank that has all of it.
    pub fn whole_on_one() -> Self {
        let alone = || -> Group { Arc::new(Alone) };
        Self { parts: alone(), ulysses: alone(), ring: alone(), shares: Shares::even(1, 1) }
    }

    /// All of its ranks.
    pub fn group(&self) -> &Group {
        &self.parts
    }

    /// This rank's part of a sequence of so many tokens.
    pub fn shard(&self, tokens: i64) -> Shard {
        Shard { tokens, part: self.shares.part(self.parts.rank()) }
    }

    /// Of how many tokens a rank holds keys and values, each rank's part after that of the one before: those of all that exchange heads with it.
    pub fn keys_held(&self, shard: Shard) -> i64 {
        shard.length_of(shard.part.exchanged)
    }

    /// Of some tokens of each rank that exchanges heads with this one, those from `start` on of its own and as much of the others, the keys or the values of this one's heads: each with
    /// where it stands among all of theirs. `width` are the channels of a head.
    ///
    /// # Shapes
    /// `[B, n, heads · D]`; each of what comes is `[B, n of that rank, heads of this one · D]`.
    ///
    /// # Errors
    /// What the ranks say, and libtorch's.
    pub fn heads_of_all(&self, shard: Shard, start: i64, part: Tensor, width: i64) -> Result<Vec<(i64, Tensor)>> {
        if self.ulysses.size() == 1 {
            return Ok(vec![(start, part)]);
        }
        let (own, all) = (shard.part, self.exchanging());
        let [_, tokens, channels] = [0, 1, 2].map(|axis| part.size()[axis]);
        let given: Vec<i64> = all.iter().map(|other| other.heads(channels / width) * width).collect();
        let got: Vec<i64> = all.iter().map(|other| own.as_much(tokens, *other)).collect();
        let parts = part.f_split_with_sizes(given, 2)?;
        drop(part);
        let parts = self.ulysses.all_to_all(parts, 1, &got)?;
        let begin = |other: &Part| shard.length_of(other.first - all[0].first) + own.as_much(start, *other);
        Ok(all.iter().map(begin).zip(parts).collect())
    }

    /// Of each rank of the ring, with those that exchange heads with it: the units before them, and their own.
    pub(super) fn passed_on(&self) -> Vec<[i64; 2]> {
        let ulysses = self.ulysses.size();
        let first = |place: usize| self.shares.part(place * ulysses);
        (0..self.ring.size()).map(first).map(|part| [part.first, part.exchanged]).collect()
    }

    /// What each has that exchanges heads with this rank.
    pub(super) fn exchanging(&self) -> Vec<Part> {
        self.shares.exchanging(self.parts.rank()).collect()
    }

    /// The values of all tokens for self-attention, of those that were gathered.
    ///
    /// # Shapes
    /// `[B, heads of this rank, tokens of all that exchange heads with it, D]`.
    ///
    /// # Errors
    /// Those of [`Values::new`].
    pub fn values(&self, shard: Shard, attention: Attention, values: Tensor) -> Result<Values> {
        // Those that go round have their padding until they are all here.
        let values = if self.ring.size() > 1 { values } else { first(values, shard.tokens)? };
        Values::new(attention, values)
    }

    /// The keys of all tokens for self-attention, of those that were gathered, with their values.
    ///
    /// # Shapes
    /// As those of the values.
    ///
    /// # Errors
    /// Those of [`crate::attention::Keys::with_values`], and what the ranks say.
    pub fn keys(&self, shard: Shard, attention: Attention, keys: Tensor, values: Values) -> Result<SequenceKeys> {
        SequenceKeys::new([&self.ulysses, &self.ring], self.exchanging(), self.passed_on(), shard, attention, (keys, values))
    }

    /// The whole sequence without padding, of each rank's part.
    ///
    /// # Shapes
    /// `[B, length, channels]` to `[B, tokens, channels]`.
    ///
    /// # Errors
    /// What the ranks say, and libtorch's.
    pub fn whole(&self, shard: Shard, part: Tensor) -> Result<Tensor> {
        if self.parts.size() == 1 {
            return Ok(part);
        }
        // All give as much, so that a shorter part has room behind it.
        let [length, longest] = [shard.length(), shard.length_of(shard.part.largest)];
        let given = if length < longest { part.f_constant_pad_nd([0, 0, 0, longest - length])? } else { part };
        let parts = self.parts.all_gather(&given)?;
        drop(given);
        let own = |(part, given): (usize, Tensor)| given.f_narrow(1, 0, shard.length_of(self.shares.part(part).own));
        let parts = parts.into_iter().enumerate().map(own).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&parts, 1)?.f_narrow(1, 0, shard.tokens)?)
    }
}
