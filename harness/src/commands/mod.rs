//! The commands: each reads its arguments, asks the other modules, and prints.

pub(crate) mod autotune;
pub(crate) mod calibrate;
pub(crate) mod completions;
pub(crate) mod flags;
pub(crate) mod generate;
pub(crate) mod gpus;
pub(crate) mod models;
pub(crate) mod on;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod setup;
pub(crate) mod smi;
pub(crate) mod sweep;
pub(crate) mod validate;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// Nothing but a line under the titles.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table for the terminal, in which `numbers` are the columns to align right.
fn table(titles: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    // The unit stands under the name.
    table.load_style(STYLE).set_header(titles.iter().map(|title| title.replace(" GiB", "\nGiB")));
    for &index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// This process's command line.
fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A command line that a shell takes as it is.
fn shell_line(words: impl IntoIterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |word: String| {
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_line_keeps_its_words() {
        assert_eq!(shell_line(["a".into(), "b c".into(), "it's".into(), "k=1".into()]), r"a 'b c' 'it'\''s' k=1");
    }
}
