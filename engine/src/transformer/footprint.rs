//! What a forward pass holds beside the weights, and what its groups compute, both from shapes alone.
//!
//! Note: what exists at once.
//! A pass holds the hidden state, the turns of every token and what the blocks are conditioned on. On top of that comes the largest of three
//! moments in a block, each with the tensors of one slice of tokens. Self-attention has keys and values of all tokens and two tensors as wide as
//! the hidden state: a projection's input and result, or attention's. Turning the channels has a projection and its fp32 copy instead of those
//! two. Feed-forward has its inner tensor and one as wide as the hidden state, or in place of the second its gated weights throughout (see `adding.rs`). Cross-attention is self-attention with the prompt's few keys. Where attention holds its
//! score matrix, that and what it is made from stand in the place of attention's result. Where it packs them, values are packed before there are keys, then there is a moment with keys in both forms, and after it the
//! packed ones alone. A product in 8 bits has its input in 8 bits beside what it is of, and what that takes in fp32 a piece at a time: see `product_bytes`.
//! Left out are tensors of one row, under a MiB together, and libtorch's buffer for sums over tokens as keys are packed: some 10 MiB, which shows in videos of a few frames alone.

use engine_protocol::{LinearDtype, TransformerSpec};
use tch::Kind;

use super::block::BLOCKS;
use super::model::Transformer;
use super::pass_cache::Part;
use super::rope;
use super::slices::slices;
use crate::attention::{AttentionHolds, AttentionShape, KeyBytes};
use crate::context_parallel::{Part as SequencePart, RankAttention, Shard};
use crate::weights::products::product_bytes;
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
    /// Tokens of the prompt.
    pub prompt_tokens: i64,
    /// Tokens of what CLIP says of a picture.
    pub image_tokens: i64,
    /// Which part of the sequence is this rank's.
    pub part: SequencePart,
}

impl PassShape {
    fn tokens(self, spec: &TransformerSpec) -> i64 {
        (0..3).map(|axis| self.latents[axis] / spec.patch_size[axis]).product()
    }

    /// Those of this rank's part, padding included.
    fn length(self, spec: &TransformerSpec) -> i64 {
        self.shard(spec).length()
    }

    fn shard(self, spec: &TransformerSpec) -> Shard {
        Shard { tokens: self.tokens(spec), part: self.part }
    }
}

impl Transformer {
    /// What the group `name` computes in a pass that takes so many heads of self-attention at a time, all where none are given. What stands before and after the blocks counts as nothing, which is nearly right.
    pub fn group_work(spec: &TransformerSpec, name: GroupName, pass: PassShape, head_chunk: Option<i64>) -> GroupWork {
        let (tokens, all_tokens) = (pass.length(spec) as f64, pass.tokens(spec) as f64);
        let dim = (spec.num_attention_heads * spec.attention_head_dim) as f64;
        let [batch, prompt, image] = [pass.batch, pass.prompt_tokens, pass.image_tokens].map(|count| count as f64);
        let product = |rows: f64, columns: f64| 2.0 * batch * rows * dim * columns;
        let attention = |keys: f64| 4.0 * batch * tokens * keys * dim;
        let part = Part::ALL.into_iter().find(|part| name.of == BLOCKS && part.name() == name.part);
        match part {
            None => GroupWork::default(),
            Some(Part::SelfAttention) => {
                // Of its own heads the tokens of all that exchange heads with it.
                let heads: i64 = slices(spec.num_attention_heads, head_chunk).map(|(_, heads)| pass.part.heads(heads)).sum();
                let channels = (heads * spec.attention_head_dim) as f64;
                let queries = pass.shard(spec).length_of(pass.part.exchanged) as f64;
                GroupWork { gemm: 4.0 * product(tokens, dim), attention: 4.0 * batch * queries * all_tokens * channels }
            }
            Some(Part::CrossAttention) => {
                GroupWork { gemm: 2.0 * product(tokens, dim) + 2.0 * product(prompt + image, dim), attention: attention(prompt + image) }
            }
            Some(Part::FeedForward) => GroupWork { gemm: 2.0 * product(tokens, spec.ffn_dim as f64), attention: 0.0 },
        }
    }

