//! Checkpoints as people have them on disk: which model a folder holds, and its weights, held against what the model needs before anything is loaded.
//!
//! Two layouts are read: that of diffusers (`model_index.json` and a folder a component) and that of Wan's own code (safetensors for the transformer,
//! `.pth` for text encoder and VAE). Opening one maps its files and reads their headers: no weight is read until it is put where it will live, which is not done
//! here.

mod diffusers;
mod inventory;
mod json;
mod listing;
mod opened;
mod original;
mod original_names;
mod original_shapes;
mod published;

use std::path::Path;

pub use opened::Checkpoint;

use crate::error::{Error, Result};
use crate::files::Folder;

impl Checkpoint {
    /// Opens the checkpoint in the folder `root`.
    ///
    /// # Errors
    /// A folder that holds none, or one of a model that is not supported, and files that are missing, truncated or damaged. What the files lack is
    /// no error here: see [`Checkpoint::inventory`] and [`Checkpoint::sources`].
    pub fn open(root: &Path) -> Result<Self> {
        // What is there under such a name is opened, and says itself where it is no file.
        if untrusted::is_there(&root.join(diffusers::INDEX)) {
            diffusers::open(root, &Folder::of(root)?)
        } else if original::is_one(root) {
            original::open(root, &Folder::of(root)?)
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
}
