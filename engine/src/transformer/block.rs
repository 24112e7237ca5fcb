//! One transformer block: self-attention, cross-attention to the prompt, feed-forward.

use engine_protocol::{PARTS_OF_A_BLOCK, TransformerSpec};
use tch::{Kind, Tensor};

use super::embeddings::Condition;
use super::pass_cache::{Part, PassCache};
use super::rope;
use super::slices::{Gathered, slice, slices};
use super::timestep::ByToken;
use crate::attention::{Attention, Keys};
use crate::context_parallel::{Sequence, SequenceKeys, Shard};
use crate::error::Result;
use crate::kernels::norm_and_turn;
use crate::weights::{Group, GroupName, Groups, Weights};

/// What blocks are called together.
pub const BLOCKS: &str = "blocks";

/// The group of one part of block `index`.
fn name(index: u32, part: Part) -> GroupName {
    GroupName::numbered(BLOCKS, index, part.name())
}

/// The groups of block `index`. All blocks have the same tensors. Each group is used whole and once a pass, so a block that is streamed needs room for a part of
/// itself.
pub(super) fn groups(spec: &TransformerSpec, index: u32) -> [Group; PARTS_OF_A_BLOCK as usize] {
    let dim = spec.num_attention_heads * spec.attention_head_dim;
    let part = |part| Group::new(name(index, part), format!("blocks.{index}."));
    let attention = |group: Group, name: &str| {
        group
            .linear(&format!("{name}.to_q"), dim, dim)
            .linear(&format!("{name}.to_k"), dim, dim)
            .linear(&format!("{name}.to_v"), dim, dim)
            .linear(&format!("{name}.to_out.0"), dim, dim)
            .param(&format!("{name}.norm_q.weight"), &[dim])
            .param(&format!("{name}.norm_k.weight"), &[dim])
    };
    let cross = |group: Group| match spec.image_dim {
        None => group,
        Some(_) => {
            group.linear("attn2.add_k_proj", dim, dim).linear("attn2.add_v_proj", dim, dim).param("attn2.norm_added_k.weight", &[dim])
        }
    };
    [
        // The modulation of the whole block is made with its first part.
        attention(part(Part::SelfAttention).fp32("scale_shift_table", &[1, 6, dim]), "attn1"),
        cross(attention(part(Part::CrossAttention), "attn2")).fp32("norm2.weight", &[dim]).fp32("norm2.bias", &[dim]),
        part(Part::FeedForward).linear("ffn.net.0.proj", dim, spec.ffn_dim).linear("ffn.net.2", spec.ffn_dim, dim),
    ]
    .map(Group::compressible)
}

/// What a block needs besides its weights; the same for all blocks of a forward pass.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) spec: &'a TransformerSpec,
    pub(super) attention: Attention,
    pub(super) sequence_chunk: Option<i64>,
    pub(super) head_chunk: Option<i64>,
    /// Queries and keys are normed and turned by one kernel.
    pub(super) fused: bool,
    pub(super) condition: &'a Condition,
    pub(super) rope: &'a Tensor,
    /// Whose parts these tokens are among.
    pub(super) sequence: &'a Sequence,
    pub(super) shard: Shard,
}

/// Scale and shift of a norm, in the hidden state's type, as libtorch's kernel takes them.
pub(super) struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    /// `x (1 + scale) + shift` from fp32 rows.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn modulation(scale: &Tensor, shift: &Tensor, kind: Kind) -> Result<Self> {
        Ok(Self { weight: scale.f_add_scalar(1.0)?.f_to_kind(kind)?, bias: shift.f_to_kind(kind)? })
    }

    /// The layer norm of `x` over its channels, then scale and shift: one kernel, fp32 inside and rounded once.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn layer_norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), eps, false)?)
    }
}

impl AsRef<Affine> for Affine {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T: AsRef<Affine>> ByToken<T> {
    /// The layer norm of a slice of `hidden`, each token with its own scale and shift.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn layer_norm(&self, hidden: &Tensor, span: (i64, i64), eps: f64) -> Result<Tensor> {
        let mut normed = Gathered::new(span.1);
        for ((start, length), norm) in self.over(span) {
            normed.put(start - span.0, norm.as_ref().layer_norm(&slice(hidden, start, length)?, eps)?)?;
        }
        Ok(normed.whole())
    }
}

