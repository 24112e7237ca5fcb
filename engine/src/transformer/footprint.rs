//! What a forward pass holds beside the weights, and what its groups compute, both from shapes alone.
//!
//! Note: what exists at once.
//! A pass holds the hidden state, the turns of every token and what the blocks are conditioned on. On top of that comes the largest of three
//! moments in a block, each with the tensors of one slice of tokens. Self-attention has keys and values of all tokens and two tensors as wide as
//! the hidden state: a projection's input and result, or attention's. Turning the channels has a projection and its fp32 copy instead of those
//! two. Feed-forward has its inner tensor and one as wide as the hidden state. Cross-attention is self-attention with the prompt's few keys. Where attention holds its
//! score matrix, that and what it is made from stand in the place of attention's result.
//! Left out are tensors of one row, under a MiB together.

use engine_protocol::TransformerSpec;

use super::block::{BLOCKS, CROSS_ATTENTION, FEED_FORWARD, SELF_ATTENTION};
use super::model::Transformer;
use super::rope;
use super::slices::slices_cut;
use crate::attention::AttentionShape;
use crate::weights::{GroupName, GroupWork};

/// Bytes of an fp32 number.
const FP32: i64 = 4;

/// What a pass is over.
#[derive(Debug, Clone, Copy)]
pub struct PassShape {
    /// Videos.
    pub batch: i64,
    /// Frames, height and width of the latents.
    pub latents: [i64; 3],
    /// Latent frames that are given, and so at a timestep of their own.
    pub given_frames: i64,
    /// Tokens of the prompt.
    pub prompt_tokens: i64,
    /// Tokens of what CLIP says of a picture.
    pub image_tokens: i64,
}

impl PassShape {
    fn tokens(self, spec: &TransformerSpec) -> i64 {
        (0..3).map(|axis| self.latents[axis] / spec.patch_size[axis]).product()
    }

    /// Tokens of the frames that are given.
    fn given_tokens(self, spec: &TransformerSpec) -> i64 {
        let [_, height, width] = self.latents;
        Self { latents: [self.given_frames, height, width], ..self }.tokens(spec)
    }
}

impl Transformer {
    /// What the group `name` computes in a pass. What stands before and after the blocks counts as nothing, which is nearly right.
    pub fn group_work(spec: &TransformerSpec, name: GroupName, pass: PassShape) -> GroupWork {
        let tokens = pass.tokens(spec) as f64;
        let dim = (spec.num_attention_heads * spec.attention_head_dim) as f64;
        let [batch, prompt, image] = [pass.batch, pass.prompt_tokens, pass.image_tokens].map(|count| count as f64);
        let product = |rows: f64, columns: f64| 2.0 * batch * rows * dim * columns;
        let attention = |keys: f64| 4.0 * batch * tokens * keys * dim;
        match name.part {
            _ if name.of != BLOCKS => GroupWork::default(),
            SELF_ATTENTION => GroupWork { gemm: 4.0 * product(tokens, dim), attention: attention(tokens) },
            CROSS_ATTENTION => {
                GroupWork { gemm: 2.0 * product(tokens, dim) + 2.0 * product(prompt + image, dim), attention: attention(prompt + image) }
            }
            FEED_FORWARD => GroupWork { gemm: 2.0 * product(tokens, spec.ffn_dim as f64), attention: 0.0 },
            other => unreachable!("blocks have no part `{other}`"),
        }
    }

    /// The most bytes that [`Transformer::forward`] holds at once beside weights, latents and prompt embedding. `bytes` are those of one number in
    /// the compute type; `keeps_scores` says whether attention holds its score matrix.
    pub fn activation_bytes(&self, pass: PassShape, bytes: i64, keeps_scores: bool) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let (batch, tokens) = (pass.batch, pass.tokens(spec));
        let slice = self.longest_slice(pass);
        // One number of every channel, for so many tokens of each video.
        let wide = |tokens: i64| batch * tokens * dim * bytes;

