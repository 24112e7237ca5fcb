//! What attention holds, from shapes alone.
//!
//! Note: what exists at once with a score matrix.
//! libtorch computes in fp32 (`_scaled_dot_product_attention_math`). Inputs of 16 bits get a copy in fp32, query and key another one that is scaled. Scores are
//! made of those; then there are the scores, their softmax, and a byte for each that says whether it is minus infinity; last the result, in fp32 and rounded,
//! beside the softmax, which is rounded too. A batched matrix product copies what does not lie as one row of matrices: heads side by side in a token, of more than one video.

use super::sage::packed_bytes;
use crate::kernels::sage::Variant;
use crate::kernels::sparge::{chosen_bytes, means_bytes};

/// Bytes of an fp32 number.
const FP32: i64 = 4;

/// What a kernel holds beside queries and result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionHolds {
    /// A number a row.
    Rows,
    /// The score matrix.
    Scores,
    /// Keys and values in 8 bits; those that they are made of go. Where keys are chosen, what that goes by, and the choice.
    Packed {
        /// Whether keys are chosen.
        chooses: bool,
    },
}

impl AttentionHolds {
    /// The same where no key is left out: cross-attention's.
    pub fn of_all_keys(self) -> Self {
        match self {
            Self::Packed { .. } => Self::Packed { chooses: false },
            other => other,
        }
    }
}

/// Bytes of keys and values, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyBytes {
    /// At most while they are gathered: packed values go before keys.
    pub gathered: i64,
    /// At most while they are made ready.
    pub made_ready: i64,
    /// After that.
    pub held: i64,
}

/// What one call of attention is given: `[batch, heads, queries, width]` against as many keys.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Videos.
    pub batch: i64,
    /// Heads.
    pub heads: i64,
    /// Rows of the score matrix.
    pub queries: i64,
    /// Its columns.
    pub keys: i64,
    /// Channels of a head.
    pub width: i64,
}

impl AttentionShape {
    /// Keys and values as they are held for all queries. Their numbers have so many `bytes`.
    pub fn key_bytes(self, holds: AttentionHolds, bytes: i64) -> KeyBytes {
        let rows = self.batch * self.heads;
        let each = rows * self.keys * self.width * bytes;
        match holds {
            AttentionHolds::Rows | AttentionHolds::Scores => KeyBytes { gathered: 2 * each, made_ready: 2 * each, held: 2 * each },
            AttentionHolds::Packed { chooses } => {
                let [key, value] = packed_bytes(rows, self.keys, self.width);
                let means = if chooses { means_bytes(rows, self.keys, Variant::head_for(self.width)) } else { 0 };
                KeyBytes { gathered: value + each, made_ready: each + key + means + value, held: key + means + value }
            }
        }
    }

    /// The most bytes that it holds at once beside queries, keys and values, its result among them.
    pub fn attending_bytes(self, holds: AttentionHolds, bytes: i64) -> i64 {
        let result = self.batch * self.heads * self.queries * self.width * bytes;
        match holds {
            AttentionHolds::Rows => result + self.batch * self.heads * self.queries * FP32,
            AttentionHolds::Scores => self.score_bytes(bytes),
            AttentionHolds::Packed { chooses: false } => result,
            AttentionHolds::Packed { chooses: true } => result + chosen_bytes(self.batch * self.heads, [self.queries, self.keys]),
        }
    }

    /// The most bytes that it holds at once beside its inputs, whose numbers have so many `bytes`.
    pub fn score_bytes(self, bytes: i64) -> i64 {
        let rows = self.batch * self.heads;
        let (scores, query, key) = (rows * self.queries * self.keys, rows * self.queries * self.width, rows * self.keys * self.width);
        let is_half = bytes != FP32;
        let copied = if self.batch > 1 && self.heads > 1 { 1 } else { 0 };
        // 1. Throughout: what was made fp32, and the scaled query.
        let in_fp32 = if is_half { FP32 * (query + 2 * key) } else { 0 };
        let throughout = in_fp32 + FP32 * query;
        // 2. The product with the scaled key, softmax, the product with the value.
        let product = FP32 * (key + copied * (query + key) + scores);
        let softmax = (2 * FP32 + 1) * scores + rows * self.queries;
        let rounded = if is_half { bytes * (scores + query) } else { 0 };
        let result = FP32 * (scores + query + copied * key) + rounded;
        throughout + product.max(softmax).max(result)
    }
}
