//! From a prompt to tokens: by a checkpoint's `tokenizer.json`, or byte by byte for models without one.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use super::prompt_clean;
use super::sentencepiece::Pieces;
use crate::error::{Error, Result};
use crate::files::{Folder, check_extent, check_tokenizer, limits};
use crate::weights::gguf;

/// Padding, and the first of three special tokens; bytes follow them.
const BYTE_OFFSET: i64 = 3;

/// Ends every prompt of a model without a tokenizer.
const END_OF_SEQUENCE: i64 = 1;

/// What ends every prompt of umT5, in words.
const END_PIECE: &str = "</s>";

/// Cuts prompts into tokens, as diffusers 0.42.1's `WanPipeline` does for its text encoder (`_get_t5_prompt_embeds` of
/// `src/diffusers/pipelines/wan/pipeline_wan.py`, ftfy not installed).
#[derive(Debug)]
pub struct Tokenizer {
    /// The checkpoint's, if it has one.
    pieces: Option<Box<tokenizers::Tokenizer>>,
    end: i64,
}

impl Tokenizer {
    /// The scheme of [`byte_tokens`], for models without a tokenizer of their own.
    pub fn bytes() -> Self {
        Self { pieces: None, end: END_OF_SEQUENCE }
    }

    /// Reads a `tokenizer.json` as transformers saves it, SentencePiece's own `.model`, or what a text encoder in GGUF has of it.
    ///
    /// # Errors
    /// A file that is not there, cannot be read, or is not a umT5 tokenizer's: named, with what to do.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(&Folder::anywhere(), path)
    }

    /// As [`Tokenizer::open`], of a file in `folder`.
    ///
    /// # Errors
    /// Its errors, and a file that lies elsewhere.
    pub fn open_in(folder: &Folder, path: &Path) -> Result<Self> {
        let is = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
        if is("model") {
            return Self::of_model(&folder.read(path, limits::TOKENIZER.bytes)?, path);
        }
        if is("gguf") {
            let found = gguf::tokenizer(path, folder)?;
            let found =
                found.ok_or_else(|| Error::at(path, "it has no tokenizer: name umT5's tokenizer.json or spiece.model with --tokenizer"))?;
            return Self::of_pieces(Pieces::of_gguf(found), path);
        }
        Self::of_json(folder.read_json(path, limits::TOKENIZER)?, path)
    }

    /// Reads SentencePiece's `model`, which is in the file at `path`.
    ///
    /// # Errors
    /// Bytes that are none, or not umT5's.
    pub fn of_model(model: &[u8], path: &Path) -> Result<Self> {
        Self::of_pieces(Pieces::of_model(model), path)
    }

    fn of_pieces(pieces: std::result::Result<Pieces, String>, path: &Path) -> Result<Self> {
        let json = pieces.and_then(|pieces| pieces.tokenizer_json()).map_err(|why| not_one(path, &why))?;
        check_extent(&json, limits::TOKENIZER).map_err(|why| not_one(path, &why))?;
        Self::of_json(json, path)
    }

    fn of_json(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let not_one = |why: String| not_one(path, &why);
        check_tokenizer(&bytes).map_err(not_one)?;
        let read = guarded(|| {
            let mut pieces = tokenizers::Tokenizer::from_bytes(bytes)?;
            // What the file may say of lengths is for other uses: here the caller says it.
            let _ = pieces.with_padding(None).with_truncation(None)?;
            let (nothing, end) = (pieces.encode("", true)?, pieces.token_to_id(END_PIECE));
            Ok((pieces, nothing, end))
        });
        let (pieces, nothing, end) = read.map_err(not_one)?;
        // The file says itself that a prompt ends so, or says nothing about it and leaves that to transformers.
        match end {
            Some(end) if nothing.get_ids().is_empty() || nothing.get_ids() == [end] => {
                Ok(Self { end: end.into(), pieces: Some(Box::new(pieces)) })
            }
            _ => Err(not_one(format!("it does not end a prompt with {END_PIECE}"))),
        }
    }

    /// How many tokens there are, so that a text encoder's embedding table can be held against it. None for bytes.
    pub fn vocab_size(&self) -> Option<usize> {
        self.pieces.as_ref().map(|pieces| pieces.get_vocab_size(true))
    }

    /// The tokens of `prompt`, cleaned ([`prompt_clean`]), with the end of the sequence and without padding.
    ///
    /// At most `max_tokens` of them: a longer prompt is cut, its end kept.
    ///
    /// # Errors
    /// What the tokenizer cannot cut.
    pub fn tokens(&self, prompt: &str, max_tokens: i64) -> Result<Vec<i64>> {
        let prompt = prompt_clean(prompt);
        let Some(pieces) = &self.pieces else { return Ok(byte_tokens(&prompt, max_tokens)) };
        let found = guarded(|| pieces.encode_fast(prompt, false));
        let found = found.map_err(|error| Error::Input(format!("the prompt cannot be tokenized: {error}")))?;
        Ok(cut(found.get_ids().iter().map(|&id| i64::from(id)), self.end, max_tokens))
    }
}

fn not_one(path: &Path, why: &str) -> Error {
    Error::Input(format!("{} is not a umT5 tokenizer: {}: take tokenizer.json from the checkpoint", path.display(), untrusted::shown(why)))
}

/// What `run` gives, or why it gives nothing: also where the tokenizers crate panics, which it does on a damaged character map.
fn guarded<R>(run: impl FnOnce() -> tokenizers::Result<R>) -> std::result::Result<R, String> {
    // The message of such a panic would reach people beside ours.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its character map is damaged".into()),
    }
}

/// `prompt` as tokens in ByT5's scheme: each byte of its UTF-8 plus three, then the end of the sequence (1). 0 would be padding.
///
/// At most `max_tokens` of them: a longer prompt is cut, its end kept.
pub fn byte_tokens(prompt: &str, max_tokens: i64) -> Vec<i64> {
    cut(prompt.bytes().map(|byte| i64::from(byte) + BYTE_OFFSET), END_OF_SEQUENCE, max_tokens)
}

/// At most `max_tokens` of `tokens`, `end` included.
fn cut(tokens: impl Iterator<Item = i64>, end: i64, max_tokens: i64) -> Vec<i64> {
    tokens.take((max_tokens - 1).max(0) as usize).chain([end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_after_three_special_tokens() {
        assert_eq!(byte_tokens("a ÿ", 16), [100, 35, 198, 194, 1]);
    }

    #[test]
    fn a_prompt_is_cut_and_an_empty_one_has_an_end() {
        assert_eq!(byte_tokens("abcdef", 3), [100, 101, 1]);
        assert_eq!(byte_tokens("", 3), [1]);
    }

    #[test]
    fn bytes_are_those_of_the_clean_prompt() {
        assert_eq!(Tokenizer::bytes().tokens(" a&amp;\n", 16).unwrap(), byte_tokens("a&", 16));
    }
}
