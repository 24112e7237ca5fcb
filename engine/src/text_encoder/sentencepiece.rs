//! SentencePiece's own file, `spiece.model`, as the `tokenizer.json` that transformers makes of it. ComfyUI's text encoders have it within them.
//!
//! Facts from google/sentencepiece `src/sentencepiece_model.proto`, and transformers 5.2 `convert_slow_tokenizer.py` (`T5Converter`).

use serde_json::{Value, json};

use crate::files::limits;

/// Kinds of pieces.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// What a space is to a piece.
const SPACE: &str = "\u{2581}";

/// What ends a prompt.
const END: &str = "</s>";

/// The text of a `tokenizer.json` with the pieces of `model`.
///
/// # Errors
/// What keeps it from being such a file.
pub(super) fn tokenizer_json(model: &[u8]) -> Result<Vec<u8>, String> {
    let (mut vocab, mut added, mut unknown, mut end) = (Vec::new(), Vec::new(), None, None);
    let (mut characters, mut is_unigram, mut has_bytes) = (Vec::new(), true, false);
    for field in Fields(model) {
        match field? {
            (1, Field::Bytes(piece)) => {
                let id = vocab.len();
                if id == limits::PIECES {
                    return Err(format!("it has more than {} pieces", limits::PIECES));
                }
                let (text, score, kind) = piece_of(piece)?;
                if kind == UNKNOWN {
                    unknown = Some(id);
                }
                if text == END {
                    end = Some(id);
                }
                if [UNKNOWN, CONTROL, USER_DEFINED].contains(&kind) {
                    let other = ["single_word", "lstrip", "rstrip", "normalized"].map(|key| (key.to_owned(), Value::Bool(false)));
                    let mut token = serde_json::Map::from_iter(other);
                    token.extend([("id".into(), json!(id)), ("content".into(), json!(text)), ("special".into(), json!(true))]);
                    added.push(Value::Object(token));
                }
                vocab.push(json!([text, score]));
            }
            (2, Field::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    match field? {
                        (3, Field::Number(kind)) => is_unigram = kind == 1,
                        (35, Field::Number(fallback)) => has_bytes = fallback != 0,
                        _ => {}
                    }
                }
            }
            (3, Field::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    if let (2, Field::Bytes(map)) = field? {
                        characters = map.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    if !is_unigram {
        return Err("its model is none of Unigram".into());
    }
    let (Some(unknown), Some(end)) = (unknown, end) else { return Err(format!("it has no piece for what is unknown, or no {END}")) };
    let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
    let normalizer = match characters.as_slice() {
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
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": has_bytes},
    });
    serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())
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
        assert!(tokenizer_json(b"\x0a\x0e\x0a\x05<pad>\x15").is_err_and(|said| said == "it is cut short or damaged"));
        assert!(tokenizer_json(b"").is_err_and(|said| said.contains("no piece for what is unknown")));
    }
}
