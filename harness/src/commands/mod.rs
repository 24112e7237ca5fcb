//! The commands: each reads its arguments, asks the other modules, and prints.

pub(crate) mod advise;
pub(crate) mod autotune;
pub(crate) mod calibrate;
pub(crate) mod cards;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod fill_tables;
pub(crate) mod flags;
pub(crate) mod generate;
pub(crate) mod gpus;
pub(crate) mod history;
pub(crate) mod max;
pub(crate) mod merge;
pub(crate) mod models;
pub(crate) mod monitor;
pub(crate) mod on;
mod one_video;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod quality;
pub(crate) mod report;
pub(crate) mod run_answer;
pub(crate) mod schema;
pub(crate) mod setup;
mod slurm;
pub(crate) mod smi;
pub(crate) mod snapshot;
pub(crate) mod sweep;
pub(crate) mod validate;
mod weights;

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use engine_protocol::{Config, GpuProfile};

use crate::error::Error;
use crate::testbed::Testbed;

/// Nothing but a line under the titles.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table for the terminal, in which `numbers` are the columns to align right.
fn table(titles: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    let title = |(index, title): (usize, &&str)| if numbers.contains(&index) { on_lines(title) } else { (*title).to_owned() };
    table.load_style(STYLE).set_header(titles.iter().enumerate().map(title));
    // Two spaces between columns: most tables are then no wider than a terminal.
    table.column_iter_mut().for_each(|column| {
        column.set_padding((1, 0));
    });
    for &index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A title on several lines, so that a column of figures is hardly wider than its figures are.
fn on_lines(title: &str) -> String {
    const WIDTH: usize = 6;
    let mut lines: Vec<String> = Vec::new();
    for word in title.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Warns where attention of these configurations is not there on the GPU, or only with a score matrix: once for each thing to change.
fn warn_of_attention<'a>(configs: impl IntoIterator<Item = &'a Config>, gpu: Option<&GpuProfile>) {
    let advice: BTreeSet<String> = configs.into_iter().filter_map(|config| config.attention_advice(gpu?)).collect();
    advice.iter().for_each(|advice| tell!("warning: {advice}"));
}

/// Refuses what a GPU of its ranks has no kernel for, before anything runs.
fn check_kernels(config: &Config, testbed: &Testbed) -> Result<(), Error> {
    std::iter::once(testbed).chain(&testbed.others).try_for_each(|gpu| config.check_kernels_on(gpu.profile.as_ref()).map_err(Error::input))
}

/// This process's command line.
fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Its words after the program's name, without some options that take a value, in either spelling.
fn words_without(options: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = command_line().into_iter().skip(1);
    while let Some(word) = words.next() {
        if options.contains(&word.as_str()) {
            words.next();
        } else if !options.iter().any(|option| word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))) {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_of_figures_is_narrow() {
        assert_eq!(on_lines("peak allocated GiB"), "peak\nallocated\nGiB");
        assert_eq!(on_lines("waits for copies"), "waits\nfor\ncopies");
        assert_eq!(on_lines("of it all"), "of it\nall");
    }
}
