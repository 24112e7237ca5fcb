//! umT5's encoder, as transformers 5.23.0 computes it in `src/transformers/models/umt5/modeling_umt5.py` (`UMT5EncoderModel`).
//!
//! Unlike T5's, each layer has a relative position bias of its own. As in T5, scores are not divided by the square root of the width.

use engine_protocol::TextEncoderSpec;
use tch::{Device, Kind, Tensor};

use crate::attribution::operation;
use crate::error::Result;
use crate::weights::{Group, GroupName, Groups, Weights};

/// What a masked score gets in addition: far below any score, and no infinity, which would make a fully masked row undefined.
const MASKED: f64 = -1e30;

/// In fp16 the hidden state is kept below the type's largest value, 65504, as the reference does once it overflows.
const FP16_BOUND: f64 = 64504.0;

/// The embedding table, of which a few rows are read.
pub const TABLE: GroupName = GroupName::whole("embedding table");
const LAST_NORM: GroupName = GroupName::whole("last norm");

fn layer(index: u32) -> GroupName {
    GroupName::numbered("layers", index, "")
}

/// A umT5 encoder, without its weights.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    pub(super) spec: TextEncoderSpec,
}

impl TextEncoder {
    /// An encoder of these shapes.
    pub fn new(spec: &TextEncoderSpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// Its groups in execution order: embedding table, one group a layer, last norm. All layers' groups have the same layout.
    pub fn groups(spec: &TextEncoderSpec) -> Vec<Group> {
        let inner = spec.num_heads * spec.d_kv;
        let mut groups = vec![Group::new(TABLE, "").param("shared.weight", &[spec.vocab_size, spec.d_model])];
        groups.extend((0..spec.num_layers as u32).map(|index| {
            Group::new(layer(index), format!("encoder.block.{index}."))
                .param("layer.0.layer_norm.weight", &[spec.d_model])
                .param("layer.0.SelfAttention.q.weight", &[inner, spec.d_model])
                .param("layer.0.SelfAttention.k.weight", &[inner, spec.d_model])
                .param("layer.0.SelfAttention.v.weight", &[inner, spec.d_model])
                .param("layer.0.SelfAttention.o.weight", &[spec.d_model, inner])
                .param("layer.0.SelfAttention.relative_attention_bias.weight", &[spec.relative_attention_num_buckets, spec.num_heads])
                .param("layer.1.layer_norm.weight", &[spec.d_model])
                .param("layer.1.DenseReluDense.wi_0.weight", &[spec.d_ff, spec.d_model])
                .param("layer.1.DenseReluDense.wi_1.weight", &[spec.d_ff, spec.d_model])
                .param("layer.1.DenseReluDense.wo.weight", &[spec.d_model, spec.d_ff])
                .as_filed()
                .packed(|name| spec.packed.get(name).copied())
        }));
        groups.push(Group::new(LAST_NORM, "encoder.final_layer_norm.").param("weight", &[spec.d_model]));
        groups
    }

    /// The prompt embeddings of several prompts' tokens, on `device`: hidden states of their tokens, zeros from there to the model's limit,
    /// as diffusers' `WanPipeline` hands them to the transformer.
    ///
    /// One pass over the weights for all prompts, and no longer than the longest of them: a masked token changes no other.
    ///
    /// # Shapes
    /// `[prompts, max_tokens, d_model]`.
    ///
    /// # Errors
    /// libtorch's, and what `groups` ran into.
    pub fn prompt_embedding(&self, groups: &mut impl Groups, prompts: &[Vec<i64>], device: Device) -> Result<Tensor> {
        // 1. One rectangle of tokens, and which of them are real.
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [prompts.len() as i64, longest as i64];
        let padded = |prompt: &Vec<i64>, value: fn(i64) -> i64| {
            let padding = std::iter::repeat_n(0, longest - prompt.len());
            prompt.iter().map(|&token| value(token)).chain(padding).collect::<Vec<_>>()
        };
        let ids: Vec<i64> = prompts.iter().flat_map(|prompt| padded(prompt, |token| token)).collect();
        let mask: Vec<i64> = prompts.iter().flat_map(|prompt| padded(prompt, |_| 1)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?;
        let mask = Tensor::f_from_slice(&mask)?.f_view(shape)?.f_to_device(device)?;

        // 2. Their hidden states, those of padding zeroed, and zeros up to the limit.
        let mut hidden = self.forward(groups, &ids, &mask)?;
        let _ = hidden.f_mul_(&mask.f_unsqueeze(-1)?)?;
        Ok(hidden.f_constant_pad_nd([0, 0, 0, self.spec.max_tokens - longest as i64])?)
    }

    /// Hidden states of the last layer.
    ///
    /// # Shapes
    /// `ids` and `mask` are `[B, L]`, integers; `mask` is one for real tokens and zero for padding. The result is `[B, L, d_model]`.
    ///
    /// # Errors
    /// libtorch's, and what `groups` ran into.
    pub fn forward(&self, groups: &mut impl Groups, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        // 1. Embeddings: rows of the table, looked up where that is.
        let mut hidden = groups.with(TABLE, |w| {
            let table = w.get("shared.weight");
            Ok(Tensor::f_embedding(table, &ids.f_to_device(table.device())?, -1, false, false)?.f_to_device(ids.device())?)
        })?;

        // 2. What all layers share: which bucket each pair of tokens falls in, and what masked scores get.
        let buckets = self.buckets(ids.size()[1])?.f_to_device(ids.device())?;
        let masked = mask.f_to_kind(Kind::Float)?.f_rsub_scalar(1.0)?.f_mul_scalar(MASKED)?;
        let masked = masked.f_unsqueeze(1)?.f_unsqueeze(1)?;

        // 3. Layers, which write into the hidden state.
        for index in 0..self.spec.num_layers as u32 {
            groups.with(layer(index), |w| {
                self.self_attention(w, &mut hidden, &buckets, &masked)?;
                self.feed_forward(w, &mut hidden)
            })?;
        }

        // 4. The last norm.
        groups.with(LAST_NORM, |w| self.rms_norm(w.get("weight"), &hidden))
    }

    /// Adds `attention(norm(hidden))`.
    fn self_attention(&self, w: &Weights, hidden: &mut Tensor, buckets: &Tensor, masked: &Tensor) -> Result<()> {
        let normed = self.rms_norm(w.get("layer.0.layer_norm.weight"), hidden)?;
        let heads = |name: &str, kind: Kind| -> Result<Tensor> {
            let x = w.linear(&format!("layer.0.SelfAttention.{name}"), &normed)?.f_to_kind(kind)?;
            Ok(x.f_unflatten(-1, [self.spec.num_heads, self.spec.d_kv])?.f_transpose(1, 2)?)
        };
        // 1. Scores with position bias and mask, `[B, heads, L, L]`, and weights from them.
        // In fp32: not being divided by anything they are large, and 16 bits would round them by a tenth.
        let (q, k) = (heads("q", Kind::Float)?, heads("k", Kind::Float)?.f_transpose(-2, -1)?);
        let mut scores = operation(|| Ok(q.f_matmul(&k)?))?;
        drop((q, k));
        let table = w.get("layer.0.SelfAttention.relative_attention_bias.weight");
        let bias = Tensor::f_embedding(table, buckets, -1, false, false)?.f_permute([2, 0, 1])?;
        let _ = scores.f_add_(&bias)?.f_add_(masked)?;
        drop(bias);
        let weights = scores.f_softmax(-1, Kind::Float)?.f_to_kind(hidden.kind())?;
        drop(scores);

        // 2. Values, heads joined, projected.
        let values = heads("v", hidden.kind())?;
        let joined = operation(|| Ok(weights.f_matmul(&values)?))?.f_transpose(1, 2)?.f_flatten(2, 3)?;
        drop(values);
        let _ = hidden.f_add_(&w.linear("layer.0.SelfAttention.o", &joined)?)?;
        bound_fp16(hidden)
    }

    /// Adds `wo(gelu(wi_0 x) · wi_1 x)` with x = norm(hidden).
    fn feed_forward(&self, w: &Weights, hidden: &mut Tensor) -> Result<()> {
        let normed = self.rms_norm(w.get("layer.1.layer_norm.weight"), hidden)?;
        let mut inner = w.linear("layer.1.DenseReluDense.wi_0", &normed)?;
        let _ = inner.f_gelu_("tanh")?.f_mul_(&w.linear("layer.1.DenseReluDense.wi_1", &normed)?)?;
        let _ = hidden.f_add_(&w.linear("layer.1.DenseReluDense.wo", &inner)?)?;
        bound_fp16(hidden)
    }

    /// fp32 inside, rounded once.
    fn rms_norm(&self, weight: &Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_rms_norm(weight.size(), Some(weight), self.spec.layer_norm_epsilon)?)
    }

    /// The bucket of the position bias for each query (row) and key (column): `[L, L]`, on the CPU.
    fn buckets(&self, length: i64) -> Result<Tensor> {
        let positions = Tensor::f_arange(length, (Kind::Int64, Device::Cpu))?;
        let distances = positions.f_unsqueeze(0)?.f_sub(&positions.f_unsqueeze(1)?)?;
        self.buckets_of(&distances)
    }

    /// Buckets of distances from query to key. Half of them are for keys ahead; of each half, half are for one distance each and the others
    /// grow geometrically up to the largest distance that is told apart.
    fn buckets_of(&self, distances: &Tensor) -> Result<Tensor> {
        let half = self.spec.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let reach = (self.spec.relative_attention_max_distance as f64 / exact as f64).ln();
        let ahead = distances.f_gt(0)?.f_to_kind(Kind::Int64)?.f_mul_scalar(half)?;
        let distances = distances.f_abs()?;

        // In fp32 and in the reference's order: at powers of two the quotient lies on the border between two buckets.
        let grown = distances.f_to_kind(Kind::Float)?.f_div_scalar(exact)?.f_log()?.f_div_scalar(reach)?.f_mul_scalar(half - exact)?;
        // Distances that have a bucket each may be as small as zero, whose logarithm is no number to convert.
        let grown = grown.f_clamp(0.0, (half - 1 - exact) as f64)?.f_to_kind(Kind::Int64)?.f_add_scalar(exact)?;
        Ok(distances.f_where_self(&distances.f_lt(exact)?, &grown)?.f_add(&ahead)?)
    }
}

fn bound_fp16(hidden: &mut Tensor) -> Result<()> {
    if hidden.kind() == Kind::Half {
        let _ = hidden.f_clamp_(-FP16_BOUND, FP16_BOUND)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder() -> TextEncoder {
        TextEncoder::new(&TextEncoderSpec {
            vocab_size: 8,
            d_model: 8,
            d_kv: 4,
            num_heads: 2,
            d_ff: 8,
            num_layers: 1,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            max_tokens: 16,
            packed: std::collections::BTreeMap::new(),
        })
    }

    #[test]
    fn near_distances_have_a_bucket_each_and_far_ones_share() {
        let distances = Tensor::from_slice(&[0i64, -1, 1, -7, 7, -8, -16, -32, 64, -1000, 1000]);
        let buckets: Vec<i64> = encoder().buckets_of(&distances).unwrap().try_into().unwrap();
        assert_eq!(buckets, [0, 1, 17, 7, 23, 8, 10, 12, 30, 15, 31]);
    }
}
