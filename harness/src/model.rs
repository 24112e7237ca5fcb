//! The models: their definitions, and what follows from their shapes.

use engine_protocol::{Dtype, ModelSpec, TextEncoderSpec, TransformerSpec};

use crate::data;
use crate::error::Error;

/// Models of our own, made small: they have no checkpoint, and nobody wants videos of them.
const MADE_SMALL: [&str; 2] = ["wan-tiny", "wan-tiny-i2v"];

/// Whether the model `name` is one of our own, made small.
pub(crate) fn is_made_small(name: &str) -> bool {
    MADE_SMALL.contains(&name)
}

/// All models, by name.
#[derive(Debug)]
pub(crate) struct Models(Vec<ModelSpec>);

impl Models {
    /// Reads all model definitions.
    pub(crate) fn load() -> Result<Self, Error> {
        Ok(Self(data::load_all(data::MODELS, |model: &ModelSpec| &model.name)?))
    }

    /// These and a checkpoint's model, which comes before a known one of its name.
    pub(crate) fn with(mut self, model: ModelSpec) -> Self {
        self.0.retain(|known| known.name != model.name);
        self.0.push(model);
        self
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ModelSpec> {
        self.0.iter()
    }

    /// The model of that name.
    pub(crate) fn get(&self, name: &str) -> Result<&ModelSpec, Error> {
        self.0.iter().find(|model| model.name == name).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|model| model.name.as_str()).collect();
            let nearest = data::nearest(names.iter().copied(), name);
            let nearest = nearest.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            Error::input(format!("unknown model `{name}`: {nearest}known models: {}", names.join(", ")))
        })
    }
}

/// Parameters of the text encoder.
pub(crate) fn text_encoder_parameters(spec: &TextEncoderSpec) -> u64 {
    let attention = 4 * spec.d_model * spec.num_heads * spec.d_kv + spec.relative_attention_num_buckets * spec.num_heads;
    let layer = attention + 3 * spec.d_model * spec.d_ff + 2 * spec.d_model;
    (spec.vocab_size * spec.d_model + spec.num_layers * layer + spec.d_model) as u64
}

/// Parameters of the transformer.
pub(crate) fn transformer_parameters(spec: &TransformerSpec) -> u64 {
    let hidden = spec.num_attention_heads * spec.attention_head_dim;
    let patch: i64 = spec.patch_size.iter().product();
    // Self- and cross-attention: four projections with biases and two qk norms each.
    let attention = 4 * (hidden * hidden + hidden) + 2 * hidden;
    let feed_forward = 2 * hidden * spec.ffn_dim + hidden + spec.ffn_dim;
    // The modulation table, and the norm before cross-attention.
    let block = 2 * attention + feed_forward + 6 * hidden + 2 * hidden;
    let patch_embed = spec.in_channels * patch * hidden + hidden;
    let text = spec.text_dim * hidden + hidden * hidden + 2 * hidden;
    let timestep = spec.freq_dim * hidden + hidden * hidden + 2 * hidden + 6 * (hidden * hidden + hidden);
    let head = hidden * spec.out_channels * patch + spec.out_channels * patch + 2 * hidden;
    (spec.num_layers * block + patch_embed + text + timestep + head) as u64
}

/// Bytes of the weights in one place: text encoder and transformer, of a pool both. The VAE is small beside them.
pub(crate) fn weight_bytes(model: &ModelSpec, dtype: Dtype) -> u64 {
    (text_encoder_parameters(&model.text_encoder) + transformers(model) * transformer_parameters(&model.transformer)) * dtype.bytes()
}

/// How many transformers a model has.
pub(crate) fn transformers(model: &ModelSpec) -> u64 {
    if model.pool.is_some() { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes() {
        let models = Models::load().expect("models");
        let large = models.get("wan2.1-t2v-14b").expect("14B");
        // The published checkpoints: 14.29 and 1.42 billion parameters, the encoder 5.68.
        assert_eq!(transformer_parameters(&large.transformer) / 10_000_000, 1428);
        assert_eq!(text_encoder_parameters(&large.text_encoder) / 10_000_000, 568);
        let pool = models.get("wan2.2-t2v-a14b").expect("A14B");
        let more = weight_bytes(pool, Dtype::Bf16) - weight_bytes(large, Dtype::Bf16);
        assert_eq!(more, 2 * transformer_parameters(&large.transformer), "a second transformer");
        let small = models.get("wan2.1-t2v-1.3b").expect("1.3B");
        assert_eq!(transformer_parameters(&small.transformer) / 10_000_000, 141);
    }

    #[test]
    fn an_unknown_model_names_the_known_ones() {
        let error = Models::load().expect("models").get("wan2.1-14b").expect_err("unknown").to_string();
        assert!(
            error.contains("unknown model `wan2.1-14b`: did you mean `wan2.1-t2v-14b`? known models: wan-tiny-i2v, wan-tiny, "),
            "{error}"
        );
    }
}
