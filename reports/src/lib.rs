//! Run records to CSV, tables, plots and a page.
//!
//! A [`Run`] is read from a run directory and summed up once, as a [`Summary`]; all that people and programs read is made from that by pure functions.
//! [`write`] puts it beside the records. Nothing here runs a case or knows how one is run.

mod advice;
mod breakdown;
mod choices;
mod columns;
mod command;
mod compare_page;
mod csv;
mod error;
mod export;
mod fill;
mod forecast;
mod html;
mod load;
mod markdown;
mod parquet;
mod peak_parts;
mod plot;
mod program_page;
mod ram;
mod recommended;
mod results_page;
mod run;
#[cfg(test)]
mod samples;
mod sentences;
mod shown_cases;
mod snapshot_page;
mod summary;
mod table;
mod timeline;
mod verdict;
mod whole_file;
mod words;

use std::fs;
use std::path::Path;

pub use advice::{flags, host_remedies, level_and_flags, on_fullest, on_gpus, settings, settled};
pub use breakdown::{Bound, Breakdown, ModelTime, OperationRow, breakdown, model_in};
pub use choices::{Choices, LOSS, choices};
pub use command::{generate_line, generate_line_on, shell_line};
pub use compare_page::{ComparePage, CompareRow, compare_page};
pub use error::Error;
pub use export::{Format, export, export_schema};
pub use fill::{Filled, Open, fill};
pub use html::{Live, live_page};
pub use load::{MANIFEST, RECORDS, Records, load, load_manifest, load_quality, load_records, write_quality};
pub use peak_parts::parts_in_words;
pub use program_page::{ProgramCourse, ProgramPage, program_page};
pub use ram::{ram_in_words, source as ram_source};
pub use results_page::results_page;
pub use run::{Card, Host, Manifest, Run, RunGpu};
pub use sentences::{duration, fit, fits_not, left_out, nearest, room, source, steps_that_ran, taken};
pub use snapshot_page::{SnapshotGpu, SnapshotHolder, SnapshotPage, SnapshotSegment, snapshot_page};
pub use summary::Summary;
pub use table::{TABLE, TableColumn, rows_look_alike, table_columns, terminal_columns, terminal_notes};
pub use verdict::{Miss, Need, SAME_TIME, Verdict, nearest_by_ram, nearest_miss, need, needed_bytes, ranked};
pub use whole_file::write_whole;
pub use words::{CONTEXT, counters, in_gib, rough_time, time, time_with_range};

/// The page's file name in a run directory.
pub const REPORT: &str = "report.html";
const RESULTS: &str = "results.csv";
const TABLES: &str = "tables.md";
const RECOMMENDED: &str = "recommended.yaml";
const PLOTS: &str = "plots";

/// All that a run directory holds.
pub const FILES: [&str; 7] = [MANIFEST, RECORDS, RESULTS, TABLES, RECOMMENDED, PLOTS, REPORT];

/// Writes a run's report into its directory `dir`.
///
/// # Errors
/// A file that cannot be written, or a plot that cannot be drawn.
pub fn write(summary: &Summary<'_>, dir: &Path) -> Result<(), Error> {
    let plots = plot::all(summary)?;
    let put = |path: &Path, bytes: &dyn AsRef<[u8]>| write_whole(path, bytes.as_ref()).map_err(|error| Error::io(path, error));
    put(&dir.join(RESULTS), &csv::results(summary)?)?;
    put(&dir.join(TABLES), &markdown::tables(summary))?;
    put(&dir.join(RECOMMENDED), &recommended::yaml(summary))?;
    let folder = dir.join(PLOTS);
    fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    for plot in &plots {
        put(&folder.join(format!("{}.svg", plot.name)), &plot.files.svg)?;
        put(&folder.join(format!("{}.png", plot.name)), &plot.files.png)?;
    }
    put(&dir.join(REPORT), &html::page(summary)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_written_twice_with_the_same_bytes() {
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        let dirs = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        for dir in &dirs {
            write(&Summary::of(&run), dir.path()).expect("written");
        }
        for file in [
            "results.csv",
            "tables.md",
            "recommended.yaml",
            "report.html",
            "plots/peak-by-level.svg",
            "plots/peak-by-stage.svg",
            "plots/peak-parts.svg",
            "plots/peak-by-level.png",
            "plots/peak-by-stage.png",
            "plots/peak-parts.png",
        ] {
            let [first, second] = dirs.each_ref().map(|dir| fs::read(dir.path().join(file)).expect(file));
            assert_eq!(first, second, "{file}");
            assert!(!first.is_empty(), "{file}");
        }
    }
}
