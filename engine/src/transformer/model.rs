//! The whole transformer: from noisy latents, a timestep and a prompt to a prediction.

use engine_protocol::{Config, LinearDtype, TransformerSpec};
use tch::{Device, Kind, Tensor};

use super::adding::{InProducts, has_gated_weights, settle};
use super::block::{self, Block};
use super::context::Context;
use super::embeddings::{self, Condition};
use super::norm::Affine;
use super::pass_cache::{NoCache, PassCache};
use super::rope;
use super::slices::{Gathered, slices};
use super::timestep::Timestep;
use crate::attention::Attention;
use crate::context_parallel::{Sequence, Shard};
use crate::error::Result;
use crate::weights::{Group, GroupName, Groups, Weights};

/// The last norm and projection.
const OUTPUT: GroupName = GroupName::whole("output layer");

/// A Wan transformer, without its weights.
#[derive(Debug, Clone)]
pub struct Transformer {
    pub(super) spec: TransformerSpec,
    pub(super) attention: Attention,
    pub(super) sequence_chunk: Option<i64>,
    pub(super) head_chunk: Option<i64>,
    pub(super) linear_dtype: LinearDtype,
    pub(super) fused: bool,
    pub(super) sequence: Sequence,
}

impl Transformer {
    /// A transformer of these shapes. With `sequence_chunk` norms, projections, queries and feed-forward see so many tokens at a time.
    pub fn new(spec: &TransformerSpec, attention: impl Into<Attention>, sequence_chunk: Option<i64>) -> Self {
        Self {
            spec: spec.clone(),
            attention: attention.into(),
            sequence_chunk,
            head_chunk: None,
            linear_dtype: LinearDtype::Dtype,
            fused: false,
            sequence: Sequence::whole_on_one(),
        }
    }

    /// The same with self-attention that sees so many heads at a time.
    #[must_use]
    pub fn with_head_chunk(self, head_chunk: Option<i64>) -> Self {
        Self { head_chunk, ..self }
    }

    /// The same of which this rank computes its part of the sequence, as all of `sequence` do.
    #[must_use]
    pub fn with_sequence(self, sequence: Sequence) -> Self {
        Self { sequence, ..self }
    }

    /// The same with what is fused: kernels of ours, and products that do more than multiply.
    #[must_use]
    pub fn with_fused(self, fused: bool) -> Self {
        Self { fused, ..self }
    }

    /// The transformer that `config` means.
    pub fn of(config: &Config, spec: &TransformerSpec) -> Self {
        let [tokens, heads] = [config.sequence_chunk, config.head_chunk].map(|chunk| chunk.map(i64::from));
        Self {
            linear_dtype: config.linear_dtype,
            ..Self::new(spec, Attention::of(config), tokens).with_head_chunk(heads).with_fused(config.fused.is_on())
        }
    }

    /// Tokens of the longest slice of a rank's part of the sequence.
    pub(super) fn longest_slice(&self, shard: Shard) -> i64 {
        let length = shard.length();
        self.sequence_chunk.map_or(length, |chunk| shard.part.chunk(chunk).clamp(1, length))
    }

    /// Which last products begin with the hidden state, where there are so many tokens in all videos and in each slice of them. Those in 8 bits do not.
    pub(super) fn in_products(&self, [tokens, slice]: [i64; 2]) -> InProducts {
        let dim = self.spec.num_attention_heads * self.spec.attention_head_dim;
        // Keys and values, or what heads by themselves attend to.
        let held = if self.head_chunk.is_some() || self.attention.packs() { 1 } else { 2 };
        let ungated = self.fused && self.linear_dtype == LinearDtype::Dtype;
        InProducts { ungated, gated: ungated && has_gated_weights([self.spec.ffn_dim, dim], [tokens, slice], held * tokens * dim) }
    }

    /// Its groups in execution order: those of the embeddings, of each block, and the output layer. All blocks have groups of the same layouts.
    pub fn groups(spec: &TransformerSpec) -> Vec<Group> {
        let dim = spec.num_attention_heads * spec.attention_head_dim;
        let values = spec.out_channels * spec.patch_size.iter().product::<i64>();
        let mut groups = embeddings::groups(spec).to_vec();
        groups.extend((0..spec.num_layers as u32).flat_map(|index| block::groups(spec, index)));
        groups.push(Group::new(OUTPUT, "").fp32("scale_shift_table", &[1, 2, dim]).linear("proj_out", dim, values));
        groups
    }

