//! `docs/results.md`: what a run directory holds, and each column of `results.csv`.

use crate::columns::{Column, columns};

const BEFORE: &str = "\
# Results

<!-- Made by `make generated` from reports/src/columns.rs, reports/src/results_page.rs and the table of flags: edit those. -->

A sweep or an autotune leaves a run directory:

| file | what it holds |
|---|---|
| `report.html` | the page: what is recommended, plots, all cases; nothing outside it is needed |
| `results.csv` | one row a case, with the columns below |
| `tables.md` | the compact tables, for a document |
| `recommended.yaml` | the recommended configuration, which `lowmem generate --config` and `lowmem sweep` take |
| `plots/` | the page's plots, one SVG each |
| `manifest.json` | what was asked for, on which GPU and machine, and by which version |
| `records.jsonl` | one run record a line, written as its case ends; the other files are made from these two, and `lowmem report DIR` makes them anew |

Manifest and records name the schema that they are written in (`schema`). A newer lowmem reads older ones, and what they lack is empty; a schema that it does not read is refused with the file and the line.

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
