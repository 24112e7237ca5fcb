//! Checkpoints as people have them on disk: which model a folder holds, and its weights, held against what the model needs before anything is loaded.
//!
//! Two layouts are read: that of diffusers (`model_index.json` and a folder a component) and that of Wan's own code (safetensors for the transformer,
//! `.pth` for text encoder and VAE). Opening one maps its files and reads their headers: no weight is read until it is put where it will live.

mod diffusers;
mod inventory;
mod json;
mod original;
mod original_names;
mod original_shapes;
mod published;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine_protocol::{Inventory, ModelSpec};

use crate::error::{Error, Result};
use crate::pipeline::Sources;
use crate::text_encoder::Tokenizer;
use crate::weights::{Source, TensorStore};

/// A part of a model that has files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    TextEncoder,
    /// Of a pool, the high-noise one.
    Transformer,
    LowNoiseTransformer,
    Vae,
}

/// One part's weights, under the names that the models have for them.
#[derive(Debug)]
struct Component {
    part: Part,
    /// Its folder or file, as people find it.
    name: String,
    tensors: TensorStore,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    root: PathBuf,
    layout: &'static str,
    model: ModelSpec,
    tokenizer: PathBuf,
    components: Vec<Component>,
}

impl Checkpoint {
    /// Opens the checkpoint in the folder `root`.
    ///
    /// # Errors
    /// A folder that holds none, or one of a model that is not supported, and files that are missing, truncated or damaged. What the files lack is
    /// no error here: see [`Checkpoint::inventory`] and [`Checkpoint::sources`].
    pub fn open(root: &Path) -> Result<Self> {
        if root.join(diffusers::INDEX).is_file() {
            diffusers::open(root)
        } else if original::is_one(root) {
            original::open(root)
        } else {
            let what = if root.is_dir() { "no checkpoint in this folder" } else { "no such folder" };
            Err(Error::at(
                root,
                &format!(
                    "{what}: name the one that has {} (diffusers' layout), or config.json and the .pth files of text encoder and VAE (Wan's own)",
                    diffusers::INDEX
                ),
            ))
        }
    }

    /// The model that it is of: its shapes, and how to sample from it.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// A tokenizer that is missing or damaged, or has tokens that the text encoder does not know.
    pub fn open_tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::open(&self.tokenizer)?;
        let (tokens, rows) = (tokenizer.vocab_size().unwrap_or(0) as i64, self.model.text_encoder.vocab_size);
        if tokens > rows {
            let what = format!("it has {tokens} tokens, and the text encoder knows {rows}: the two are not of one checkpoint");
            return Err(Error::at(&self.tokenizer, &what));
        }
        Ok(tokenizer)
    }

    /// What its files hold, held against what the model needs.
    pub fn inventory(&self) -> Inventory {
        inventory::take(self)
    }

    /// The weights, all of them found to be what the model needs.
    ///
    /// # Errors
    /// The first tensor that is missing, or has another shape or type than the model needs, with its file.
    pub fn sources(&self) -> Result<Sources> {
        for component in &self.components {
            inventory::check(component, &self.model)?;
        }
        let source = |part: Part| {
            let component = self.components.iter().find(|component| component.part == part)?;
            Some(Source::Stored(Rc::new(component.tensors.clone())))
        };
        let needed = |part: Part| source(part).ok_or_else(|| Error::at(&self.root, &format!("it has no {part:?}")));
        Ok(Sources {
            text_encoder: needed(Part::TextEncoder)?,
            transformer: needed(Part::Transformer)?,
            low_noise_transformer: source(Part::LowNoiseTransformer),
            vae: needed(Part::Vae)?,
        })
    }
}