/// What the timestep does to one of a block's two steps: to what goes in, and to what comes out.
pub(super) struct Modulated {
    pub(super) norm: Affine,
    /// How much of the result is added, in fp32.
    pub(super) gate: Tensor,
}

impl Modulated {
    fn new(shift: &Tensor, scale: &Tensor, gate: &Tensor, kind: Kind) -> Result<Self> {
        Ok(Self { norm: Affine::modulation(scale, shift, kind)?, gate: gate.shallow_clone() })
    }
}

impl AsRef<Affine> for Modulated {
    fn as_ref(&self) -> &Affine {
        &self.norm
    }
}

impl ByToken<Modulated> {
    /// Adds `gate · out` to the tokens of `hidden` from `start` on. fp32 inside, since the gate is: rounded once.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn add_gated(&self, hidden: &Tensor, start: i64, out: &Tensor) -> Result<()> {
        self.over((start, out.size()[1])).try_for_each(|((first, length), step)| {
            let _ = slice(hidden, first, length)?.f_addcmul_(&slice(out, first - start, length)?, &step.gate)?;
            Ok(())
        })
    }
}

/// A cache, as a part of a block tells it what it gives.
pub(super) struct Told<'a, C> {
    cache: &'a mut C,
    block: u32,
    part: Part,
}

impl<C: PassCache> Told<'_, C> {
    fn is_left_out(&self) -> bool {
        self.cache.leaves_out(self.part)
    }

    /// That the tokens from `start` on were given that, before the gate.
    ///
    /// # Errors
    /// The cache's.
    pub(super) fn of(&mut self, start: i64, given: &Tensor) -> Result<()> {
        self.cache.after_part(self.block, self.part, start, given)
    }
}

