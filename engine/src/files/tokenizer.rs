//! How much a `tokenizer.json` holds of what the tokenizers library makes much of: it keeps a table for each byte of each piece that no other piece begins with, goes
//! down a piece by recursion, and compiles each expression.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::Values;
use super::limits;

/// What says which kind of model it is.
#[derive(Deserialize)]
struct KindProbe {
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    r#type: Option<String>,
}

/// What is counted in the file. All else is not looked at.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    model: Model<'a>,
    added_tokens: Option<Vec<IgnoredAny>>,
    normalizer: Option<Values>,
    pre_tokenizer: Option<Values>,
    post_processor: Option<Values>,
    decoder: Option<Values>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: Vec<(Piece<'a>, IgnoredAny)>,
}

/// A text that is borrowed where nothing in it is escaped.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Piece<'a>(#[serde(borrow)] Cow<'a, str>);

/// Refuses a tokenizer that would take more memory or time than any real one, before anything is made of it.
///
/// # Errors
/// What it is that no tokenizer of umT5 is.
pub(crate) fn check_tokenizer(text: &[u8]) -> Result<(), String> {
    let kind: KindProbe = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some(other) = kind.model.r#type.filter(|kind| kind != "Unigram") {
        return Err(format!("its model is {other}, and that of umT5 is Unigram"));
    }
    let probe: Probe<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut pieces: Vec<&[u8]> = probe.model.vocab.iter().map(|(piece, _)| piece.0.as_bytes()).collect();
    if let Some(long) = pieces.iter().map(|piece| piece.len()).find(|&bytes| bytes > limits::PIECE_BYTES) {
        return Err(format!("one of its pieces has {long} bytes, and none has more than {}", limits::PIECE_BYTES));
    }
    pieces.sort_unstable();
    let first = pieces.first().map_or(0, |piece| piece.len());
    let own = |[one, other]: &[&[u8]; 2]| other.len() - one.iter().zip(*other).take_while(|(one, other)| one == other).count();
    let branches = first + pieces.array_windows().map(own).sum::<usize>();
    if branches > limits::PIECE_BRANCHES {
        return Err(format!(
            "its pieces have {branches} bytes that they do not share, and those of umT5 have less than {}",
            limits::PIECE_BRANCHES
        ));
    }
    let added = probe.added_tokens.map_or(0, |added| added.len());
    if added > limits::ADDED_TOKENS {
        return Err(format!("it adds {added} tokens, and none adds more than {}", limits::ADDED_TOKENS));
    }
    let parts = [probe.normalizer, probe.pre_tokenizer, probe.post_processor, probe.decoder];
    let values: u64 = parts.into_iter().flatten().map(|values| values.0).sum();
    if values > limits::TOKENIZER_PARTS {
        return Err(format!("what it does to a text has {values} values, and that of umT5 has less than {}", limits::TOKENIZER_PARTS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(vocab: &str, more: &str) -> Result<(), String> {
        check_tokenizer(format!(r#"{{"model": {{"vocab": [{vocab}]}}{more}}}"#).as_bytes())
    }

    #[test]
    fn what_the_library_makes_much_of_is_limited() {
        assert_eq!(
            said(r#"["a", 0.0], ["\u0061b", -1.0]"#, r#", "added_tokens": [1, 2], "normalizer": null, "decoder": {"type": "x"}"#),
            Ok(())
        );
        assert_eq!(said("", ""), Ok(()));
        let long = format!(r#"["{}", 0.0]"#, "x".repeat(2000));
        assert_eq!(said(&long, ""), Err("one of its pieces has 2000 bytes, and none has more than 1024".into()));
        // 1000 bytes of each are its own, and ten are those of all.
        let many =
            |count: u32| (0..count).map(|index| format!(r#"["same{index:06}{}", 0.0]"#, "x".repeat(1000))).collect::<Vec<_>>().join(",");
        assert_eq!(said(&many(2400), ""), Ok(()));
        assert!(said(&many(2600), "").is_err_and(|said| said.starts_with("its pieces have 2602")), "{:?}", said(&many(2600), ""));
        assert!(said("", &format!(r#", "added_tokens": [{}1]"#, "1,".repeat(10_000))).is_err_and(|said| said.starts_with("it adds 10001")));
        assert!(
            said("", &format!(r#", "normalizer": [{}1]"#, "[],".repeat(300)))
                .is_err_and(|said| said.starts_with("what it does to a text has 302"))
        );
        assert!(check_tokenizer(br#"{"model": {"vocab": {"a": 0}}}"#).is_err(), "another kind of model");
    }
}
