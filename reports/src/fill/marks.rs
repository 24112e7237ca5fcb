//! Marks that a reader does not see, by which what was filled in is known again: the original text is in them, so that a document can be taken back to what it was.

use std::borrow::Cow;

use super::document::Fences;

const OPEN: &str = "<!-- lowmem: ";
const OPEN_END: &str = " -->";
const CLOSE: &str = "<!-- /lowmem -->";
const BEGIN: &str = "<!-- begin lowmem -->";
const END: &str = "<!-- end lowmem -->";

/// `shown` in place of `original`.
pub(super) fn marked(original: &str, shown: &str) -> String {
    // What would end the comment early is written as HTML has it.
    let kept = original.replace('&', "&amp;").replace("--", "&#45;&#45;").replace('>', "&gt;");
    format!("{OPEN}{kept}{OPEN_END}{shown}{CLOSE}")
}

/// What stands after a line, before its end: a paragraph of its own with these lines.
pub(super) fn block(lines: &[String], eol: &str) -> String {
    let body: String = lines.iter().map(|line| format!("{line}{eol}")).collect();
    format!("{eol}{eol}{BEGIN}{eol}{body}{END}")
}

/// The document as it was before anything was filled in.
pub(super) fn taken_back(text: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut kept: Vec<Cow<'_, str>> = Vec::with_capacity(lines.len());
    let mut fences = Fences::default();
    let mut rest = lines.as_slice();
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        if fences.is_code(line) {
            kept.push(Cow::Borrowed(line));
            continue;
        }
        let end = (line.trim_end() == BEGIN).then(|| rest.iter().position(|line| line.trim_end() == END)).flatten();
        match end.and_then(|end| rest.split_at_checked(end)).and_then(|(_, from_end)| from_end.split_first()) {
            // The line before the empty one gets the end of line that it had.
            Some((last, after)) if kept.len() > 1 => {
                rest = after;
                kept.pop_if(|blank| blank.trim().is_empty());
                if let Some(before) = kept.last_mut() {
                    *before =
                        Cow::Owned(format!("{}{}", before.trim_end_matches(['\r', '\n']), last.strip_prefix(END).unwrap_or_default()));
                }
            }
            _ => kept.push(unmarked(line)),
        }
    }
    kept.concat()
}

/// A line without what was filled in.
fn unmarked(line: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(line);
    while let Some(found) = first_mark(&shown) {
        shown = Cow::Owned(found);
    }
    shown
}

/// The line with its first mark taken back; nothing where it has none.
fn first_mark(line: &str) -> Option<String> {
    let (before, rest) = line.split_once(OPEN)?;
    let (original, rest) = rest.split_once(OPEN_END)?;
    let (_, after) = rest.split_once(CLOSE)?;
    let original = original.replace("&gt;", ">").replace("&#45;", "-").replace("&amp;", "&");
    Some(format!("{before}{original}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_is_taken_back_to_the_byte() {
        for original in ["To be tested", "", "a -- b --> c & &amp; <!-- d", "---", r"a \| b"] {
            let line = format!("| 1 | {} | {} |\r\n", marked(original, "43 GiB"), marked("x", "y"));
            assert_eq!(taken_back(&line), format!("| 1 | {original} | x |\r\n"));
        }
    }

    #[test]
    fn a_block_goes_with_its_empty_line_and_the_end_of_line_stays() {
        for (eol, last) in [("\n", "\n"), ("\r\n", "\r\n"), ("\n", ""), ("\r\n", "")] {
            let note = block(&["> Note.".to_owned()], eol);
            let filled = format!("a{eol}{eol}b{note}{note}{last}");
            assert_eq!(taken_back(&filled), format!("a{eol}{eol}b{last}"));
            let middle = format!("a{note}{eol}{eol}b{last}");
            assert_eq!(taken_back(&middle), format!("a{eol}{eol}b{last}"));
        }
    }

    #[test]
    fn code_and_half_a_mark_stay() {
        for text in ["```\n<!-- lowmem: a -->b<!-- /lowmem -->\n```\n", "<!-- lowmem: a -->b\n", "x\n\n<!-- begin lowmem -->\nmore\n"] {
            assert_eq!(taken_back(text), text);
        }
    }
}
