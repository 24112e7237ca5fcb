//! `results.csv`: every record with every column. What the columns are stands in `columns`.

use engine_protocol::RunRecord;

use crate::columns::{Column, columns};
use crate::error::Error;
use crate::run::Run;
use crate::summary::Summary;

/// The records of a run as CSV, one row a record.
///
/// # Errors
/// None that a healthy machine has: the table is written to memory.
pub(crate) fn results(summary: &Summary<'_>) -> Result<String, Error> {
    let (run, columns) = (summary.run, columns());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns.iter().map(|column| column.name))?;
    for record in &run.records {
        writer.write_record(cells(&columns, run, record))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    // Every cell is text.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The cells of a case.
pub(crate) fn cells(columns: &[Column], run: &Run, record: &RunRecord) -> Vec<String> {
    columns.iter().map(|column| inert(column.cell(run, record))).collect()
}

/// A cell that no spreadsheet takes for a formula. Text that would begin one gets an apostrophe before it.
pub(crate) fn inert(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err() { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn no_cell_is_a_formula() {
        for (cell, written) in [
            ("=1+1", "'=1+1"),
            ("-1.5", "-1.5"),
            ("-A1", "'-A1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+x", "'+x"),
            ("\tx", "'\tx"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(inert(cell.into()), written);
        }
    }

    #[test]
    fn an_out_of_memory_is_a_row_and_what_is_not_known_is_empty() {
        let run = samples::run(vec![samples::ok("a", 0, 10), samples::oom("b", 3, 20)]);
        let text = results(&Summary::of(&run)).expect("a table");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("a header").clone();
        let column = |name: &str| header.iter().position(|h| h == name).unwrap_or_else(|| panic!("no column {name}"));
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().expect("rows");
        assert_eq!(rows.len(), 2);
        let cell = |row: usize, name: &str| rows[row].get(column(name)).unwrap_or_default();
        assert_eq!(cell(1, "outcome"), "oom");
        assert_eq!(cell(1, "failed_stage"), "denoise");
        assert_eq!(cell(1, "needed_bytes"), (31u64 << 30).to_string());
        assert_eq!(cell(1, "error"), "out of memory, \"quoted\" <b>");
        for name in ["time_source", "total_secs", "step_secs", "copy_stall_secs", "vae_tile_size", "needed_bytes"] {
            assert_eq!(cell(0, name), "", "{name}");
        }
        assert_eq!(cell(0, "unsupported_calls"), "2");
        assert_eq!(cell(0, "capacity_bytes"), (24u64 << 30).to_string());
        assert_eq!([cell(0, "sampler"), cell(0, "on_oom"), cell(0, "low_noise_guidance_scale")], ["unipc", "fail", ""]);
        assert_eq!([cell(0, "version"), cell(0, "began")], ["0.1.0", "2026-11-24T12:00:00+00:00"]);
        assert_eq!(cell(0, "peak_device_bytes"), (10u64 << 30).to_string());
        assert_eq!(cell(0, "memory_source"), "virtual");
        assert_eq!([cell(0, "peak_weights_bytes"), cell(0, "peak_staging_bytes")], [(8u64 << 30).to_string(), "0".into()]);
        assert_eq!(cell(1, "peak_weights_bytes"), "", "the peak of a run that did not end is not known");
    }
}
