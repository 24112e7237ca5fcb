//! Checkpoints as people have them on disk: which model a folder or some files hold, and its weights, held against what the model needs before anything is loaded.
//!
//! Read are the layout of diffusers (`model_index.json` and a folder a component), that of Wan's own code (safetensors for the transformer, `.pth` for text encoder
//! and VAE), and files of their own, as ComfyUI has them, named one by one or found in its folder. Opening one maps its files and reads their headers: no weight is
//! read until it is put where it will live, which is not done here.

mod comfyui;
mod content;
mod diffusers;
mod inventory;
mod json;
mod listing;
mod lora;
mod opened;
mod original;
mod original_clip;
mod original_names;
mod original_shapes;
mod published;
mod single_files;

use std::path::Path;

use engine_protocol::CheckpointFiles;

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
        Self::open_files(&CheckpointFiles::folder(root))
    }

    /// Opens the checkpoint that is in `files`: those of its folder, but for those that are named themselves.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], and a file that is another one than it is named for.
    pub fn open_files(files: &CheckpointFiles) -> Result<Self> {
        Self::of_layout(files)?.with_packed().with_loras(&files.loras)
    }

    /// Opens them by their layout.
    fn of_layout(files: &CheckpointFiles) -> Result<Self> {
        let Some(root) = &files.folder else { return single_files::open(files, &Folder::anywhere()) };
        let root = &listing::snapshot(root).unwrap_or_else(|| root.clone());
        let names_weights = [&files.transformer, &files.low_noise_transformer, &files.text_encoder, &files.vae, &files.image_encoder]
            .into_iter()
            .any(Option::is_some);
        // What is there under such a name is opened, and says itself where it is no file.
        let mut checkpoint = if untrusted::is_there(&root.join(diffusers::INDEX)) {
            diffusers::open(root, &Folder::of(root)?)?
        } else if original::is_one(root) {
            original::open(root, &Folder::of(root)?)?
        } else if comfyui::is_one(root) {
            // Files that were named may lie elsewhere; what is found lies in the folder.
            let found = comfyui::find(root, &Folder::of(root)?, files)?;
            return single_files::open(&found, &if names_weights { Folder::anywhere() } else { Folder::of(root)? });
        } else {
            return Err(no_checkpoint(root));
        };
        if names_weights {
            return Err(Error::at(
                root,
                "it is a whole checkpoint: leave out --transformer, --text-encoder and --vae, or name all files and no folder",
            ));
        }
        if let Some(tokenizer) = &files.tokenizer {
            checkpoint.use_tokenizer(tokenizer);
        }
        Ok(checkpoint)
    }
}

/// What is at `root`, which is no checkpoint.
fn no_checkpoint(root: &Path) -> Error {
    if root.is_file() {
        return single_files::alone(root, &Folder::anywhere());
    }
    if let (Ok(folder), Some(file)) = (Folder::of(root), listing::first_weights(root)) {
        return single_files::alone(&file, &folder);
    }
    if let Some(part) = diffusers::part(root) {
        return part;
    }
    let what = if root.is_dir() { "no checkpoint in this folder" } else { "no such folder or file" };
    Error::at(
        root,
        &format!(
            "{what}: name the one that has {} (diffusers' layout), config.json and the .pth files of text encoder and VAE (Wan's own), or \
             diffusion_models, text_encoders and vae (ComfyUI's models)",
            diffusers::INDEX
        ),
    )
}