        let PassShape { prompt_tokens, image_tokens, .. } = pass;
        let throughout = self.bytes_throughout(pass, bytes);
        // The moments.
        let feed_forward = wide(slice) + batch * slice * spec.ffn_dim * bytes;
        // Beside the query of a slice: the result, and what attention has for itself.
        let beside_query = |keys: i64| self.attending(batch, spec.num_attention_heads, slice, keys, bytes, keeps_scores);
        // What is attended to of a picture comes beside what is of the prompt.
        let of_image = if image_tokens > 0 { wide(slice) + beside_query(image_tokens) } else { 0 };
        let cross_attention = 2 * wide(prompt_tokens + image_tokens) + wide(slice) + beside_query(prompt_tokens).max(of_image);
        if let Some(heads) = self.head_chunk {
            let attention = self.by_heads(heads, pass, bytes, keeps_scores).max(cross_attention);
            return throughout + attention.max(feed_forward);
        }
        let keys_and_values = 2 * wide(tokens);
        // fp32 is turned where it lies.
        let turned = if bytes == FP32 { 0 } else { batch * slice.min(rope::TOKENS_AT_A_TIME) * dim * FP32 };
        let attending = wide(slice) + beside_query(tokens);
        let self_attention = keys_and_values + (wide(slice) + turned).max(attending);
        throughout + self_attention.max(cross_attention).max(feed_forward)
    }

    /// The bytes of those that are there throughout the pass: hidden state, cosine and sine of each pair of channels, modulation (six rows and the timestep's own), prompt, picture.
    pub fn bytes_throughout(&self, pass: PassShape, bytes: i64) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let tokens = pass.tokens(spec);
        let turns = tokens * spec.attention_head_dim * FP32;
        pass.batch * (tokens + pass.prompt_tokens + pass.image_tokens) * dim * bytes + turns + 7 * dim * bytes
    }

    /// Tokens of the longest slice of a pass.
    fn longest_slice(&self, pass: PassShape) -> i64 {
        let change = Some(pass.given_tokens(&self.spec)).filter(|&given| given > 0);
        let lengths = slices_cut(pass.tokens(&self.spec), self.sequence_chunk, change).map(|(_, length)| length);
        lengths.max().unwrap_or(1)
    }

    /// What attention of `queries` tokens to `keys` others holds beside its inputs.
    fn attending(&self, batch: i64, heads: i64, queries: i64, keys: i64, bytes: i64, keeps_scores: bool) -> i64 {
        let width = self.spec.attention_head_dim;
        if keeps_scores {
            return AttentionShape { batch, heads, queries, keys, width }.score_bytes(bytes);
        }
        batch * queries * heads * (width * bytes + FP32)
    }

    /// The largest moment of self-attention, `heads` heads at a time.
    fn by_heads(&self, heads: i64, pass: PassShape, bytes: i64, keeps_scores: bool) -> i64 {
        let width = self.spec.attention_head_dim;
        let dim = self.spec.num_attention_heads * width;
        let (batch, tokens, slice) = (pass.batch, pass.tokens(&self.spec), self.longest_slice(pass));
        let of = |tokens: i64, channels: i64| batch * tokens * channels * bytes;
        let scales = 2 * batch * tokens * FP32;

        // 1. For the norms: a slice's input and its projection.
        let norms = 2 * of(slice, dim);
        // 2. For each group of heads: its keys and values, and of a slice the input, and a key in its type and in fp32.
        let (group, part) = (heads * width, of(slice, heads * width));
        let fp32 = if bytes == FP32 { 0 } else { batch * slice * group * FP32 };
        let keys = of(slice, dim) + part + fp32;
        let queries = (of(slice, dim) + part + fp32).max(part + self.attending(batch, heads, slice, tokens, bytes, keeps_scores));
        let groups = of(tokens, dim) + 2 * of(tokens, group) + keys.max(queries);
        // 3. What they attended to, and of a slice its projection.
        let projected = of(tokens, dim) + of(slice, dim);
        scales + norms.max(groups).max(projected)
    }
}
