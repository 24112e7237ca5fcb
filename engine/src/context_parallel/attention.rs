//! Self-attention of one rank's tokens over those of all.
//!
//! Note: the two ways, and both at once.
//! Ulysses (DeepSpeed-Ulysses, arXiv:2309.14509): ranks exchange heads for tokens, so that each has all tokens of the group for its share of the heads; attention is as ever, and
//! what it gives goes the other way. Ring attention (arXiv:2310.01889): keys and values go from rank to rank; queries meet one rank's keys at a time, and what comes
//! of that is merged in fp32. Together the keys that go round a ring are those of all tokens of an Ulysses group.
//! Padding stands at the end of the sequence, so the keys of a group have it at their end, where they are cut off: no query sees it. Queries that are padding attend like any
//! other, and nobody reads what comes of them.

use tch::Tensor;

use super::shard::Shard;
use crate::attention::{Attention, Keys, Merged};
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
    ulysses: Group,
    held: Held,
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
    shard: Shard,
    attention: Attention,
    keys_and_values: [Tensor; 2],
}

impl SequenceKeys {
    pub(super) fn new([ulysses, ring]: [&Group; 2], shard: Shard, attention: Attention, keys_and_values: [Tensor; 2]) -> Result<Self> {
        let held = if ring.size() > 1 {
            Held::InARing(Ring { group: ring.clone(), shard, attention, keys_and_values })
        } else {
            let [keys, values] = keys_and_values.map(|x| first(x, shard.tokens));
            Held::All(Keys::new(attention, keys?, values?)?)
        };
        Ok(Self { ulysses: ulysses.clone(), held })
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
        let Self { ulysses, held } = self;
        let mut query = |slice| heads_for_tokens(&ulysses, query(slice)?);
        let mut put = |slice, attended| put(slice, tokens_for_heads(&ulysses, attended)?);
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
        let Self { group, shard, attention, mut keys_and_values } = self;
        let (size, rank) = (group.size(), group.rank());
        // Tokens of an Ulysses group.
        let length = keys_and_values[0].size()[TOKENS as usize];
        let mut merged: Vec<Merged> = queries.iter().map(|_| Merged::default()).collect();
        for turn in 0..size {
            // 1. The keys that are here are those of the rank so many places before.
            let of = (rank + size - turn) % size;
            let real = shard.real_from(of as i64 * length, length);
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
                let [keys, values] = group.pass_on([keys?, values?])?;
                keys_and_values = [keys.f_transpose(HEADS, TOKENS)?, values.f_transpose(HEADS, TOKENS)?];
            }
        }
        Ok(merged)
    }
}

/// The first so many tokens; all of them are `x` itself.
fn first(x: Tensor, tokens: i64) -> Result<Tensor> {
    if x.size()[TOKENS as usize] == tokens { Ok(x) } else { Ok(x.f_narrow(TOKENS, 0, tokens)?) }
}

/// All heads of a rank's tokens for a rank's heads of all tokens: `[B, heads, n, D]` to `[B, heads / u, u·n, D]`.
fn heads_for_tokens(ulysses: &Group, x: Tensor) -> Result<Tensor> {
    exchanged(ulysses, x, HEADS, TOKENS)
}

/// The other way.
fn tokens_for_heads(ulysses: &Group, x: Tensor) -> Result<Tensor> {
    exchanged(ulysses, x, TOKENS, HEADS)
}

/// Gives each rank its part along `given`, and puts what comes together along `got`. Tokens lie one after the other, as models have them.
fn exchanged(group: &Group, x: Tensor, given: i64, got: i64) -> Result<Tensor> {
    let size = group.size() as i64;
    if size == 1 {
        return Ok(x);
    }
    let by_token = x.f_transpose(HEADS, TOKENS)?;
    drop(x);
    // Their places are each other's there.
    let (given, got) = (HEADS + TOKENS - given, HEADS + TOKENS - got);
    let parts = by_token.f_chunk(size, given)?;
    drop(by_token);
    let parts = group.all_to_all(parts)?;
    Ok(Tensor::f_cat(&parts, got)?.f_transpose(HEADS, TOKENS)?)
}
