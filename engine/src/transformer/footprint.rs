//! What a forward pass holds beside the weights, and what its groups compute, both from shapes alone.
//!
//! Note: what exists at once.
//! A pass holds the hidden state, the turns of every token and what the blocks are conditioned on. On top of that comes the largest of three
//! moments in a block, each with the tensors of one slice of tokens. Self-attention has keys and values of all tokens and two tensors as wide as
//! the hidden state: a projection's input and result, or attention's. Turning the channels has a projection and its fp32 copy instead of those
//! two. Feed-forward has its inner tensor and one as wide as the hidden state. Cross-attention is self-attention with the prompt's few keys. Where attention holds its
//! score matrix, that and what it is made from stand in the place of attention's result. Where it packs keys and values, there is a moment in which both forms are there, and after it the
//! packed ones alone.
//! Left out are tensors of one row, under a MiB together, and libtorch's buffer for sums over tokens as keys are packed: some 10 MiB, which shows in videos of a few frames alone.

use engine_protocol::TransformerSpec;

use super::block::{BLOCKS, CROSS_ATTENTION, FEED_FORWARD, SELF_ATTENTION};
use super::model::Transformer;
use super::rope;
use crate::attention::{AttentionHolds, AttentionShape};
use crate::weights::{GroupName, GroupWork};

/// Bytes of an fp32 number.
const FP32: i64 = 4;

impl Transformer {
    /// What the group `name` computes in a pass. What stands before and after the blocks counts as nothing, which is nearly right.
    ///
    /// # Shapes
    /// `latents` is `[T, H, W]`.
    pub fn group_work(spec: &TransformerSpec, name: GroupName, batch: i64, latents: [i64; 3], prompt_tokens: i64) -> GroupWork {
        let tokens = (0..3).map(|axis| latents[axis] / spec.patch_size[axis]).product::<i64>() as f64;
        let dim = (spec.num_attention_heads * spec.attention_head_dim) as f64;
        let (batch, prompt) = (batch as f64, prompt_tokens as f64);
        let product = |rows: f64, columns: f64| 2.0 * batch * rows * dim * columns;
        let attention = |keys: f64| 4.0 * batch * tokens * keys * dim;
        match name.part {
            _ if name.of != BLOCKS => GroupWork::default(),
            SELF_ATTENTION => GroupWork { gemm: 4.0 * product(tokens, dim), attention: attention(tokens) },
            CROSS_ATTENTION => GroupWork { gemm: 2.0 * product(tokens, dim) + 2.0 * product(prompt, dim), attention: attention(prompt) },
            FEED_FORWARD => GroupWork { gemm: 2.0 * product(tokens, spec.ffn_dim as f64), attention: 0.0 },
            other => unreachable!("blocks have no part `{other}`"),
        }
    }

    /// The most bytes that [`Transformer::forward`] holds at once beside weights, latents and prompt embedding. `bytes` are those of one number in
    /// the compute type, `batch` the videos of a pass; `holds` says what attention has for itself.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn activation_bytes(&self, batch: i64, latents: [i64; 4], prompt_tokens: i64, bytes: i64, holds: AttentionHolds) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let tokens: i64 = (0..3).map(|axis| latents[axis + 1] / spec.patch_size[axis]).product();
        let slice = self.longest_slice(tokens);
        // One number of every channel, for so many tokens of each video.
        let wide = |tokens: i64| batch * tokens * dim * bytes;

        let throughout = self.bytes_throughout(batch, latents, prompt_tokens, bytes);
        // The moments.
        let feed_forward = wide(slice) + batch * slice * spec.ffn_dim * bytes;
        let attention =
            |keys: i64| AttentionShape { batch, heads: spec.num_attention_heads, queries: slice, keys, width: spec.attention_head_dim };
        // fp32 is turned where it lies.
        let turned = if bytes == FP32 { 0 } else { batch * slice.min(rope::TOKENS_AT_A_TIME) * dim * FP32 };
        let self_or_cross = |keys: i64, turned: i64| {
            let shape = attention(keys);
            let [made_ready, held] = shape.key_bytes(holds, bytes);
            let gathered = 2 * wide(keys) + turned;
            gathered.max(made_ready).max(held + turned.max(wide(slice) + shape.attending_bytes(holds, bytes)))
        };
        let cross_attention = self_or_cross(prompt_tokens, 0);
        let attention = match self.head_chunk {
            Some(heads) => self.by_heads(heads, batch, tokens, bytes, holds),
            None => self_or_cross(tokens, wide(slice) + turned),
        };
        throughout + attention.max(cross_attention).max(feed_forward)
    }

    /// The bytes of those that are there throughout the pass: hidden state, cosine and sine of each pair of channels, modulation (six rows and the timestep's own), prompt.
    pub fn bytes_throughout(&self, batch: i64, latents: [i64; 4], prompt_tokens: i64, bytes: i64) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let tokens: i64 = (0..3).map(|axis| latents[axis + 1] / spec.patch_size[axis]).product();
        let turns = tokens * spec.attention_head_dim * FP32;
        batch * (tokens + prompt_tokens) * dim * bytes + turns + 7 * dim * bytes
    }

    /// Tokens of the longest slice of so many.
    fn longest_slice(&self, tokens: i64) -> i64 {
        self.sequence_chunk.unwrap_or(tokens).clamp(1, tokens.max(1))
    }

    /// The largest moment of self-attention, `heads` heads at a time.
    fn by_heads(&self, heads: i64, batch: i64, tokens: i64, bytes: i64, holds: AttentionHolds) -> i64 {
        let width = self.spec.attention_head_dim;
        let dim = self.spec.num_attention_heads * width;
        let slice = self.longest_slice(tokens);
        let of = |tokens: i64, channels: i64| batch * tokens * channels * bytes;
        let scales = 2 * batch * tokens * FP32;

        // 1. For the norms: a slice's input and its projection.
        let norms = 2 * of(slice, dim);
        // 2. For each group of heads: its keys and values, and of a slice the input, and a key in its type and in fp32.
        let (group, part) = (heads * width, of(slice, heads * width));
        let fp32 = if bytes == FP32 { 0 } else { batch * slice * group * FP32 };
        let keys = of(slice, dim) + part + fp32;
        let shape = AttentionShape { batch, heads, queries: slice, keys: tokens, width };
        let [made_ready, held] = shape.key_bytes(holds, bytes);
        let queries = (of(slice, dim) + part + fp32).max(part + shape.attending_bytes(holds, bytes));
        let groups = of(tokens, dim) + (2 * of(tokens, group) + keys).max(made_ready).max(held + queries);
        // 3. What they attended to, and of a slice its projection.
        let projected = of(tokens, dim) + of(slice, dim);
        scales + norms.max(groups).max(projected)
    }
}
