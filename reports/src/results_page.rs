//! `docs/results.md`: what a run directory holds, and each column of `results.csv`.

use crate::columns::{Column, columns};

const BEFORE: &str = "\
# Results

<!-- Made by `make generated` from reports/src/columns.rs, reports/src/results_page.rs and the table of flags: edit those. -->

A sweep or an autotune leaves a run directory:

| file | what it holds |
|---|---|
| `report.html` | the page: the answer first, then plots and all cases; nothing outside it is needed |
| `results.csv` | one row a case, with the columns below |
| `tables.md` | the compact tables, for a document |
| `recommended.yaml` | the recommended configuration, which `lowmem generate --config` and `lowmem sweep` take |
| `plots/` | plots for documents, each as SVG and as PNG |
| `manifest.json` | what was asked for, on which GPU and machine, and by which version |
| `records.jsonl` | one run record a line, written as its case ends; the other files are made from these two, and `lowmem report DIR` makes them anew |

Manifest and records name the schema that they are written in (`schema`). A newer lowmem reads older ones, and what they lack is empty; a schema that it does not read is refused with the file and the line.

## The page

`report.html` is one file, made from the records alone, also of a run that is not whole yet. It opens without a network, in light and dark, on a phone too. It can be read without scripts: the answer and
all tables are in its HTML. Scripts add plots, a slider (\"and with 12 GB?\"), sorting, a filter, more columns and buttons that copy.

The scripts are our own, one small file a job in `reports/src/html/`, and draw SVG. A charting library would be larger than they are together, and has no stars, no cases that ran out, and no words for
people who do not see a plot. They draw from one block of JSON in the page, `#data`; `lowmem.refresh(page)` takes over a newer page of the same run and keeps what was chosen.

The timeline shows how memory went within each stage and step of the 60 cases that matter most: those to use, the best for each video, then the others in order. Of the rest it has the peaks, so that a
page of 1,000 cases stays below 5 MB. Records have all of it (`courses` of a stage): no more than 64 moments a step, of which the highest is the peak. `lowmem export RUN --format timeline` writes it as CSV, a row a moment.

Plots are drawn by plotters, on any machine with the same font: a part of DejaVu Sans (17 kB, `reports/fonts/`). A PNG has 1720 x 760 pixels on white; an SVG has no background.

Figures are those of `results.csv`, and the page gives that file to be saved. It has 2,000 cases at most, those that are told of among them. Texts of records do nothing there: they are escaped in HTML, and in the block
of JSON nothing can end it. Tests open the page in a browser (`tests/cli/page_in_browser.rs`), with axe-core for contrast, names and keyboard.

## Columns of `results.csv`

What is not known is empty, never 0. Times are in seconds and memory in bytes. A peak is that of a case that came to its end: of another one it is not known. A flag that means nothing in a case is
empty, and what was left to the machine (`auto`) is as it was settled. Words that are explained nowhere here are in `docs/glossary.md`.

`lowmem export RUN --format json` writes the same with these types, what is not known as null, `--format sql` a table `results` that SQLite and PostgreSQL take, and `--format parquet --out FILE` columns for pandas, DuckDB and the like. `csv` and `md` are the files above.

| column | type | unit | what it is |
|---|---|---|---|
";

/// The text of `docs/results.md`.
pub fn results_page() -> String {
    let row = |column: Column| format!("| `{}` | {} | {} | {} |\n", column.name, column.kind.name(), column.unit, column.doc);
    columns().into_iter().map(row).fold(BEFORE.to_owned(), |text, row| text + &row)
}
