//! What happens to a prompt before it is cut into tokens: character references become characters, runs of white space one space.
//!
//! As `prompt_clean` of diffusers 0.42.1's `src/diffusers/pipelines/wan/pipeline_wan.py` does it where ftfy is not installed. With ftfy it would
//! also mend text that was decoded wrongly before it came here; diffusers does not require it, and there is none of it here.

use htmlize::ENTITIES;

/// The longest name of a character reference that is looked for.
const LONGEST_NAME: usize = 32;

/// What numbers from 128 to 159 mean: HTML reads them as Windows' code page 1252, whose gaps stay what they are.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–',
    '—', '\u{2dc}', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// `prompt` as the tokenizer gets it.
pub fn prompt_clean(prompt: &str) -> String {
    // Twice, for prompts that were escaped twice on their way.
    let text = unescape(&unescape(prompt));
    // The reference's two notions of white space: these four separators are cut off at the ends, and kept inside.
    let is_edge = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let mut cleaned = String::with_capacity(text.len());
    for c in text.trim_matches(is_edge).chars() {
        if !c.is_whitespace() {
            cleaned.push(c);
        } else if !cleaned.ends_with(' ') {
            cleaned.push(' ');
        }
    }
    cleaned
}

/// `text` with its character references replaced, by HTML 5's rules as Python 3.11's `html.unescape` has them.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[reference(rest, &mut out)..];
    }
    out.push_str(rest);
    out
}

/// Appends what the reference at the start of `text`, an ampersand, stands for; how many bytes of `text` that has used up.
fn reference(text: &str, out: &mut String) -> usize {
    if let Some(number) = text.strip_prefix("&#") {
        let (digits, radix) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        let length = digits.bytes().take_while(|digit| char::from(*digit).is_digit(radix)).count();
        if length > 0 {
            // A number too large for the type is too large for a character.
            out.extend(numbered(u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX)));
            return text.len() - digits.len() + length + usize::from(digits[length..].starts_with(';'));
        }
    }
    // The longest name wins, and HTML knows some without their semicolon.
    let letters = text[1..].chars().take(LONGEST_NAME).take_while(|c| !"\t\n\u{c} <&#;".contains(*c));
    let name = 1 + letters.map(char::len_utf8).sum::<usize>();
    let longest = name + usize::from(text[name..].starts_with(';'));
    for end in (3..=longest).rev() {
        if let Some(characters) = ENTITIES.get(&text.as_bytes()[..end]) {
            out.push_str(&String::from_utf8_lossy(characters));
            return end;
        }
    }
    out.push('&');
    1
}

/// The character of a number; none for those that no text may hold.
fn numbered(number: u32) -> Option<char> {
    match number {
        0 => Some(char::REPLACEMENT_CHARACTER),
        0x80..=0x9f => Some(WINDOWS_1252[(number - 0x80) as usize]),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        number if number <= 0x10_ffff && number & 0xfffe == 0xfffe => None,
        number => Some(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_characters() {
        assert_eq!(unescape("a &lt; b &amp;&amp; &#99;&#x44;"), "a < b && cD");
        assert_eq!(unescape("&notit; &notin; &copy 2024 &nosuch; & &# &;"), "¬it; ∉ © 2024 &nosuch; & &# &;");
        assert_eq!(unescape("&#128; &#0; &#xD800; &#1;&#xFFFF; &#99999999999;"), "€ \u{fffd} \u{fffd}  \u{fffd}");
    }

    #[test]
    fn white_space_is_one_space_and_none_at_the_ends() {
        assert_eq!(prompt_clean(" \u{a0}a\t\n b&nbsp;&amp;nbsp;c\u{3000}"), "a b c");
        assert_eq!(prompt_clean("\u{1c}a\u{1c}b\u{1f}"), "a\u{1c}b");
        assert_eq!(prompt_clean(" \n "), "");
    }
}
