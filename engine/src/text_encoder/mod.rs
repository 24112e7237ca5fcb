//! The umT5 text encoder: from a prompt to the embedding that the transformer attends to.

mod footprint;
mod prompt;
mod sentencepiece;
mod tokenizer;
mod umt5;

pub use prompt::prompt_clean;
pub use tokenizer::{Tokenizer, byte_tokens};
pub use umt5::{TABLE, TextEncoder};
