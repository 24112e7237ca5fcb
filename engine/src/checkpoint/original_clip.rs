//! CLIP's vision encoder as Wan's own layout has it, within a CLIP whose other half reads texts.
//!
//! Facts from Wan-Video/Wan2.1 `wan/modules/clip.py` (`VisionTransformer`): queries, keys and values are one linear layer, and embeddings have sides of one.

use super::original_names::renamed;
use crate::error::Result;
use crate::weights::{StoredTensor, TensorStore};

const LAYER: [(&str, &str); 5] =
    [("norm1", "layer_norm1"), ("attn.proj", "self_attn.out_proj"), ("norm2", "layer_norm2"), ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2")];

const AROUND: [(&str, &str); 4] = [
    ("patch_embedding", "vision_model.embeddings.patch_embedding"),
    ("pre_norm", "vision_model.pre_layrnorm"),
    ("post_norm", "vision_model.post_layernorm"),
    ("head", "visual_projection"),
];

/// The same tensors under transformers' names and in its shapes. What reads texts is left out.
pub(super) fn image_encoder(store: TensorStore) -> Result<TensorStore> {
    store.rebuilt(|name, tensor| match name.strip_prefix("visual.") {
        Some(name) => visual(name, tensor),
        None if name.starts_with("textual.") || name == "log_scale" => Ok(Vec::new()),
        None => Ok(vec![(name.to_owned(), tensor.clone())]),
    })
}

fn visual(name: &str, tensor: &StoredTensor) -> Result<Vec<(String, StoredTensor)>> {
    let same = |name: String| Ok(vec![(name, tensor.clone())]);
    let shape = tensor.shape();
    let embedding = |name: &str, shape: &[i64]| Ok(vec![(format!("vision_model.embeddings.{name}"), tensor.part(0, 1, shape)?)]);
    match (name, shape) {
        ("cls_embedding", [.., width]) => return embedding("class_embedding", &[*width]),
        ("pos_embedding", [_, places, width]) => return embedding("position_embedding.weight", &[*places, *width]),
        _ => {}
    }
    let Some((index, rest)) = name.strip_prefix("transformer.").and_then(|rest| rest.split_once('.')) else {
        return same(renamed(name, &AROUND).unwrap_or_else(|| format!("visual.{name}")));
    };
    let layer = format!("vision_model.encoder.layers.{index}");
    if let (Some(kind), [rows, others @ ..]) = (rest.strip_prefix("attn.to_qkv."), shape) {
        let part = [&[rows / 3], others].concat();
        let one = |(index, name): (i64, &str)| Ok((format!("{layer}.self_attn.{name}_proj.{kind}"), tensor.part(index, 3, &part)?));
        return (0..).zip(["q", "k", "v"]).map(one).collect();
    }
    same(renamed(rest, &LAYER).map_or_else(|| format!("visual.{name}"), |rest| format!("{layer}.{rest}")))
}
