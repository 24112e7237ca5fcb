//! Run records to CSV, tables, plots and a page.
//!
//! A [`Run`] is read from a run directory; everything else here is a pure function of it. [`write`] puts all of it beside the records.

mod advice;
mod csv;
mod html;
mod markdown;
mod parts;
mod plot;
mod predicted;
mod profile;
mod run;
#[cfg(test)]
mod samples;
mod summary;
mod table;
mod times;

use std::fs;
use std::path::Path;

pub use advice::{flags, level_and_flags, recommended_yaml, sentence, sentences, settings, source};
pub use parts::parts_in_words;
pub use profile::{Bound, Breakdown, Part, Row, breakdown, part_name};
pub use run::{Error, Host, MANIFEST, Manifest, RECORDS, Run, load_manifest, load_records};
pub use summary::{Miss, Verdict, best, nearest_miss, needed_bytes, overall, ranked, ranking, verdicts};
pub use table::{TEXT_COLUMNS, TITLES, notes, row, rows_look_alike, shown, unsupported_calls};
pub use times::{secs_in_words, shown_secs};

/// The page's file name in a run directory.
pub const REPORT: &str = "report.html";

/// Writes `results.csv`, `tables.md`, `recommended.yaml`, `plots/` and `report.html` into the run directory `dir`.
///
/// # Errors
/// A file that cannot be written, or a plot that cannot be drawn.
pub fn write(run: &Run, dir: &Path) -> Result<(), Error> {
    let plots = plot::all(run)?;
    let put = |path: &Path, text: &str| fs::write(path, text).map_err(|error| Error::io(path, error));
    put(&dir.join("results.csv"), &csv::results(run)?)?;
    put(&dir.join("tables.md"), &markdown::tables(run))?;
    put(&dir.join("recommended.yaml"), &recommended_yaml(run))?;
    let folder = dir.join("plots");
    fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    for plot in &plots {
        put(&folder.join(format!("{}.svg", plot.name)), &plot.svg)?;
    }
    put(&dir.join(REPORT), &html::page(run, &plots)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_written_twice_with_the_same_bytes() {
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        let dirs = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        for dir in &dirs {
            write(&run, dir.path()).expect("written");
        }
        for file in [
            "results.csv",
            "tables.md",
            "recommended.yaml",
            "report.html",
            "plots/peak-by-level.svg",
            "plots/peak-by-stage.svg",
            "plots/peak-parts.svg",
        ] {
            let [first, second] = dirs.each_ref().map(|dir| fs::read(dir.path().join(file)).expect(file));
            assert_eq!(first, second, "{file}");
            assert!(!first.is_empty(), "{file}");
        }
    }
}