    /// The most bytes that [`Transformer::forward`] holds at once beside weights, latents and prompt embedding. `bytes` are those of one number in
    /// the compute type; `holds` says what attention has for itself.
    pub fn activation_bytes(&self, pass: PassShape, bytes: i64, holds: AttentionHolds) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let (batch, tokens) = (pass.batch, pass.length(spec));
        let slice = self.longest_slice(pass.shard(spec));
        // One number of every channel, for so many tokens of each video.
        let wide = |tokens: i64| batch * tokens * dim * bytes;

        let PassShape { prompt_tokens, image_tokens, .. } = pass;
        let throughout = self.bytes_throughout(pass, bytes);
        // The moments.
        let inner = batch * slice * spec.ffn_dim * bytes;
        let narrowed = wide(slice) + self.linear_bytes(batch * slice, dim, spec.ffn_dim, bytes);
        let [all, part] = [tokens, slice].map(|tokens| batch * tokens);
        let gated = spec.ffn_dim * dim * bytes;
        let feed_forward = match (self.in_products([all, part]).gated, slice == tokens) {
            (false, _) => narrowed.max(inner + self.linear_bytes(part, spec.ffn_dim, dim, bytes)),
            (true, true) => narrowed.max(inner + gated),
            (true, false) => narrowed + gated,
        };
        let attention =
            |keys: i64| AttentionShape { batch, heads: spec.num_attention_heads, queries: slice, keys, width: spec.attention_head_dim };
        // fp32 is turned where it lies, and so is what one kernel norms and turns.
        let turned = if bytes == FP32 || self.fused { 0 } else { batch * slice.min(rope::TOKENS_AT_A_TIME) * dim * FP32 };
        // A slice's input and its projection, where what is turned or attended to is not more in any case.
        let projecting = match self.linear_dtype {
            LinearDtype::Dtype => 0,
            _ => wide(slice) + self.linear_bytes(batch * slice, dim, dim, bytes),
        };
        let self_or_cross = |keys: i64, turned: i64, holds: AttentionHolds| {
            let shape = attention(keys);
            let KeyBytes { gathered, made_ready, held } = shape.key_bytes(holds, bytes);
            let gathered = gathered + turned.max(if turned > 0 { projecting } else { 0 });
            gathered.max(made_ready).max(held + turned.max(projecting).max(wide(slice) + shape.attending_bytes(holds, bytes)))
        };
        let of_cross = holds.of_all_keys();
        // What is attended to of a picture comes beside what is of the prompt.
        let beside_prompt = |image_tokens: i64| {
            let [of_prompt, of_image] = [prompt_tokens, image_tokens].map(attention);
            let [prompt, image] = [of_prompt, of_image].map(|shape| shape.key_bytes(of_cross, bytes));
            let attending = 2 * wide(slice) + of_image.attending_bytes(of_cross, bytes);
            (prompt.held + image.made_ready).max(prompt.held + image.held + attending.max(projecting))
        };
        let of_image = if image_tokens > 0 { beside_prompt(image_tokens) } else { 0 };
        let cross_attention = self_or_cross(prompt_tokens, 0, of_cross).max(of_image);
        let attention = match self.head_chunk {
            Some(heads) => self.by_heads(heads, pass, bytes, holds),
            None if pass.part != SequencePart::WHOLE => {
                let making = projecting.max(wide(slice) + turned);
                self.over_ranks(spec.num_attention_heads, pass, bytes).held_bytes(holds, [wide(slice), making])
            }
            None => self_or_cross(tokens, wide(slice) + turned, holds),
        };
        throughout + attention.max(cross_attention).max(feed_forward)
    }

    /// The most bytes that a linear layer makes for so many rows beside its input: its result, and what a product in 8 bits takes.
    fn linear_bytes(&self, rows: i64, inputs: i64, outputs: i64, bytes: i64) -> i64 {
        let result = rows * outputs * bytes;
        let kind = match self.linear_dtype {
            LinearDtype::Dtype => return result,
            LinearDtype::Fp8 => Kind::Float8e4m3fn,
            LinearDtype::Int8 => Kind::Int8,
        };
        let [before, beside] = product_bytes(kind, rows, inputs, outputs);
        before.max(result + beside)
    }

    /// The bytes of those that are there throughout the pass: hidden state, cosine and sine of each pair of channels, modulation (six rows and the timestep's own), prompt, picture.
    pub fn bytes_throughout(&self, pass: PassShape, bytes: i64) -> i64 {
        let spec = &self.spec;
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let tokens = pass.length(spec);
        let turns = tokens * spec.attention_head_dim * FP32;
        pass.batch * (tokens + pass.prompt_tokens + pass.image_tokens) * dim * bytes + turns + 7 * dim * bytes
    }

    /// Self-attention of `heads` heads at a time, over several ranks.
    fn over_ranks(&self, heads: i64, pass: PassShape, bytes: i64) -> RankAttention {
        let (width, slice) = (self.spec.attention_head_dim, self.longest_slice(pass.shard(&self.spec)));
        RankAttention { part: pass.part, batch: pass.batch, heads, width, unit: pass.shard(&self.spec).length_of(1), slice, bytes }
    }

    /// The bytes that a rank sends to others in a pass: for self-attention, and its part of the result.
    pub fn sent_bytes(&self, pass: PassShape, bytes: i64) -> i64 {
        let spec = &self.spec;
        // A rank of a shorter part sends as much as one of the longest.
        let longest = pass.shard(spec).length_of(pass.part.largest);
        let values = pass.batch * longest * spec.out_channels * spec.patch_size.iter().product::<i64>() * bytes;
        let heads = slices(spec.num_attention_heads, self.head_chunk);
        let sent: i64 = heads.map(|(_, heads)| self.over_ranks(heads, pass, bytes).sent_bytes()).sum();
        spec.num_layers * sent + (pass.part.parts - 1) * values
    }

    /// The largest moment of self-attention, `heads` heads at a time.
    fn by_heads(&self, heads: i64, pass: PassShape, bytes: i64, holds: AttentionHolds) -> i64 {
        let width = self.spec.attention_head_dim;
        let dim = self.spec.num_attention_heads * width;
        let (batch, tokens, slice) = (pass.batch, pass.length(&self.spec), self.longest_slice(pass.shard(&self.spec)));
        let of = |tokens: i64, channels: i64| batch * tokens * channels * bytes;
        let scales = 2 * batch * tokens * FP32;

        // 1. For the norms: a slice's input and its projection.
        let projecting = |channels: i64| self.linear_bytes(batch * slice, dim, channels, bytes);
        let norms = of(slice, dim) + projecting(dim);
        // 2. For each group of heads: its keys and values, and of a slice the input, and a key in its type and in fp32.
        let (group, part) = (heads * width, of(slice, heads * width));
        let fp32 = if bytes == FP32 || self.fused { 0 } else { batch * slice * group * FP32 };
        let making = of(slice, dim) + projecting(group).max(part + fp32);
        let shape = AttentionShape { batch, heads, queries: slice, keys: tokens, width };
        let KeyBytes { gathered, made_ready, held } = shape.key_bytes(holds, bytes);
        let queries = making.max(part + shape.attending_bytes(holds, bytes));
        let attending = if pass.part != SequencePart::WHOLE {
            self.over_ranks(heads, pass, bytes).held_bytes(holds, [of(slice, dim), making])
        } else {
            made_ready.max(held + queries)
        };
        let groups = of(tokens, dim) + (gathered + making).max(attending);
        // 3. What they attended to, and of a slice its projection.
        let projected = of(tokens, dim) + projecting(dim);
        scales + norms.max(groups).max(projected)
    }
}
