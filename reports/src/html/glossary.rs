//! The words of the page, from `docs/glossary.md`: they are explained in one place.

const GLOSSARY: &str = include_str!("../../../docs/glossary.md");

/// Each word and what it means.
pub(super) fn words() -> Vec<(String, String)> {
    let plain = |cell: &str| cell.trim().replace(['`', '*'], "");
    let row = |line: &str| {
        let (word, meaning) = line.strip_prefix("| ")?.trim_end().strip_suffix('|')?.split_once(" | ")?;
        Some((plain(word), plain(meaning))).filter(|(word, _)| word != "word")
    };
    GLOSSARY.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_of_the_glossary_is_a_word() {
        let words = super::words();
        assert!(words.len() > 30 && words.iter().any(|(word, meaning)| word == "slack" && meaning.ends_with('.')), "{words:?}");
        assert!(words.iter().all(|(_, meaning)| !meaning.contains(['|', '`'])), "{words:?}");
    }
}
