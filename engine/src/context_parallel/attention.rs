//! Self-attention of one rank's tokens over those of all.
//!
//! Note: the two ways, and both at once.
//! Ulysses (DeepSpeed-Ulysses, arXiv:2309.14509): ranks exchange heads for tokens, so that each has all tokens of the group for its share of the heads; attention is as ever, and
//! what it gives goes the other way. Ring attention (arXiv:2310.01889): keys and values go from rank to rank; queries meet one rank's keys at a time, and what comes
//! of that is merged in fp32. Together the keys that go round a ring are those of all tokens of an Ulysses group.
//! Padding stands at the end of the sequence, so the keys of a group have it at their end, where they are cut off: no query sees it. Queries that are padding attend like any
//! other, and nobody reads what comes of them.

use std::cell::Cell;

use tch::Tensor;

use super::shard::Shard;
use super::shares::Part;
use crate::attention::{Attention, Keys, Merged, Values};
use crate::collectives::Group;
use crate::error::Result;

/// Axes of `[B, heads, tokens, D]`.
const HEADS: i64 = 1;
const TOKENS: i64 = 2;

/// Start and length of a slice of a rank's tokens.
type Slice = (i64, i64);

/// The keys and values of all tokens, as one rank has them.
#[derive(Debug)]
pub struct SequenceKeys {
    exchange: Exchange,
    held: Held,
}

/// Heads for tokens, and the other way.
#[derive(Debug)]
struct Exchange {
    group: Group,
    own: Part,
    /// What each of the group has.
    all: Vec<Part>,
}

#[derive(Debug)]
enum Held {
    /// Those of all tokens.
    All(Keys),
    /// Those of this rank's Ulysses group, which go round.
    InARing(Ring),
}

#[derive(Debug)]
struct Ring {
    group: Group,
    /// Units of each rank's part and of those that exchange heads with it, those before it and those of its own.
    units: Vec<[i64; 2]>,
    shard: Shard,
    attention: Attention,
    keys_and_values: [Tensor; 2],
}

impl SequenceKeys {
    /// `exchanging` is what each has that exchanges heads, `units` what each of the ring: see [`Ring`].
    pub(super) fn new(
        [ulysses, ring]: [&Group; 2],
        exchanging: Vec<Part>,
        units: Vec<[i64; 2]>,
        shard: Shard,
        attention: Attention,
        (keys, values): (Tensor, Values),
    ) -> Result<Self> {
        let exchange = Exchange { group: ulysses.clone(), own: shard.part, all: exchanging };
        let held = if ring.size() > 1 {
            Held::InARing(Ring { group: ring.clone(), units, shard, attention, keys_and_values: [keys, values.as_they_are()?] })
        } else {
            Held::All(Keys::with_values(first(keys, shard.tokens)?, values)?)
        };
        Ok(Self { exchange, held })
    }

    /// Attention of the rank's own tokens, a slice at a time: `query` makes the queries of one, `put` takes what they attended to, each slice once and in order. When the first
    /// one is put, the queries of the later ones may be open still, but where keys go round.
    ///
    /// # Shapes
    /// Both are `[B, heads, slice, D]`.
    ///
    /// # Errors
    /// Those of [`Keys::attend`], of `query` and of `put`, and what the ranks say.
    pub fn attend(
        self,
        slices: impl Iterator<Item = Slice>,
        mut query: impl FnMut(Slice) -> Result<Tensor>,
        mut put: impl FnMut(Slice, Tensor) -> Result<()>,
    ) -> Result<()> {
        let Self { exchange, held } = self;
        // Of all ranks, as queries have them.
        let heads = Cell::new(0);
        let mut query = |slice| {
            let query = query(slice)?;
            heads.set(query.size()[HEADS as usize]);
            exchange.heads_for_tokens(query)
        };
        let mut put = |slice, attended| put(slice, exchange.tokens_for_heads(attended, heads.get())?);
        match held {
            Held::All(keys) => {
                for slice in slices {
                    let attended = keys.attend(&query(slice)?)?;
                    put(slice, attended)?;
                }
            }
            Held::InARing(ring) => {
                let slices: Vec<Slice> = slices.collect();
                let queries = slices.iter().map(|&slice| query(slice)).collect::<Result<Vec<_>>>()?;
                let attended = ring.attend(&queries)?;
                drop(queries);
                for (slice, attended) in slices.into_iter().zip(attended) {
                    put(slice, attended.rounded()?)?;
                }
            }
        }
        Ok(())
    }
}

