//! Text from outside, made fit to be shown: a name in a file may hold what a terminal would obey.

use std::borrow::Cow;

/// `text` with all that a terminal or a reader would obey written out, as `\u{1b}`. Line ends and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// The same for what must be one line.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    let shown = visible(text);
    if shown.contains(['\n', '\t']) { Cow::Owned(shown.replace('\n', "\\n").replace('\t', "\\t")) } else { shown }
}

/// Whether it does something instead of standing for itself: control characters, those that turn the direction of writing, and other separators of lines.
fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_written_out() {
        for (text, shown) in [
            ("a cat, Katze, 猫", "a cat, Katze, 猫"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("over\rwritten", "over\\u{d}written"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible("two\nlines\there"), "two\nlines\there");
        assert_eq!(visible_line("two\nlines\u{85}"), "two\\nlines\\u{85}");
    }
}
