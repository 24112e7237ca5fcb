//! Where a model's weights are: a folder, or files that were named one by one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a model's weights are. What is not named is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointFiles {
    /// A checkpoint's folder, which has all the others but what is named beside it.
    pub folder: Option<PathBuf>,
    /// The transformer; of a pool the one for high noise.
    pub transformer: Option<PathBuf>,
    /// The transformer for low noise.
    pub low_noise_transformer: Option<PathBuf>,
    /// The text encoder.
    pub text_encoder: Option<PathBuf>,
    /// The VAE.
    pub vae: Option<PathBuf>,
    /// `tokenizer.json` or `spiece.model`.
    pub tokenizer: Option<PathBuf>,
}

impl CheckpointFiles {
    /// The checkpoint in `folder`.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// The path that people know them by: the folder, or else the transformer.
    pub fn main(&self) -> Option<&Path> {
        self.folder.as_deref().or(self.transformer.as_deref())
    }
}
