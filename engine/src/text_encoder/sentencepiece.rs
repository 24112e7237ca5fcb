//! Pieces of SentencePiece as the `tokenizer.json` that transformers makes of them: from its own file, `spiece.model`, which ComfyUI's text encoders have within them, or
//! from the keys of a text encoder in GGUF.
//!
//! Facts from google/sentencepiece `src/sentencepiece_model.proto`, transformers 5.2 `convert_slow_tokenizer.py` (`T5Converter`), and llama.cpp's
//! `convert_hf_to_gguf.py`, which writes the keys.

use serde_json::{Value, json};

use crate::files::limits;
use crate::weights::gguf::GgufTokenizer;

/// Kinds of pieces.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// What a space is to a piece.
const SPACE: &str = "\u{2581}";

/// What ends a prompt.
const END: &str = "</s>";

/// What a tokenizer of pieces is made of.
pub(super) struct Pieces {
    /// Text, score and kind of each, by its number.
    pieces: Vec<(String, f32, u64)>,
    /// What is done to characters first, as the tokenizers library takes it; empty where nothing is.
    characters: Vec<u8>,
    /// Whether what no piece has is cut into bytes.
    has_bytes: bool,
}

impl Pieces {
    /// Those of SentencePiece's `model`.
    ///
    /// # Errors
    /// What keeps it from being such a file.
    pub(super) fn of_model(model: &[u8]) -> Result<Self, String> {
        let (mut found, mut is_unigram) = (Self { pieces: Vec::new(), characters: Vec::new(), has_bytes: false }, true);
        for field in Fields(model) {
            match field? {
                (1, Field::Bytes(piece)) => {
                    if found.pieces.len() == limits::PIECES {
                        return Err(format!("it has more than {} pieces", limits::PIECES));
                    }
                    found.pieces.push(piece_of(piece)?);
                }
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Field::Number(kind)) => is_unigram = kind == 1,
                            (35, Field::Number(fallback)) => found.has_bytes = fallback != 0,
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Field::Bytes(map)) = field? {
                            found.characters = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        if is_unigram { Ok(found) } else { Err("its model is none of Unigram".into()) }
    }

    /// Those of a GGUF file, which numbers kinds alike. Rows of the embedding table that no piece has stand at its end, as pieces that are not used.
    ///
    /// # Errors
    /// Lists that do not belong together, and another kind of model.
    pub(super) fn of_gguf(tokenizer: GgufTokenizer) -> Result<Self, String> {
        let GgufTokenizer { model, tokens, scores, kinds, characters } = tokenizer;
        if model != "t5" {
            return Err(format!("its tokenizer is of `{model}`, and that of umT5 is of `t5`"));
        }
        if tokens.len() != scores.len() || tokens.len() != kinds.len() {
            return Err(format!("it has {} tokens, {} scores and {} kinds of them", tokens.len(), scores.len(), kinds.len()));
        }
        if scores.iter().any(|score| !score.is_finite()) {
            return Err("one of its scores is no number".into());
        }
        let mut pieces: Vec<_> = tokens.into_iter().zip(scores).zip(kinds).map(|((text, score), kind)| (text, score, kind)).collect();
        let used = pieces.iter().rposition(|&(_, _, kind)| kind != UNUSED).map_or(0, |last| last + 1);
        pieces.truncate(used);
        let has_bytes = pieces.iter().any(|&(_, _, kind)| kind == BYTE);
        Ok(Self { pieces, characters, has_bytes })
    }

    /// The text of a `tokenizer.json` with them.
    ///
    /// # Errors
    /// What they lack.
    pub(super) fn tokenizer_json(&self) -> Result<Vec<u8>, String> {
        let place = |is_it: &dyn Fn(&(String, f32, u64)) -> bool| self.pieces.iter().position(is_it);
        let (unknown, end) = (place(&|&(_, _, kind)| kind == UNKNOWN), place(&|(text, ..)| text == END));
        let (Some(unknown), Some(end)) = (unknown, end) else { return Err(format!("it has no piece for what is unknown, or no {END}")) };
        let added: Vec<Value> = (self.pieces.iter().enumerate())
            .filter(|(_, (_, _, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind))
            .map(|(id, (text, ..))| {
                json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let vocab: Vec<Value> = self.pieces.iter().map(|(text, score, _)| json!([text, score])).collect();
        let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
        let normalizer = match self.characters.as_slice() {
            [] => Value::Null,
            map => json!({"type": "Precompiled", "precompiled_charsmap": base64(map)}),
        };
        let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
        let last = json!({"SpecialToken": {"id": END, "type_id": 0}});
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [sequence, last],
                "pair": [sequence, last, {"Sequence": {"id": "B", "type_id": 0}}, last],
                "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
            },
            "decoder": metaspace,
            "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": self.has_bytes},
        });
        serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())
    }
}

/// A piece's text, score and kind.
fn piece_of(message: &[u8]) -> Result<(String, f32, u64), String> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
    for field in Fields(message) {
        match field? {
            (1, Field::Bytes(bytes)) => text = String::from_utf8(bytes.to_vec()).map_err(|_| "one of its pieces is no text".to_owned())?,
            (2, Field::Fixed(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Field::Number(number)) => kind = number,
            _ => {}
        }
    }
    if score.is_finite() { Ok((text, score, kind)) } else { Err("one of its scores is no number".into()) }
}

/// A field's value in a message of protocol buffers.
enum Field<'a> {
    Number(u64),
    Fixed([u8; 4]),
    Bytes(&'a [u8]),
    /// Eight bytes, which nothing here has.
    Long,
}

/// The fields of a message, with their numbers.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of seven bits a byte.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let &[byte] = self.take(1)? else { return None };
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => self.take(8).map(|_| Field::Long)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed(*self.take(4)?.first_chunk()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "it is cut short or damaged".to_owned()))
    }
}

/// `bytes` in base 64 (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let json = |model: &[u8]| Pieces::of_model(model)?.tokenizer_json();
        assert!(json(b"\x0a\x0e\x0a\x05<pad>\x15").is_err_and(|said| said == "it is cut short or damaged"));
        assert!(json(b"").is_err_and(|said| said.contains("no piece for what is unknown")));
    }

    #[test]
    fn lists_that_do_not_belong_together_are_refused() {
        let of = |model: &str, tokens: &[&str], scores: &[f32], kinds: &[u64]| {
            let tokens = tokens.iter().map(|&token| token.to_owned()).collect();
            let tokenizer =
                GgufTokenizer { model: model.to_owned(), tokens, scores: scores.to_vec(), kinds: kinds.to_vec(), characters: Vec::new() };
            Pieces::of_gguf(tokenizer)?.tokenizer_json().map(|json| String::from_utf8_lossy(&json).into_owned())
        };
        assert!(of("llama", &[], &[], &[]).is_err_and(|said| said.contains("is of `llama`")));
        assert!(of("t5", &["a"], &[], &[1]).is_err_and(|said| said == "it has 1 tokens, 0 scores and 1 kinds of them"));
        assert!(of("t5", &["a"], &[f32::NAN], &[1]).is_err_and(|said| said == "one of its scores is no number"));
        assert!(of("t5", &["a"], &[0.0], &[UNUSED]).is_err_and(|said| said.contains("no piece for what is unknown")));
        let json = of("t5", &["</s>", "[PAD0]", "<unk>", "[PAD1]"], &[0.0; 4], &[CONTROL, UNUSED, UNKNOWN, UNUSED]).expect("a tokenizer");
        assert!(json.contains("[PAD0]") && !json.contains("[PAD1]"), "numbers stay, and what is behind the last goes: {json}");
    }
}
