//! One transformer block: self-attention, cross-attention to the prompt, feed-forward.

use engine_protocol::{PARTS_OF_A_BLOCK, TransformerSpec};
use tch::{Kind, Tensor};

use super::adding::{Adding, Gate, InProducts};
use super::embeddings::Condition;
use super::modulated::Modulated;
use super::norm::Affine;
use super::pass_cache::{Part, PassCache, Told};
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
    /// Tokens of the longest slice.
    pub(super) slice: i64,
    pub(super) head_chunk: Option<i64>,
    /// By kernels of ours, and products that do more than multiply.
    pub(super) fused: bool,
    pub(super) in_products: InProducts,
    pub(super) condition: &'a Condition,
    pub(super) rope: &'a Tensor,
    /// Whose parts these tokens are among.
    pub(super) sequence: &'a Sequence,
    pub(super) shard: Shard,
}

impl Block<'_> {
    /// Runs block `index` on `hidden`, in place, without the parts that `cache` leaves out. What is `left` is still to be added to each token, and so is what is given back.
    ///
    /// # Shapes
    /// `hidden` is `[B, L, dim]`, and what is left `[dim]` in its type.
    ///
    /// # Errors
    /// libtorch's, the cache's, and what `groups` ran into.
    pub(super) fn forward(
        &self,
        groups: &mut impl Groups,
        index: u32,
        hidden: &Tensor,
        left: Option<Tensor>,
        cache: &mut impl PassCache,
    ) -> Result<Option<Tensor>> {
        let kind = hidden.kind();
        let mut told = Told::new(cache, index);
        let eps = self.spec.eps;
        // 1. Self-attention. Its group has the modulation, which is needed in any case.
        let (modulation, left) = groups.with(name(index, Part::SelfAttention), |w| {
            let modulation = self.modulation(w)?;
            let step = modulation.map(|[shift, scale, gate, ..]| Modulated::new([shift, scale, gate], kind, self.fused))?;
            if told.is_left_out() {
                self.add_kept(hidden, Some(&step), &mut told)?;
                return Ok((modulation, left));
            }
            let norm = |span| step.layer_norm(hidden, span, left.as_ref(), eps);
            let mut adding = Adding::apart(w, "attn1.to_out.0", Gate::ByToken(&step), left.as_ref());
            let add = |start, attended| adding.add(hidden, start, attended, &mut told);
            match self.head_chunk {
                Some(heads) => self.attend_by_heads(w, hidden, heads, norm, add)?,
                None => self.attend(w, hidden, norm, add)?,
            }
            Ok((modulation, adding.left()?))
        })?;

        // 2. Cross-attention, whose norm has weights instead of modulation and whose result has no gate.
        told.part = Part::CrossAttention;
        let left = if told.is_left_out() {
            self.add_kept(hidden, None, &mut told)?;
            left
        } else {
            groups.with(name(index, Part::CrossAttention), |w| {
                let affine = Affine::new(0.0, ["norm2.weight", "norm2.bias"].map(|name| w.get(name)), kind, self.fused)?;
                let norm = |(start, length)| affine.layer_norm(&slice(hidden, start, length)?, left.as_ref(), eps);
                let mut adding = Adding::new(self.in_products, w, "attn2.to_out.0", Gate::None, left.as_ref(), &told);
                self.attend_to_prompt(w, hidden, norm, |start, attended| adding.add(hidden, start, attended, &mut told))?;
                adding.left()
            })?
        };

        // 3. Feed-forward.
        told.part = Part::FeedForward;
        let step = || modulation.map(|[_, _, _, shift, scale, gate]| Modulated::new([shift, scale, gate], kind, self.fused));
        if told.is_left_out() {
            self.add_kept(hidden, Some(&step()?), &mut told)?;
            return Ok(left);
        }
        groups.with(name(index, Part::FeedForward), |w| {
            let step = step()?;
            let mut adding = Adding::new(self.in_products, w, "ffn.net.2", Gate::ByToken(&step), left.as_ref(), &told);
            for span in self.slices(hidden.size()[1]) {
                let inner = self.inner(w, step.layer_norm(hidden, span, left.as_ref(), eps)?)?;
                adding.add(hidden, span.0, inner, &mut told)?;
            }
            adding.left()
        })
    }

    /// Adds what is kept of a part that is left out.
    fn add_kept(&self, hidden: &Tensor, step: Option<&ByToken<Modulated>>, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        self.slices(hidden.size()[1]).try_for_each(|span| {
            let mut add = |(start, length): (i64, i64), gate: Option<&Tensor>| told.in_place(start, &slice(hidden, start, length)?, gate);
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

    /// Self-attention: `add` is given what each slice of tokens attends to. A slice of the hidden state may be written then, after its own last use.
    fn attend(
        &self,
        w: &Weights,
        hidden: &Tensor,
        norm: impl Fn((i64, i64)) -> Result<Tensor>,
        mut add: impl FnMut(i64, Tensor) -> Result<()>,
    ) -> Result<()> {
        let tokens = hidden.size()[1];
        // 1. Keys and values of all tokens.
        let keys = self.keys_of_all(tokens, |(start, length), values, keys| {
            let normed = norm((start, length))?;
            if let Some(values) = values {
                let projected = self.project(w, "attn1.to_v", &normed, start, values)?;
                self.gather(values, start, projected)?;
            }
            let Some(keys) = keys else { return Ok(()) };
            let projected = self.project(w, "attn1.to_k", &normed, start, keys)?;
            drop(normed);
            self.gather(keys, start, self.norm_and_turn(w, "attn1.norm_k.weight", projected, start)?)
        })?;

        // 2. Queries of a slice against all of them.
        let query = |(start, length)| {
            let normed = norm((start, length))?;
            let projected = w.linear("attn1.to_q", &normed)?;
            drop(normed);
            self.heads(&self.norm_and_turn(w, "attn1.norm_q.weight", projected, start)?)
        };
        keys.attend(self.slices(tokens), query, |(start, _), attended| add(start, joined(attended)?))
    }

    /// Attention to the prompt, and where there is a picture to that, which is added before the last projection.
    fn attend_to_prompt(
        &self,
        w: &Weights,
        hidden: &Tensor,
        norm: impl Fn((i64, i64)) -> Result<Tensor>,
        mut add: impl FnMut(i64, Tensor) -> Result<()>,
    ) -> Result<()> {
        let prompt = &self.condition.prompt;
        let keys = self.heads(&self.project_and_norm(w, "attn2.to_k", "attn2.norm_k.weight", prompt.shallow_clone())?)?;
        let values = self.heads(&w.linear("attn2.to_v", prompt)?)?;
        let keys = Keys::new(self.attention.to_all_keys(), keys, values)?;
        let of_image = |image: &Tensor| -> Result<Keys> {
            let keys = self.project_and_norm(w, "attn2.add_k_proj", "attn2.norm_added_k.weight", image.shallow_clone())?;
            Keys::new(self.attention.to_all_keys(), self.heads(&keys)?, self.heads(&w.linear("attn2.add_v_proj", image)?)?)
        };
        let image = self.condition.image.as_ref().map(of_image).transpose()?;
        for span in self.slices(hidden.size()[1]) {
            let query = self.project_and_norm(w, "attn2.to_q", "attn2.norm_q.weight", norm(span)?)?;
            let mut attended = keys.attend(&self.heads(&query)?)?;
            if let Some(image) = &image {
                let _ = attended.f_add_(&image.attend(&self.heads(&query)?)?)?;
            }
            drop(query);
            add(span.0, joined(attended)?)?;
        }
        Ok(())
    }

    /// The first layer of feed-forward, and GELU.
    fn inner(&self, w: &Weights, normed: Tensor) -> Result<Tensor> {
        let layer = "ffn.net.0.proj";
        if self.fused { w.linear_gelu(layer, &normed) } else { Ok(w.linear(layer, &normed)?.f_gelu_("tanh")?) }
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
        slices(tokens, Some(self.slice))
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
