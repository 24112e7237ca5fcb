//! The umT5 text encoder: from a prompt to the embedding that the transformer attends to.

mod tokenizer;
mod umt5;

pub use tokenizer::byte_tokens;
pub use umt5::TextEncoder;
