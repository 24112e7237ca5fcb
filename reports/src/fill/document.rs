//! A Markdown document by its structure: headings, tables, and lines of a label and a value. Code and comments are passed over.

use std::ops::Range;

/// Which lines are code.
#[derive(Default)]
pub(super) struct Fences(Option<(char, usize)>);

impl Fences {
    /// Whether the next line is code, or begins or ends it.
    pub(super) fn is_code(&mut self, line: &str) -> bool {
        let line = line.trim_start();
        let mark = line.chars().next().filter(|mark| ['`', '~'].contains(mark));
        let length = line.chars().take_while(|c| Some(*c) == mark).count();
        match (self.0, mark) {
            (Some((open, least)), Some(mark)) if mark == open && length >= least && line.trim().chars().all(|c| c == mark) => self.0 = None,
            (Some(_), _) => {}
            // A line such as ```a``` is no fence.
            (None, Some(mark)) if length >= 3 && !line[length..].contains(mark) => self.0 = Some((mark, length)),
            (None, _) => return false,
        }
        true
    }
}

/// A document.
pub(super) struct Document<'a> {
    /// Its lines without their ends.
    pub(super) lines: Vec<&'a str>,
    /// Their ends.
    pub(super) ends: Vec<&'a str>,
    pub(super) headings: Vec<Heading>,
    pub(super) tables: Vec<Table>,
    /// Lines of text that are neither of these.
    pub(super) texts: Vec<usize>,
}

/// A heading.
#[derive(Debug, PartialEq)]
pub(super) struct Heading {
    pub(super) line: usize,
    /// 1 is a title.
    pub(super) depth: usize,
    pub(super) words: Vec<String>,
}

/// A table.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    /// The words of each title.
    pub(super) titles: Vec<Vec<String>>,
    pub(super) rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) line: usize,
    /// Where in the line each cell is, without the spaces around it.
    pub(super) cells: Vec<Range<usize>>,
}

impl<'a> Document<'a> {
    /// Reads a document.
    pub(super) fn read(text: &'a str) -> Self {
        let split = |line: &'a str| line.split_at(line.trim_end_matches(['\r', '\n']).len());
        let (lines, ends): (Vec<_>, Vec<_>) = text.split_inclusive('\n').map(split).unzip();
        let mut document = Self { lines, ends, headings: Vec::new(), tables: Vec::new(), texts: Vec::new() };
        let prose = prose(&document.lines);
        let is_prose = |line: usize| prose.get(line) == Some(&true);
        let mut line = 0;
        while line < document.lines.len() {
            let next = line + 1;
            if !is_prose(line) {
                line = next;
            } else if let Some(heading) = heading(&document, line, is_prose(next)) {
                document.headings.push(heading);
                line = next;
            } else if let Some(table) = table(&document.lines, line, is_prose) {
                line = next + 1 + table.rows.len();
                document.tables.push(table);
            } else {
                document.texts.push(line);
                line = next;
            }
        }
        document
    }

    /// How lines end: as the first one does.
    pub(super) fn eol(&self) -> &'a str {
        self.ends.first().copied().filter(|end| !end.is_empty()).unwrap_or("\n")
    }

    /// The headings above a line, the nearest first.
    pub(super) fn above(&self, line: usize) -> impl Iterator<Item = &Heading> {
        let mut depth = usize::MAX;
        self.headings.iter().rev().filter(move |heading| heading.line < line).filter(move |heading| {
            let is_above = heading.depth < depth;
            depth = depth.min(heading.depth);
            is_above
        })
    }

    /// The lines of a heading's section, those of the sections within it included.
    pub(super) fn section(&self, heading: &Heading) -> Range<usize> {
        let next = self.headings.iter().find(|next| next.line > heading.line && next.depth <= heading.depth);
        heading.line..next.map_or(self.lines.len(), |next| next.line)
    }

    /// The last line of the paragraph, list or table that a line is in.
    pub(super) fn last_of_paragraph(&self, line: usize) -> usize {
        (line..self.lines.len()).find(|&line| self.lines.get(line + 1).is_none_or(|next| next.trim().is_empty())).unwrap_or(line)
    }

    /// A part of a line.
    pub(super) fn part(&self, line: usize, at: &Range<usize>) -> &'a str {
        self.lines.get(line).and_then(|line| line.get(at.clone())).unwrap_or_default()
    }
}

/// Which lines are neither code nor within a comment of several lines, nor the front matter.
fn prose(lines: &[&str]) -> Vec<bool> {
    let (mut fences, mut in_comment) = (Fences::default(), false);
    let front =
        if lines.first() == Some(&"---") { lines.iter().skip(1).position(|line| *line == "---").map_or(0, |end| end + 2) } else { 0 };
    let is_prose = |(index, line): (usize, &&str)| {
        if index < front || (!in_comment && fences.is_code(line)) {
            return false;
        }
        let was_in = in_comment;
        let (opened, closed) = (line.rfind("<!--"), line.rfind("-->"));
        in_comment = if was_in { closed.is_none() } else { opened.is_some_and(|open| closed.is_none_or(|close| close < open)) };
        !was_in && !in_comment
    };
    lines.iter().enumerate().map(is_prose).collect()
}

