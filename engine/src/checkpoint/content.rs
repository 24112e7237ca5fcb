//! What a file of weights is, by the names of its tensors alone: what it is called says nothing.
//!
//! Facts from ComfyUI `comfy/model_detection.py` and `comfy/sd.py`, and from the files of Comfy-Org's `Wan_2.1_ComfyUI_repackaged` and `Wan_2.2_ComfyUI_Repackaged`.

use std::path::Path;

use super::original_names;
use crate::error::{Error, Result};
use crate::weights::TensorStore;

/// What may stand before every name: of the model that a whole checkpoint has it in.
const PREFIXES: [&str; 4] = ["model.diffusion_model.", "diffusion_model.", "model.", "module."];

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Wan's transformer, under its original names or diffusers'.
    Transformer { is_original: bool },
    /// umT5, under the names that Wan's code or transformers has.
    TextEncoder { is_original: bool },
    /// Wan's VAE, under its original names or diffusers'.
    Vae { is_original: bool },
    /// CLIP's vision encoder, under transformers' names.
    ImageEncoder,
    /// Changes to a transformer's weights.
    Lora,
    /// Something else.
    Other,
}

impl Content {
    /// What the file is that has these tensors.
    pub(super) fn of(store: &TensorStore) -> Self {
        let has = |name: &str| store.get(name).is_some();
        if store.iter().any(|(name, _)| ["lora_", ".diff_b", ".lokr_", ".hada_"].iter().any(|part| name.contains(part))) {
            return Self::Lora;
        }
        if has("vision_model.embeddings.class_embedding") {
            return Self::ImageEncoder;
        }
        let either = |original: &str, other: &str| (has(original) || has(other)).then(|| has(original));
        let transformer = either("blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight").filter(|_| has("patch_embedding.weight"));
        let text_encoder = either("blocks.0.attn.q.weight", "encoder.block.0.layer.0.SelfAttention.q.weight");
        let vae = either("decoder.conv1.weight", "decoder.conv_in.weight").filter(|_| !has("blocks.0.attn.q.weight"));
        match (transformer, text_encoder, vae) {
            (Some(is_original), ..) => Self::Transformer { is_original },
            (_, Some(is_original), _) => Self::TextEncoder { is_original },
            (.., Some(is_original)) => Self::Vae { is_original },
            _ => Self::Other,
        }
    }

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transformer { .. } => "a transformer of Wan",
            Self::TextEncoder { .. } => "a text encoder (umT5)",
            Self::Vae { .. } => "a VAE of Wan",
            Self::ImageEncoder => "an image encoder (CLIP)",
            Self::Lora => "a LoRA, which holds changes to a model's weights",
            Self::Other => "no model that is known here",
        }
    }
}

/// The same tensors without what stands before all their names, where something does.
pub(super) fn unprefixed(store: TensorStore) -> Result<TensorStore> {
    let all_have = |prefix: &&str| store.iter().next().is_some() && store.iter().all(|(name, _)| name.starts_with(*prefix));
    match PREFIXES.into_iter().find(|prefix| all_have(prefix)) {
        Some(prefix) => store.renamed(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned()),
        None => Ok(store),
    }
}

/// The same tensors under the names of published checkpoints, where they are a vision encoder's as transformers 5 has them in memory.
pub(super) fn with_vision_prefix(store: TensorStore) -> Result<TensorStore> {
    if store.get("embeddings.class_embedding").is_none() {
        return Ok(store);
    }
    store.renamed(|name| format!("vision_model.{name}"))
}

/// The same tensors under transformers' names, where they are a text encoder's under those of llama.cpp.
pub(super) fn as_transformers_has_it(store: TensorStore) -> Result<TensorStore> {
    if store.get("enc.blk.0.attn_q.weight").is_none() {
        return Ok(store);
    }
    store.renamed(original_names::llama_text_encoder)
}

/// Refuses a file that is another one than is `wanted` here. `option` is what it was named with.
pub(super) fn refuse(path: &Path, content: Content, wanted: &str, option: &str) -> Error {
    Error::at(path, &format!("it is {}, and --{option} is for {wanted}", content.name()))
}
