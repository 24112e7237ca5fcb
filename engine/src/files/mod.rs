//! Files of a checkpoint, as they are opened: where one may lie, and how much of each kind is read. What they mean is `weights`' and `checkpoint`'s.

mod folder;
mod json;
pub(crate) mod limits;
mod tokenizer;

pub use folder::{Folder, LINKED_FOLDERS};
pub(crate) use json::check_extent;
pub(crate) use tokenizer::check_tokenizer;