    /// The prediction for `latents`: the direction from the clean sample to noise.
    ///
    /// # Shapes
    /// `latents` is `[B, C, T, H, W]`; the result is `[B, C_out, T, H, W]`, in the weights' type.
    /// `timestep` is one for the whole batch, and for all tokens but those of frames that are given.
    ///
    /// # Errors
    /// libtorch's, what `groups` ran into, and latents that patches do not cover.
    pub fn forward<'a>(
        &self,
        groups: &mut impl Groups,
        latents: &Tensor,
        timestep: impl Into<Timestep>,
        context: impl Into<Context<'a>>,
    ) -> Result<Tensor> {
        self.forward_cached(groups, latents, timestep, context, &mut NoCache)
    }

    /// As [`Transformer::forward`], where `cache` may leave blocks out.
    ///
    /// # Errors
    /// Those of [`Transformer::forward`], and the cache's.
    pub fn forward_cached<'a>(
        &self,
        groups: &mut impl Groups,
        latents: &Tensor,
        timestep: impl Into<Timestep>,
        context: impl Into<Context<'a>>,
        cache: &mut impl PassCache,
    ) -> Result<Tensor> {
        let spec = &self.spec;
        let grid = embeddings::patch_grid(spec, latents)?;

        let shard = self.sequence.shard(grid.iter().product());

        // 1. This rank's tokens, conditions, and the turns of every token.
        let (hidden, condition) = embeddings::embed(groups, spec, grid, shard, latents, timestep.into(), context.into())?;
        let rope = shard.of(rope::table(spec.attention_head_dim, grid, latents.device())?, 0)?;

        // 2. The blocks, which write into the hidden state.
        let [batch, tokens] = [hidden.size()[0], hidden.size()[1]];
        let slice = self.longest_slice(shard);
        let block = Block {
            spec,
            attention: self.attention,
            slice,
            head_chunk: self.head_chunk,
            fused: self.fused,
            in_products: self.in_products([tokens, slice].map(|tokens| batch * tokens)),
            condition: &condition,
            rope: &rope,
            sequence: &self.sequence,
            shard,
        };
        // A cache keeps nothing of padding.
        let seen = shard.without_padding(&hidden)?;
        let mut left = None;
        for index in cache.begin(&seen)?..spec.num_layers as u32 {
            left = block.forward(groups, index, &hidden, left, cache)?;
            if cache.looks_after(index) {
                settle(&hidden, left.take().as_ref())?;
                if cache.after_block(index, &seen)? {
                    break;
                }
            }
        }
        settle(&hidden, left.as_ref())?;
        cache.end(&seen)?;
        drop(seen);

        // 3. The values of each patch, put in their places.
        let values = groups.with(OUTPUT, |w| self.output(w, &hidden, &condition))?;
        drop(hidden);
        let values = self.sequence.whole(shard, values)?;
        embeddings::unpatchify(spec.patch_size, grid, spec.out_channels, &values)
    }

    /// What the timesteps become before the blocks: their embeddings, or where `modulations` the six modulations of each.
    ///
    /// # Shapes
    /// `[timesteps, dim]` or `[timesteps, 6·dim]`, on `device`.
    ///
    /// # Errors
    /// libtorch's, and what `groups` ran into.
    pub fn timestep_conditions(&self, groups: &mut impl Groups, timesteps: &[f64], modulations: bool, device: Device) -> Result<Tensor> {
        let (timestep, modulation) = embeddings::time(groups, &self.spec, timesteps, device)?;
        Ok(if modulations { modulation } else { timestep })
    }

    /// The last norm and projection, `[B, L, dim]` to `[B, L, pt·ph·pw·C_out]`.
    fn output(&self, w: &Weights, hidden: &Tensor, condition: &Condition) -> Result<Tensor> {
        // 1. Modulation in fp32, from the timestep embedding itself.
        let own = w.get("scale_shift_table").f_squeeze_dim(0)?;
        let norm = condition.timestep.map(|timestep| {
            let rows = own.f_add(&timestep.f_to_kind(Kind::Float)?)?;
            Affine::new(1.0, [&rows.f_select(0, 1)?, &rows.f_select(0, 0)?], hidden.kind(), false)
        })?;

        // 2. Norm and projection.
        let tokens = hidden.size()[1];
        let mut values = Gathered::new(tokens);
        for (start, length) in slices(tokens, self.sequence_chunk) {
            let normed = norm.layer_norm(hidden, (start, length), None, self.spec.eps)?;
            values.put(start, w.linear("proj_out", &normed)?)?;
        }
        Ok(values.whole())
    }
}
