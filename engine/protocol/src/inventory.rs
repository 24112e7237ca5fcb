//! What a checkpoint holds: the answer to `lowmem models inspect`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelSpec;

/// What a checkpoint holds, held against what its model needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// How its files are laid out: `diffusers`, `original` for Wan's own, or `files` that were named or found one by one.
    pub layout: String,
    /// The model that it is of.
    pub model: ModelSpec,
    /// The tokenizer's file, under the checkpoint's folder; empty where it is missing.
    pub tokenizer: Option<String>,
    /// Its parts with weights.
    pub components: Vec<ComponentInventory>,
    /// Why no video can be made from it, where none can: the first thing that is wrong, with its file.
    pub refusal: Option<String>,
}

/// What one part's files hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentInventory {
    /// Its folder or file.
    pub name: String,
    /// Its files, under the checkpoint's folder.
    pub files: Vec<String>,
    /// How many tensors they hold.
    pub tensors: u64,
    /// How many numbers those hold.
    pub parameters: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Bytes by type.
    pub types: BTreeMap<String, u64>,
    /// What is wrong with tensors that are there: another shape or type than the model's.
    pub faults: Vec<String>,
    /// Tensors of the model that are not there.
    pub missing: Vec<String>,
    /// Tensors that are there and that the model has no use for.
    pub unexpected: Vec<String>,
}
