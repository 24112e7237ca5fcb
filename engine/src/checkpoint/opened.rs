//! An opened checkpoint: its model, its tokenizer, and the tensors of each component.

use std::path::{Path, PathBuf};

use engine_protocol::ModelSpec;

use crate::error::{Error, Result};
use crate::files::Folder;
use crate::text_encoder::Tokenizer;
use crate::weights::{StoredTensor, TensorStore};

/// The weights of one component, under the names that its model has for them.
#[derive(Debug)]
pub(super) struct StoredComponent {
    /// The component's key.
    pub(super) key: &'static str,
    /// Its folder or file, as people find it.
    pub(super) name: String,
    pub(super) tensors: TensorStore,
}

/// Where a tokenizer is.
#[derive(Debug)]
pub(super) enum TokenizerFile {
    /// A file of its own, which may not be there.
    At(PathBuf),
    /// A file that a person named, wherever it lies.
    Named(PathBuf),
    /// SentencePiece's file within a text encoder's, which is at `path`.
    Within { path: PathBuf, pieces: StoredTensor },
}

impl TokenizerFile {
    /// The one in `folder`, in either form.
    pub(super) fn within(folder: &Path) -> Self {
        let forms = ["tokenizer.json", "spiece.model"].map(|name| folder.join(name));
        let found = forms.iter().find(|path| untrusted::is_there(path)).unwrap_or(&forms[0]);
        Self::At(found.clone())
    }

    /// The one beside the text encoder at `path`; where there is none and that is in GGUF, the one in it.
    pub(super) fn beside(path: PathBuf) -> Self {
        let found = Self::within(path.parent().unwrap_or(Path::new("")));
        let is_gguf = path.extension().is_some_and(|extension| extension == "gguf");
        if found.path().is_none() && is_gguf { Self::At(path) } else { found }
    }

    /// The file that it is in, where that is there.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::At(path) | Self::Named(path) => path.is_file().then_some(path),
            Self::Within { path, .. } => Some(path),
        }
    }

    fn open(&self, folder: &Folder) -> Result<Tokenizer> {
        match self {
            Self::At(path) | Self::Named(path) if !untrusted::is_there(path) => Err(Error::at(
                path,
                "it is not there: name umT5's tokenizer.json or spiece.model with --tokenizer (Wan's folders have it in tokenizer or google/umt5-xxl)",
            )),
            Self::At(path) => Tokenizer::open_in(folder, path),
            Self::Named(path) => Tokenizer::open(path),
            Self::Within { path, pieces } => Tokenizer::of_model(&pieces.text()?, path),
        }
    }

    /// What is wrong with it.
    fn error(&self, what: &str) -> Error {
        match self {
            Self::At(path) | Self::Named(path) | Self::Within { path, .. } => Error::at(path, what),
        }
    }
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) root: PathBuf,
    pub(super) folder: Folder,
    pub(super) layout: &'static str,
    pub(super) model: ModelSpec,
    pub(super) tokenizer: TokenizerFile,
    pub(super) components: Vec<StoredComponent>,
}

impl Checkpoint {
    /// The model that it is of: its shapes, and how to sample from it.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// Has it use another tokenizer than its own.
    pub(super) fn use_tokenizer(&mut self, path: &Path) {
        // A person named it: it may lie anywhere.
        self.tokenizer = TokenizerFile::Named(path.to_owned());
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// A tokenizer that is missing or damaged, or has tokens that the text encoder does not know.
    pub fn open_tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = self.tokenizer.open(&self.folder)?;
        let (tokens, rows) = (tokenizer.vocab_size().unwrap_or(0) as i64, self.model.text_encoder.vocab_size);
        if tokens > rows {
            let what = format!("it has {tokens} tokens, and the text encoder knows {rows}: the two are not of one checkpoint");
            return Err(self.tokenizer.error(&what));
        }
        Ok(tokenizer)
    }
}
