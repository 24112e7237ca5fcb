//! Texts that somebody else wrote, in a message of ours: nothing in them acts on a terminal, and none is long.

/// Characters of a name that are shown.
pub const SHOWN_CHARS: usize = 120;

/// A name or a value from outside as a message has it: escaped as [`line`] does, and cut where it is long.
pub fn shown(text: &str) -> String {
    // So many at most are looked at, however long the text is.
    let end = text.char_indices().nth(SHOWN_CHARS).map_or(text.len(), |(end, _)| end);
    let (begin, rest) = text.split_at(end);
    if rest.is_empty() { line(begin) } else { format!("{}... ({} bytes)", line(begin), text.len()) }
}

/// A whole message as one line: whatever is not printable in it is escaped, such as control characters, escape sequences, line ends and marks that turn the direction of
/// writing. A text that was escaped stays as it is.
pub fn line(text: &str) -> String {
    // The standard library knows what is printable, and escapes quotes and backslashes besides.
    let is_left_alone = |character: char| matches!(character, '\'' | '"' | '\\');
    let parts = text.split_inclusive(is_left_alone).flat_map(|part| match part.strip_suffix(is_left_alone) {
        Some(before) => [before.escape_debug().to_string(), part[before.len()..].to_owned()],
        None => [part.escape_debug().to_string(), String::new()],
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_escaped_and_what_is_read_is_left() {
        for (text, said) in [
            ("blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_q.weight"),
            ("it's \"a\" \\ b: é 猫 ñ", "it's \"a\" \\ b: é 猫 ñ"),
            ("\x1b]0;pwned\x07\x1b[2J", "\\u{1b}]0;pwned\\u{7}\\u{1b}[2J"),
            ("a\nb\rc\td\u{85}\u{2028}", "a\\nb\\rc\\td\\u{85}\\u{2028}"),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{feff}", "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("", ""),
        ] {
            assert_eq!(line(text), said);
            assert_eq!(line(said), said, "escaped once");
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let long = "é".repeat(5000);
        let said = shown(&long);
        assert_eq!(said, format!("{}... (10000 bytes)", "é".repeat(SHOWN_CHARS)));
        assert_eq!(shown(&"x".repeat(SHOWN_CHARS)), "x".repeat(SHOWN_CHARS));
    }
}