impl Block<'_> {
    /// Runs block `index` on `hidden`, in place, without the parts that `cache` leaves out.
    ///
    /// # Shapes
    /// `hidden` is `[B, L, dim]`.
    ///
    /// # Errors
    /// libtorch's, the cache's, and what `groups` ran into.
    pub(super) fn forward(&self, groups: &mut impl Groups, index: u32, hidden: &Tensor, cache: &mut impl PassCache) -> Result<()> {
        let kind = hidden.kind();
        let mut told = Told { cache, block: index, part: Part::SelfAttention };
        // 1. Self-attention. Its group has the modulation, which is needed in any case.
        let modulation = groups.with(name(index, Part::SelfAttention), |w| {
            let modulation = self.modulation(w)?;
            let step = modulation.map(|[shift, scale, gate, ..]| Modulated::new(shift, scale, gate, kind))?;
            match self.head_chunk {
                _ if told.is_left_out() => self.add_kept(hidden, Some(&step), &mut told)?,
                Some(heads) => self.self_attention_by_heads(w, hidden, &step, heads, &mut told)?,
                None => self.self_attention(w, hidden, &step, &mut told)?,
            }
            Ok(modulation)
        })?;

        // 2. Cross-attention, whose norm has weights instead of modulation and whose result has no gate.
        told.part = Part::CrossAttention;
        if told.is_left_out() {
            self.add_kept(hidden, None, &mut told)?;
        } else {
            groups.with(name(index, Part::CrossAttention), |w| {
                let norm = Affine { weight: w.get("norm2.weight").f_to_kind(kind)?, bias: w.get("norm2.bias").f_to_kind(kind)? };
                self.cross_attention(w, hidden, &norm, &mut told)
            })?;
        }

        // 3. Feed-forward.
        told.part = Part::FeedForward;
        let step = || modulation.map(|[_, _, _, shift, scale, gate]| Modulated::new(shift, scale, gate, kind));
        if told.is_left_out() {
            return self.add_kept(hidden, Some(&step()?), &mut told);
        }
        groups.with(name(index, Part::FeedForward), |w| self.feed_forward(w, hidden, &step()?, &mut told))
    }

    /// Adds what is kept of a part that is left out.
    fn add_kept(&self, hidden: &Tensor, step: Option<&ByToken<Modulated>>, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        self.slices(hidden.size()[1]).try_for_each(|span| {
            let mut add = |(start, length): (i64, i64), gate: Option<&Tensor>| {
                told.cache.in_place_of_part(told.block, told.part, start, &slice(hidden, start, length)?, gate)
            };
            match step {
                Some(step) => step.over(span).try_for_each(|(span, step)| add(span, Some(&step.gate))),
                None => add(span, None),
            }
        })
    }

    /// Shift, scale and gate of self-attention, then of feed-forward: the timestep's plus the block's own, in fp32.
    fn modulation(&self, w: &Weights) -> Result<ByToken<[Tensor; 6]>> {
        let own = w.get("scale_shift_table").f_squeeze_dim(0)?;
        self.condition.modulation.map(|modulation| {
            let rows = own.f_add(&modulation.f_to_kind(Kind::Float)?)?.f_unbind(0)?;
            Ok(<[Tensor; 6]>::try_from(rows).expect("the table has six rows"))
        })
    }

    /// Adds `gate · attention(norm(hidden))`.
    fn self_attention(&self, w: &Weights, hidden: &Tensor, step: &ByToken<Modulated>, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        let tokens = hidden.size()[1];
        // 1. Keys and values of all tokens.
        let keys = self.keys_of_all(tokens, |(start, length), values, keys| {
            let normed = step.layer_norm(hidden, (start, length), self.spec.eps)?;
            if let Some(values) = values {
                let projected = self.project(w, "attn1.to_v", &normed, start, values)?;
                self.gather(values, start, projected)?;
            }
            let Some(keys) = keys else { return Ok(()) };
            let projected = self.project(w, "attn1.to_k", &normed, start, keys)?;
            drop(normed);
            self.gather(keys, start, self.norm_and_turn(w, "attn1.norm_k.weight", projected, start)?)
        })?;

        // 2. Queries of a slice against all of them. A slice of the hidden state is written only after its own last use.
        let query = |(start, length)| {
            let normed = step.layer_norm(hidden, (start, length), self.spec.eps)?;
            let projected = w.linear("attn1.to_q", &normed)?;
            drop(normed);
            self.heads(&self.norm_and_turn(w, "attn1.norm_q.weight", projected, start)?)
        };
        keys.attend(self.slices(tokens), query, |(start, _), attended| {
            let out = w.linear("attn1.to_out.0", &joined(attended)?)?;
            told.of(start, &out)?;
            step.add_gated(hidden, start, &out)
        })
    }

    /// Adds `attention(norm(hidden), prompt)`, and where there is a picture attention to that, which is added before the last projection.
    fn cross_attention(&self, w: &Weights, hidden: &Tensor, norm: &Affine, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        let prompt = &self.condition.prompt;
        let keys = self.heads(&self.project_and_norm(w, "attn2.to_k", "attn2.norm_k.weight", prompt.shallow_clone())?)?;
        let values = self.heads(&w.linear("attn2.to_v", prompt)?)?;
        let keys = Keys::new(self.attention.to_all_keys(), keys, values)?;
        let of_image = |image: &Tensor| -> Result<Keys> {
            let keys = self.project_and_norm(w, "attn2.add_k_proj", "attn2.norm_added_k.weight", image.shallow_clone())?;
            Keys::new(self.attention.to_all_keys(), self.heads(&keys)?, self.heads(&w.linear("attn2.add_v_proj", image)?)?)
        };
        let image = self.condition.image.as_ref().map(of_image).transpose()?;
        for (start, length) in self.slices(hidden.size()[1]) {
            let mut part = slice(hidden, start, length)?;
            let normed = norm.layer_norm(&part, self.spec.eps)?;
            let query = self.project_and_norm(w, "attn2.to_q", "attn2.norm_q.weight", normed)?;
            let mut attended = keys.attend(&self.heads(&query)?)?;
            if let Some(image) = &image {
                let _ = attended.f_add_(&image.attend(&self.heads(&query)?)?)?;
            }
            drop(query);
            let out = w.linear("attn2.to_out.0", &joined(attended)?)?;
            told.of(start, &out)?;
            let _ = part.f_add_(&out)?;
        }
        Ok(())
    }

    /// Adds `gate · ff(norm(hidden))`.
    fn feed_forward(&self, w: &Weights, hidden: &Tensor, step: &ByToken<Modulated>, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        for (start, length) in self.slices(hidden.size()[1]) {
            let normed = step.layer_norm(hidden, (start, length), self.spec.eps)?;
            let inner = if self.fused {
                w.linear_gelu("ffn.net.0.proj", &normed)?
            } else {
                w.linear("ffn.net.0.proj", &normed)?.f_gelu_("tanh")?
            };
            drop(normed);
            let out = w.linear("ffn.net.2", &inner)?;
            drop(inner);
            told.of(start, &out)?;
            step.add_gated(hidden, start, &out)?;
        }
        Ok(())
    }

    /// The keys and values of all tokens: `put` has those of a slice put where they are gathered, values and keys or one of the two.
    /// Where they are packed, values are, before there are any keys, and what both are made from is made twice.
    pub(super) fn keys_of_all(
        &self,
        tokens: i64,
        mut put: impl FnMut((i64, i64), Option<&mut Gathered>, Option<&mut Gathered>) -> Result<()>,
    ) -> Result<SequenceKeys> {
        let [mut values, mut keys] = [(); 2].map(|()| Gathered::new(self.sequence.keys_held(self.shard)));
        let packs = self.attention.packs();
        self.slices(tokens).try_for_each(|slice| put(slice, Some(&mut values), Some(&mut keys).filter(|_| !packs)))?;
        let values = self.sequence.values(self.shard, self.attention, self.heads(&values.whole())?)?;
        if packs {
            self.slices(tokens).try_for_each(|slice| put(slice, None, Some(&mut keys)))?;
        }
        self.sequence.keys(self.shard, self.attention, self.heads(&keys.whole())?, values)
    }

    /// Puts in the keys or the values of a slice of the rank's tokens, with those that other ranks have for it.
    pub(super) fn gather(&self, gathered: &mut Gathered, start: i64, part: Tensor) -> Result<()> {
        let parts = self.sequence.heads_of_all(self.shard, start, part, self.spec.attention_head_dim)?;
        // Taken one by one, so that one alone is put in without a copy.
        parts.into_iter().try_for_each(|(start, part)| gathered.put(start, part))
    }

    /// A projection of `x`, the rank's tokens from `start` on: made where it will be gathered, where that is fused and no other rank has a part of it.
    fn project(&self, w: &Weights, projection: &str, x: &Tensor, start: i64, gathered: &mut Gathered) -> Result<Tensor> {
        let is_own = self.sequence.keys_held(self.shard) == self.shard.length();
        let place = if self.fused && is_own { gathered.place(start, x)? } else { None };
        match place {
            Some(place) => w.linear_into(projection, x, place),
            None => w.linear(projection, x),
        }
    }

    /// Slices of so many tokens.
    pub(super) fn slices(&self, tokens: i64) -> impl Iterator<Item = (i64, i64)> + use<> {
        slices(tokens, self.sequence_chunk)
    }

    /// A projection of `x`, which is let go, and its RMS norm over all heads at once (qk norm).
    fn project_and_norm(&self, w: &Weights, projection: &str, norm: &str, x: Tensor) -> Result<Tensor> {
        let projected = w.linear(projection, &x)?;
        drop(x);
        self.norm(w, norm, projected)
    }

    fn norm(&self, w: &Weights, norm: &str, x: Tensor) -> Result<Tensor> {
        let weight = w.get(norm);
        Ok(x.f_rms_norm(weight.size(), Some(weight), self.spec.eps)?)
    }

    /// RMS norm and turn of projected tokens from `start` on.
    fn norm_and_turn(&self, w: &Weights, norm: &str, projected: Tensor, start: i64) -> Result<Tensor> {
        let turns = self.rope.f_narrow(0, start, projected.size()[1])?;
        if self.fused {
            norm_and_turn(&projected, w.get(norm), None, &turns, self.spec.eps)?;
            return Ok(projected);
        }
        let normed = self.norm(w, norm, projected)?;
        rope::turn(&normed, &turns)?;
        Ok(normed)
    }

    /// `[B, L, heads · D]` as `[B, heads, L, D]`, a view.
    pub(super) fn heads(&self, x: &Tensor) -> Result<Tensor> {
        let [batch, tokens] = [x.size()[0], x.size()[1]];
        Ok(x.f_view([batch, tokens, -1, self.spec.attention_head_dim])?.f_transpose(1, 2)?)
    }
}

/// `[B, heads, L, D]` as `[B, L, dim]`, a view for back ends that lay it out so.
pub(super) fn joined(attended: Tensor) -> Result<Tensor> {
    let [batch, _, tokens, _] = [0, 1, 2, 3].map(|axis| attended.size()[axis]);
    Ok(attended.f_transpose(1, 2)?.f_reshape([batch, tokens, -1])?)
}