impl Ring {
    /// What all queries attended to once the keys of every rank have come by.
    fn attend(self, queries: &[Tensor]) -> Result<Vec<Merged>> {
        let Self { group, units, shard, attention, mut keys_and_values } = self;
        let (size, rank) = (group.size(), group.rank());
        let mut merged: Vec<Merged> = queries.iter().map(|_| Merged::default()).collect();
        for turn in 0..size {
            // 1. The keys that are here are those of the rank so many places before.
            let of = (rank + size - turn) % size;
            let [start, length] = units[of].map(|units| shard.length_of(units));
            let real = shard.real_from(start, length);
            if real > 0 {
                let [keys, values] = [0, 1].map(|place: usize| first(keys_and_values[place].shallow_clone(), real));
                let keys = Keys::new(attention, keys?, values?)?;
                for (query, merged) in queries.iter().zip(&mut merged) {
                    merged.add(keys.attend_in_part(query)?)?;
                }
            }
            // 2. And on they go, but after the last turn.
            if turn + 1 < size {
                // Tokens lie one after the other, as models have them: so nothing is copied.
                let [keys, values] = keys_and_values.map(|x| x.f_transpose(HEADS, TOKENS));
                let next = shard.length_of(units[(of + size - 1) % size][1]);
                let [keys, values] = group.pass_on([keys?, values?], HEADS, next)?;
                keys_and_values = [keys.f_transpose(HEADS, TOKENS)?, values.f_transpose(HEADS, TOKENS)?];
            }
        }
        Ok(merged)
    }
}

/// The first so many tokens; all of them are `x` itself.
pub(super) fn first(x: Tensor, tokens: i64) -> Result<Tensor> {
    if x.size()[TOKENS as usize] == tokens { Ok(x) } else { Ok(x.f_narrow(TOKENS, 0, tokens)?) }
}

impl Exchange {
    /// All heads of a rank's tokens for a rank's heads of all tokens: `[B, heads, n, D]` to `[B, heads of this rank, n of all, D]`.
    fn heads_for_tokens(&self, x: Tensor) -> Result<Tensor> {
        let [heads, tokens] = [HEADS, TOKENS].map(|axis| x.size()[axis as usize]);
        let given = self.all.iter().map(|other| other.heads(heads)).collect();
        let got: Vec<i64> = self.all.iter().map(|other| self.own.as_much(tokens, *other)).collect();
        self.exchanged(x, (HEADS, given), (TOKENS, &got))
    }

    /// The other way, where all ranks together have so many heads.
    fn tokens_for_heads(&self, x: Tensor, heads: i64) -> Result<Tensor> {
        let tokens = x.size()[TOKENS as usize];
        let given = self.all.iter().map(|other| tokens / self.own.exchanged * other.own).collect();
        let got: Vec<i64> = self.all.iter().map(|other| other.heads(heads)).collect();
        self.exchanged(x, (TOKENS, given), (HEADS, &got))
    }

    /// Gives each rank its part along `given`, and puts what comes together along `got`. Tokens lie one after the other, as models have them.
    fn exchanged(&self, x: Tensor, given: (i64, Vec<i64>), got: (i64, &[i64])) -> Result<Tensor> {
        if self.group.size() == 1 {
            return Ok(x);
        }
        let by_token = x.f_transpose(HEADS, TOKENS)?;
        drop(x);
        // Their places are each other's there.
        let [given_axis, got_axis] = [given.0, got.0].map(|axis| HEADS + TOKENS - axis);
        let parts = by_token.f_split_with_sizes(given.1, given_axis)?;
        drop(by_token);
        let parts = self.group.all_to_all(parts, got_axis, got.1)?;
        Ok(Tensor::f_cat(&parts, got_axis)?.f_transpose(HEADS, TOKENS)?)
    }
}
