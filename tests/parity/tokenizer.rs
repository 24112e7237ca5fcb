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

/// The error of a `tokenizer.json` with this content, if any, in a folder with `beside`.
fn refused(content: Option<&[u8]>, beside: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    if let Some(content) = content {
        std::fs::write(&path, content).unwrap();
    }
    for name in beside {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    let message = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    message.replace(&path.display().to_string(), "FILE")
}

#[test]
fn a_missing_file_is_named() {
    assert_eq!(refused(None, &[]), "FILE: No such file or directory (os error 2)");
}

#[test]
fn spiece_model_alone_says_what_to_save() {
    let message = refused(None, &["spiece.model"]);
    assert!(message.contains("save the tokenizer with transformers"), "{message}");
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = std::fs::read(fixtures().join("tokenizer/tokenizer.json")).unwrap();
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 2] {
        let message = refused(Some(&whole[..length]), &[]);
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
    let message = refused(Some(content.as_bytes()), &[]);
    assert!(message.starts_with(&format!("FILE is not a umT5 tokenizer: {why}")), "{message}");
    assert!(message.ends_with("take tokenizer.json from the checkpoint"), "{message}");
}