/// The heading that a line is, by `#` or by a line under it.
fn heading(document: &Document<'_>, line: usize, is_next_prose: bool) -> Option<Heading> {
    let text = document.lines.get(line)?.trim();
    let depth = text.chars().take_while(|c| *c == '#').count();
    if (1..=6).contains(&depth) && text[depth..].starts_with([' ', '\t']) {
        return Some(Heading { line, depth, words: words(text) });
    }
    let under = document.lines.get(line + 1).filter(|_| is_next_prose)?.trim();
    let is_under = |c: char| under.len() > 2 && under.chars().all(|other| other == c);
    let depth = if is_under('=') { 1 } else { 2 };
    let is_text = !text.is_empty() && !text.starts_with(['-', '*', '+', '>', '|']);
    (is_text && (is_under('=') || is_under('-'))).then(|| Heading { line, depth, words: words(text) })
}

/// The table that begins in a line.
fn table(lines: &[&str], line: usize, is_prose: impl Fn(usize) -> bool) -> Option<Table> {
    let cells = |line: usize| lines.get(line).filter(|text| is_prose(line) && text.contains('|')).map(|text| cells(text));
    let (header, rule) = (cells(line)?, cells(line + 1)?);
    let is_rule = |at: &Range<usize>| {
        let dashes = lines[line + 1][at.clone()].trim_matches(':');
        !dashes.is_empty() && dashes.chars().all(|c| c == '-')
    };
    if header.len() != rule.len() || !rule.iter().all(is_rule) {
        return None;
    }
    let rows = (line + 2..).map_while(|line| Some(Row { line, cells: cells(line)? })).collect();
    Some(Table { titles: header.into_iter().map(|at| words(&lines[line][at])).collect(), rows })
}

/// Where the cells of a row are, without the spaces around them.
fn cells(text: &str) -> Vec<Range<usize>> {
    let inner_start = text.len() - text.trim_start().len();
    let end = text.trim_end().len();
    let start = inner_start + usize::from(text[inner_start..].starts_with('|'));
    let bars = text.char_indices().filter(|&(at, c)| c == '|' && at >= start && !text[..at].ends_with('\\')).map(|(at, _)| at);
    let mut cells = Vec::new();
    let mut from = start;
    for bar in bars.filter(|&at| at < end).chain([end]) {
        // The bar at the end closes the last cell.
        if bar == end && text[..end].ends_with('|') && from == end {
            break;
        }
        let cell = &text[from..bar];
        let left = from + cell.len() - cell.trim_start().len();
        cells.push(left..left + cell.trim().len());
        from = bar + 1;
    }
    cells
}

/// A line of a label and a value, `**VRAM**: Baseline`: the words of the label, and where the value is.
pub(super) fn label(line: &str) -> Option<(Vec<String>, Range<usize>)> {
    let colon = line.find(':')?;
    let (label, value) = line.split_at(colon);
    let words = words(label);
    // A sentence that has a colon is none.
    if words.is_empty() || words.len() > 4 {
        return None;
    }
    // What ends the label's own emphasis stands right after the colon.
    let value = value[1..].trim_start_matches(['*', '_']).trim_start();
    let start = line.len() - value.len();
    let value = value.trim_end();
    let value = ["<br>", "<br/>", "<br />", "\\"].iter().find_map(|end| value.strip_suffix(end)).unwrap_or(value).trim_end();
    (!value.is_empty()).then(|| (words, start..start + value.len()))
}

/// The words of a text in lower case: letters and digits, and a point between digits.
pub(super) fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '.');
    parts.map(|word| word.trim_matches('.').to_lowercase()).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "---\ntitle: a\n---\n# One\n\n```\n# no heading\n| a |\n|---|\n```\nTwo\n---\n\n| Level | VRAM (14B) |\n|:--|--:|\n| 0 | a \\| b |\n1 | \n\n<!--\n# no\n-->\n### Three ###\n\
                        text\n";

    #[test]
    fn headings_and_tables_are_found_and_code_is_not_looked_at() {
        let document = Document::read(PAGE);
        let headings: Vec<_> = document.headings.iter().map(|heading| (heading.depth, heading.words.join(" "))).collect();
        assert_eq!(headings, [(1, "one".into()), (2, "two".into()), (3, "three".into())]);
        assert_eq!(document.tables.len(), 1);
        let table = &document.tables[0];
        assert_eq!(table.titles, [vec!["level".to_owned()], vec!["vram".into(), "14b".into()]]);
        let cells = |row: &Row| row.cells.iter().map(|at| document.part(row.line, at)).collect::<Vec<_>>();
        assert_eq!(table.rows.iter().map(cells).collect::<Vec<_>>(), [vec!["0", "a \\| b"], vec!["1"]]);
        let last = document.lines.len() - 1;
        assert_eq!(document.above(last).map(|heading| heading.words.join(" ")).collect::<Vec<_>>(), ["three", "two", "one"]);
    }

    #[test]
    fn a_label_has_its_value_however_it_is_written() {
        for (line, value) in [
            ("**VRAM**: Baseline (highest)  ", "Baseline (highest)"),
            ("**VRAM:** to be tested", "to be tested"),
            ("- VRAM: a<br>", "a"),
            ("> __VRAM__ : a: b\\", "a: b"),
            ("VRAM: _a_", "_a_"),
        ] {
            let (words, at) = label(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((words.as_slice(), &line[at]), (["vram".to_owned()].as_slice(), value), "{line}");
        }
        for line in ["VRAM:", "no label", "a sentence of many words has a colon: here"] {
            assert_eq!(label(line), None, "{line}");
        }
    }
}
