//! A checkpoint's tokenizer against transformers, on every prompt of `tests/fixtures/prompts.txt`; and files that are no tokenizer.

use std::path::{Path, PathBuf};

use engine::text_encoder::{Tokenizer, prompt_clean};
use rstest::rstest;

use crate::resident::Fixture;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("prompts.txt")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_prompt_is_cleaned_like_diffusers_does_it() {
    let cleaned: Vec<String> = Fixture::open("tokenizer").fact("cleaned");
    assert_eq!(prompts().len(), cleaned.len());
    for (prompt, wanted) in prompts().iter().zip(cleaned) {
        assert_eq!(prompt_clean(prompt), wanted, "{prompt:?}");
    }
}

#[test]
fn every_prompt_has_the_tokens_of_transformers() {
    let fixture = Fixture::open("tokenizer");
    let tokenizer = Tokenizer::open(&fixtures().join("tokenizer/tokenizer.json")).unwrap();
    for max_tokens in fixture.fact::<Vec<i64>>("max_tokens") {
        let list = |name: &str| -> Vec<i64> { fixture.tensor(&format!("output.{max_tokens}.{name}")).try_into().unwrap() };
        let (lengths, ids) = (list("lengths"), list("ids"));
        assert!(lengths.contains(&max_tokens) && lengths.contains(&1), "a prompt that is cut, and an empty one");
        let mut rest = ids.as_slice();
        for (prompt, length) in prompts().iter().zip(lengths) {
            let (wanted, after) = rest.split_at(length as usize);
            assert_eq!(tokenizer.tokens(prompt, max_tokens).unwrap(), wanted, "at most {max_tokens} of {prompt:?}");
            rest = after;
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn the_file_says_how_many_tokens_there_are() {
    let tokenizer = Tokenizer::open(&fixtures().join("tokenizer/tokenizer.json")).unwrap();
    let largest: Vec<i64> = Fixture::open("tokenizer").tensor("output.512.ids").try_into().unwrap();
    assert!(tokenizer.vocab_size() > largest.iter().max().map(|&id| id as usize));
    assert_eq!(Tokenizer::bytes().vocab_size(), None);
}

/// The error of a `tokenizer.json` with this content, if any.
fn refused(content: Option<&[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    if let Some(content) = content {
        std::fs::write(&path, content).unwrap();
    }
    let message = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    message.replace(&path.display().to_string(), "FILE")
}

#[test]
fn a_missing_file_is_named() {
    assert_eq!(refused(None), "FILE: No such file or directory (os error 2)");
}

/// The bytes of a text in base 64.
fn of_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|&letter| letter != b'=').map(value).collect();
    let bits: Vec<u8> = letters.iter().flat_map(|value| (0..6).rev().map(move |bit| value >> bit & 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
}

/// A field of a message of protocol buffers that has so many bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    [message, bytes.to_vec()].concat()
}

/// The fixture's tokenizer as SentencePiece's own file.
fn spiece_model() -> Vec<u8> {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(fixtures().join("tokenizer/tokenizer.json")).unwrap()).unwrap();
    let special: Vec<i64> = json["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_i64().unwrap()).collect();
    let mut model = Vec::new();
    for (id, piece) in json["model"]["vocab"].as_array().unwrap().iter().enumerate() {
        let (text, score) = (piece[0].as_str().unwrap(), piece[1].as_f64().unwrap() as f32);
        let kind = match (text, special.contains(&(id as i64))) {
            ("<unk>", _) => 2,
            (_, true) => 3,
            _ => 1,
        };
        model.extend(field(1, &[field(1, text.as_bytes()), vec![0x15], score.to_le_bytes().to_vec(), vec![0x18, kind]].concat()));
    }
    let characters = of_base64(json["normalizer"]["precompiled_charsmap"].as_str().unwrap());
    // A trainer's specification that says Unigram, and two fields that nobody reads; then the characters' map.
    model.extend(field(2, &[&[0x18, 1][..], &[0x21, 0, 0, 0, 0, 0, 0, 0, 0], &field(1, b"words.txt")].concat()));
    model.extend(field(3, &[field(1, b"nmt_nfkc"), field(2, &characters)].concat()));
    model
}

#[test]
fn spiece_model_has_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spiece.model");
    std::fs::write(&path, spiece_model()).unwrap();
    let ours = Tokenizer::open(&path).unwrap();
    let wanted = Tokenizer::open(&fixtures().join("tokenizer/tokenizer.json")).unwrap();
    assert_eq!(ours.vocab_size(), wanted.vocab_size());
    for prompt in prompts() {
        assert_eq!(ours.tokens(&prompt, 512).unwrap(), wanted.tokens(&prompt, 512).unwrap(), "{prompt:?}");
    }
}

#[test]
fn a_text_encoder_in_gguf_has_the_same_tokens() {
    let ours = Tokenizer::open(&fixtures().join("tokenizer/tokenizer.gguf")).unwrap();
    let wanted = Tokenizer::open(&fixtures().join("tokenizer/tokenizer.json")).unwrap();
    for prompt in prompts() {
        assert_eq!(ours.tokens(&prompt, 512).unwrap(), wanted.tokens(&prompt, 512).unwrap(), "{prompt:?}");
    }
}

#[test]
fn a_gguf_file_without_a_tokenizer_says_what_to_name() {
    let message = Tokenizer::open(&fixtures().join("blocks.gguf")).unwrap_err().to_string();
    assert!(message.contains("blocks.gguf: it has no tokenizer: name umT5's tokenizer.json"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = (folder.path().join("t5.gguf"), std::fs::read(fixtures().join("tokenizer/tokenizer.gguf")).unwrap());
    for length in [0, 3, 30, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(message.contains("t5.gguf: ") && message.contains("fetch it again"), "{length} bytes: {message}");
    }
}

#[test]
fn a_truncated_spiece_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = (folder.path().join("spiece.model"), spiece_model());
    for length in [0, 1, 100, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(message.contains("spiece.model is not a umT5 tokenizer: "), "{length} bytes: {message}");
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = std::fs::read(fixtures().join("tokenizer/tokenizer.json")).unwrap();
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 2] {
        let message = refused(Some(&whole[..length]));
        assert!(message.starts_with("FILE is not a umT5 tokenizer: "), "{length} bytes: {message}");
    }
}

#[rstest]
#[case::a_configuration(r#"{"model_type": "umt5", "d_model": 4096}"#, "")]
#[case::a_list("[1, 2, 3]", "")]
#[case::not_json("\u{7f}ELF", "")]
#[case::another_models(
    r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "cat": 1}, "unk_token": "[UNK]"}}"#,
    "its model is WordLevel, and that of umT5 is Unigram"
)]
#[case::another_end(
    r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["cat", -1.0]]}}"#,
    "it does not end a prompt with </s>"
)]
fn a_foreign_file_is_refused(#[case] content: &str, #[case] why: &str) {
    let message = refused(Some(content.as_bytes()));
    assert!(message.starts_with(&format!("FILE is not a umT5 tokenizer: {why}")), "{message}");
    assert!(message.ends_with("take tokenizer.json from the checkpoint"), "{message}");
}
