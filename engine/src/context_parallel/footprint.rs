//! What self-attention over several ranks holds on one of them, and what it sends, from shapes alone.
//!
//! Note: what exists at once.
//! Keys and values are exchanged a slice at a time, as they are made: what is exchanged is there twice, as it lies and as it is sent, beside what it is made from, and then what is got goes
//! where keys are gathered. Queries are the same, and are put together at the end; of what was attended to all that is given stays until then. Round a ring
//! go keys and values, of which those that go and those that come are there at once, beside all of a rank's queries and what they attended to in fp32. What NCCL has for itself is not in it.

use super::shares::Part;
use crate::attention::{AttentionHolds, AttentionShape, KeyBytes};

/// Bytes of an fp32 number.
const FP32: i64 = 4;

/// One rank's self-attention.
#[derive(Debug, Clone, Copy)]
pub struct RankAttention {
    /// What the rank has of the sequence.
    pub part: Part,
    /// Videos.
    pub batch: i64,
    /// Heads that are taken at a time.
    pub heads: i64,
    /// Channels of a head.
    pub width: i64,
    /// Tokens of a unit of the sequence, padding included.
    pub unit: i64,
    /// Those of a slice of the rank's part.
    pub slice: i64,
    /// Bytes of a number.
    pub bytes: i64,
}

impl RankAttention {
    /// The most bytes that it holds at once, keys and values among them. A slice's keys and queries are made from so many bytes, and to make them takes so many in all.
    pub fn held_bytes(self, holds: AttentionHolds, [made_from, making]: [i64; 2]) -> i64 {
        let Part { own, exchanged, passed: [largest, neighbours], .. } = self.part;
        let heads = self.part.heads(self.heads);
        // Of those that exchange heads, a slice of each.
        let exchanged_slice = self.slice / own * exchanged;
        let [keys, largest_keys, neighbours] = [exchanged, largest, neighbours].map(|units| self.of(heads, self.unit * units));
        let (lies, got) = (self.of(self.heads, self.slice), self.of(heads, exchanged_slice));
        let slice = lies.max(got);
        let exchanges = self.exchanges();
        // As it lies, and as it is sent.
        let key_exchanged = if exchanges { 2 * slice } else { 0 };
        let query_exchanged = if exchanges { 2 * slice } else { slice };
        // All that is given, what is got, and that put together.
        let given_back = if exchanges { got + 2 * lies - self.of(heads, self.slice) } else { slice };
        let making_queries = making.max(query_exchanged);
        let is_ring = self.part.units > exchanged;
        let shape = AttentionShape {
            batch: self.batch,
            heads,
            queries: exchanged_slice,
            keys: self.unit * if is_ring { largest } else { exchanged },
            width: self.width,
        };
        let KeyBytes { gathered, made_ready, held } = shape.key_bytes(holds, self.bytes);
        // Values, as keys come.
        let values = if is_ring { keys } else { gathered - keys };
        let gathering = if self.slice < self.unit * own {
            values + keys + making.max(made_from + key_exchanged)
        } else {
            // One slice: what it is made from goes with its last use.
            (made_from + key_exchanged).max(values + making.max(key_exchanged))
        };
        if !is_ring {
            let attending = slice + shape.attending_bytes(holds, self.bytes);
            return gathering.max(made_ready).max(held + making_queries.max(attending).max(given_back));
        }
        let (queries, row_sums) = (keys, self.batch * heads * self.unit * exchanged * FP32);
        let merged = self.in_fp32(keys) + row_sums;
        // What comes of one rank's keys, and that in fp32.
        let part = shape.attending_bytes(AttentionHolds::Rows, self.bytes) + if self.bytes == FP32 { 0 } else { self.in_fp32(slice) };
        let made = 2 * keys + queries + making_queries;
        let attended = queries + merged + (2 * neighbours).max(2 * largest_keys + part);
        gathering.max(made).max(attended).max(merged + given_back)
    }

    /// The bytes that the rank sends to others.
    pub fn sent_bytes(self) -> i64 {
        let Part { own, exchanged, passed_on, .. } = self.part;
        let heads = self.part.heads(self.heads);
        // Of queries, keys and values the heads of all others, and what was attended to of their tokens. Keys and values to the next rank, but after the last turn.
        let heads_of_others = 3 * self.of(self.heads - heads, self.unit * own) + self.of(heads, self.unit * (exchanged - own));
        let round = if self.part.units > exchanged { 2 * self.of(heads, self.unit * passed_on) } else { 0 };
        heads_of_others + round
    }

    fn exchanges(self) -> bool {
        self.part.exchanged > self.part.own
    }

    /// Bytes of so many heads of so many tokens.
    fn of(self, heads: i64, tokens: i64) -> i64 {
        self.batch * heads * tokens * self.width * self.bytes
    }

    fn in_fp32(self, bytes: i64) -> i64 {
        bytes / self.bytes * FP32
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::Shares;
    use super::*;

    /// Four heads of sixteen channels of eight tokens, in 16 bits: 1024 bytes a tensor.
    fn of(cp_ulysses: usize, cp_ring: usize) -> RankAttention {
        let part = Shares::even(cp_ulysses * cp_ring, cp_ulysses).part(0);
        RankAttention { part, batch: 1, heads: 4, width: 16, unit: 8, slice: 8, bytes: 2 }
    }

    #[test]
    fn heads_of_all_others_and_keys_on_every_turn_but_the_last_are_sent() {
        assert_eq!(of(1, 1).sent_bytes(), 0);
        assert_eq!(of(2, 1).sent_bytes(), 4 * 512);
        assert_eq!(of(4, 1).sent_bytes(), 4 * 768);
        assert_eq!(of(1, 3).sent_bytes(), 2 * 2 * 1024);
        assert_eq!(of(2, 3).sent_bytes(), 4 * 512 + 2 * 2 * 1024);
    }

    #[test]
    fn an_exchange_and_a_ring_hold_more_than_keys_and_values() {
        let held = |ranks: RankAttention| ranks.held_bytes(AttentionHolds::Rows, [0, 0]);
        // Keys, values, queries, result, and a number a row.
        assert_eq!(held(of(1, 1)), 4 * 1024 + 4 * 8 * 4);
        // Keys and values, and of the result what is given, what is got from the other rank, and both put together.
        assert_eq!(held(of(2, 1)), 2 * 1024 + 1024 + 512 + 1024);
        // Queries, what they attended to in fp32 with its sums, keys and values, and what comes of those: with its sums, and in fp32.
        assert_eq!(held(of(1, 2)), 1024 + (2048 + 128) + 2 * 1024 + (1024 + 128 + 2048));
        // In short slices that is less than the keys and values of the next rank, which come while those that are here go.
        let short = RankAttention { slice: 1, ..of(1, 2) };
        assert_eq!(held(short), 1024 + (2048 + 128) + 4 * 1024);
    }
}
