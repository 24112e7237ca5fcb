//! Tokens for models without a tokenizer of their own.

/// Padding, and the first of three special tokens; bytes follow them.
const BYTE_OFFSET: i64 = 3;

/// Ends every prompt.
const END_OF_SEQUENCE: i64 = 1;

/// `prompt` as tokens in ByT5's scheme: each byte of its UTF-8 plus three, then the end of the sequence (1). 0 would be padding.
///
/// At most `max_tokens` of them: a longer prompt is cut, its end kept.
pub fn byte_tokens(prompt: &str, max_tokens: i64) -> Vec<i64> {
    let bytes = prompt.bytes().take((max_tokens - 1).max(0) as usize);
    bytes.map(|byte| i64::from(byte) + BYTE_OFFSET).chain([END_OF_SEQUENCE]).collect()
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
}
