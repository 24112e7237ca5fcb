//! An opened checkpoint: its model, its tokenizer, and the tensors of each component.

use std::path::PathBuf;

use engine_protocol::ModelSpec;

use crate::error::{Error, Result};
use crate::files::Folder;
use crate::text_encoder::Tokenizer;
use crate::weights::TensorStore;

/// The weights of one component, under the names that its model has for them.
#[derive(Debug)]
pub(super) struct StoredComponent {
    /// The component's key.
    pub(super) key: &'static str,
    /// Its folder or file, as people find it.
    pub(super) name: String,
    pub(super) tensors: TensorStore,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) root: PathBuf,
    pub(super) folder: Folder,
    pub(super) layout: &'static str,
    pub(super) model: ModelSpec,
    pub(super) tokenizer: PathBuf,
    pub(super) components: Vec<StoredComponent>,
}

impl Checkpoint {
    /// The model that it is of: its shapes, and how to sample from it.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// A tokenizer that is missing or damaged, or has tokens that the text encoder does not know.
    pub fn open_tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::open_in(&self.folder, &self.tokenizer)?;
        let (tokens, rows) = (tokenizer.vocab_size().unwrap_or(0) as i64, self.model.text_encoder.vocab_size);
        if tokens > rows {
            let what = format!("it has {tokens} tokens, and the text encoder knows {rows}: the two are not of one checkpoint");
            return Err(Error::at(&self.tokenizer, &what));
        }
        Ok(tokenizer)
    }
}
