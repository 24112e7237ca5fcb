//! What self-attention over several ranks holds on one of them, and what it sends, from shapes alone.
//!
//! Note: what exists at once.
//! An exchange of heads for tokens has what is given, what is sent, and what is got; then that put together. Keys are exchanged beside the values. Round a ring
//! go keys and values, of which those that go and those that come are there at once, beside all of a rank's queries and what they attended to in fp32. Nothing runs on several GPUs yet, so no
//! GPU, virtual or real, was asked.

use engine_protocol::Split;

use crate::attention::{AttentionHolds, AttentionShape};

/// Bytes of an fp32 number.
const FP32: i64 = 4;

/// One rank's self-attention.
#[derive(Debug, Clone, Copy)]
pub struct RankAttention {
    /// How the sequence is split.
    pub split: Split,
    /// Videos.
    pub batch: i64,
    /// Heads that are taken at a time.
    pub heads: i64,
    /// Channels of a head.
    pub width: i64,
    /// Tokens of the rank's part, padding included.
    pub tokens: i64,
    /// Those of a slice of it.
    pub slice: i64,
    /// Bytes of a number.
    pub bytes: i64,
}

impl RankAttention {
    /// The most bytes that it holds at once, keys and values among them. To make a slice's queries takes so many bytes more.
    pub fn held_bytes(self, holds: AttentionHolds, making_queries: i64) -> i64 {
        let [keys, slice] = [self.of(self.tokens), self.of(self.slice)];
        // In an exchange: given, sent, and got.
        let [keys_exchanged, slice_exchanged] = [keys, slice].map(|tensor| if self.split.cp_ulysses > 1 { 3 * tensor } else { tensor });
        let exchanging = keys + keys_exchanged;
        let ulysses = i64::from(self.split.cp_ulysses);
        let shape = AttentionShape {
            batch: self.batch,
            heads: self.heads / ulysses,
            queries: self.slice * ulysses,
            keys: self.tokens * ulysses,
            width: self.width,
        };
        if self.split.cp_ring == 1 {
            let [made_ready, held] = shape.key_bytes(holds, self.bytes);
            let attending = slice + shape.attending_bytes(holds, self.bytes);
            return exchanging.max(made_ready).max(held + making_queries.max(attending).max(slice_exchanged));
        }
        let (queries, row_sums) = (keys, self.batch * self.heads * self.tokens * FP32);
        let merged = self.in_fp32(keys) + row_sums;
        // What comes of one rank's keys, and that in fp32.
        let part = shape.attending_bytes(AttentionHolds::Rows, self.bytes) + if self.bytes == FP32 { 0 } else { self.in_fp32(slice) };
        let made = 2 * keys + queries + making_queries.max(slice_exchanged);
        let attended = queries + merged + (4 * keys).max(2 * keys + part);
        exchanging.max(made).max(attended).max(merged + slice_exchanged)
    }

    /// The bytes that the rank sends to others.
    pub fn sent_bytes(self) -> i64 {
        let each = self.of(self.tokens);
        let (ulysses, ring) = (i64::from(self.split.cp_ulysses), i64::from(self.split.cp_ring));
        // Queries, keys, values, and what was attended to: of each the heads of all others. Keys and values to the next rank, but after the last turn.
        4 * each / ulysses * (ulysses - 1) + 2 * each * (ring - 1)
    }

    /// Bytes of so many tokens.
    fn of(self, tokens: i64) -> i64 {
        self.batch * self.heads * tokens * self.width * self.bytes
    }

    fn in_fp32(self, bytes: i64) -> i64 {
        bytes / self.bytes * FP32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four heads of two channels of eight tokens, in 16 bits: 128 bytes a tensor.
    fn of(cp_ulysses: u32, cp_ring: u32) -> RankAttention {
        RankAttention { split: Split { cp_ulysses, cp_ring, ..Split::ONE }, batch: 1, heads: 4, width: 2, tokens: 8, slice: 8, bytes: 2 }
    }

    #[test]
    fn heads_of_all_others_and_keys_on_every_turn_but_the_last_are_sent() {
        assert_eq!(of(1, 1).sent_bytes(), 0);
        assert_eq!(of(2, 1).sent_bytes(), 4 * 64);
        assert_eq!(of(4, 1).sent_bytes(), 4 * 96);
        assert_eq!(of(1, 3).sent_bytes(), 2 * 2 * 128);
        assert_eq!(of(2, 3).sent_bytes(), 4 * 64 + 2 * 2 * 128);
    }

    #[test]
    fn an_exchange_and_a_ring_hold_more_than_keys_and_values() {
        // Keys, values, queries, result, and a number a row.
        assert_eq!(of(1, 1).held_bytes(AttentionHolds::Rows, 0), 4 * 128 + 4 * 8 * 4);
        // Keys and values, and of the result what is given, sent and got.
        assert_eq!(of(2, 1).held_bytes(AttentionHolds::Rows, 0), 5 * 128);
        // Queries, what they attended to in fp32 with its sums, keys and values, and what comes of those: with its sums, and in fp32.
        assert_eq!(of(1, 2).held_bytes(AttentionHolds::Rows, 0), 128 + (256 + 128) + 2 * 128 + (128 + 128 + 256));
        // In short slices that is less than the keys and values of the next rank, which come while those that are here go.
        let short = RankAttention { slice: 1, ..of(1, 2) };
        assert_eq!(short.held_bytes(AttentionHolds::Rows, 0), 128 + (256 + 128) + 4 * 128);
    }
}
