//! What the words of a document mean: whether a cell is open, which level, how much memory.

use super::document::words;

/// What says that somebody has yet to find out.
const OPEN: [&str; 16] = [
    "to be tested",
    "to be measured",
    "to be determined",
    "to be benchmarked",
    "to be provided",
    "to be filled",
    "in progress",
    "under test",
    "not tested",
    "untested",
    "not measured",
    "pending",
    "tbd",
    "tba",
    "todo",
    "reduction expected",
];

/// Words for a rank, which stay with the figure beside them.
const RANKS: [&str; 2] = ["baseline", "memory reduction"];

/// What becomes of a text in the place of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The figure takes its place.
    Open,
    /// The figure is added to it.
    Rank,
    /// Somebody's own: it stays.
    Taken,
}

impl Place {
    /// What a text is.
    pub(super) fn of(text: &str) -> Self {
        let said = words(text).join(" ");
        let is_said = |phrase: &str| format!(" {said} ").contains(&format!(" {phrase} "));
        if said.is_empty() || OPEN.iter().any(|phrase| is_said(phrase)) {
            Self::Open
        } else if RANKS.iter().any(|phrase| is_said(phrase)) && !said.contains(|c: char| c.is_ascii_digit()) {
            Self::Rank
        } else {
            Self::Taken
        }
    }

    /// The text with the figure; nothing where it stays.
    pub(super) fn filled(self, text: &str, figure: &str) -> Option<String> {
        match self {
            Self::Open => Some(super::marks::marked(text, figure)),
            Self::Rank => Some(format!("{text}{}", super::marks::marked("", &format!(": {figure}")))),
            Self::Taken => None,
        }
    }
}

/// The level that words name: `level 2`.
pub(super) fn level(words: &[String]) -> Option<usize> {
    let at = words.iter().position(|word| word == "level" || word == "levels")?;
    digit(words.get(at + 1)?)
}

/// A level by its digit alone, or as `level 2`.
pub(super) fn level_of_cell(text: &str) -> Option<usize> {
    let words = words(text);
    level(&words).or_else(|| digit(words.first()?))
}

fn digit(word: &str) -> Option<usize> {
    word.parse().ok().filter(|level| *level < super::videos::LEVELS)
}

/// An amount of memory in GB: `24GB`, `24 GB`, `24 GiB`.
pub(super) fn gigabytes(text: &str) -> Option<u64> {
    let words = words(text);
    let joined = words.iter().find_map(|word| word.strip_suffix("gb").or(word.strip_suffix("gib"))?.parse().ok());
    joined.or_else(|| words.windows(2).find(|pair| ["gb", "gib", "g"].contains(&&*pair[1])).and_then(|pair| pair[0].parse().ok()))
}

/// Whether one of these words is there.
pub(super) fn has(words: &[String], any: &[&str]) -> bool {
    words.iter().any(|word| any.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_known_by_its_words() {
        for open in ["To be tested", "**Performance testing in progress**", "Memory reduction expected", "TBD", "—", "", "_pending_ (soon)"]
        {
            assert_eq!(Place::of(open), Place::Open, "{open}");
        }
        for rank in ["Baseline (highest)", "Maximum memory reduction"] {
            assert_eq!(Place::of(rank), Place::Rank, "{rank}");
        }
        for taken in ["1.0x", "Fastest", "All (VAE tiled)", "23.1 GiB", "43 GiB (baseline)"] {
            assert_eq!(Place::of(taken), Place::Taken, "{taken}");
        }
    }

    #[test]
    fn levels_and_sizes_are_read() {
        assert_eq!(level(&words("Level 3 + Sage")), Some(3));
        assert_eq!(level(&words("Memory Level 7")), None);
        assert_eq!([level_of_cell("2"), level_of_cell("**Level 1**"), level_of_cell("x")], [Some(2), Some(1), None]);
        let sizes = ["24GB", "24 GB (RTX 4090)", "RTX 4090, 24 GiB", "none"].map(gigabytes);
        assert_eq!(sizes, [Some(24), Some(24), Some(24), None]);
    }
}
