//! `report.html`: one page with nothing outside it. It shows a summary and judges nothing.

use askama::Template;
use engine_protocol::{Outcome, RunRecord, gib};

use crate::error::Error;
use crate::plot::Plot;
use crate::summary::Summary;
use crate::table::{TABLE, all_notes};
use crate::{forecast, peak_parts, ram};

/// The page and what fills it.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    summary: &'a Summary<'a>,
    capacity: Option<String>,
    plots: &'a [Plot],
    titles: Vec<&'static str>,
    rows: Vec<Row<'a>>,
    notes: Vec<String>,
    part_titles: Vec<String>,
    part_rows: Vec<(&'a str, Vec<String>)>,
    part_note: &'static str,
    ram_titles: [&'static str; 6],
    ram_rows: Vec<[String; 6]>,
    forecast_titles: [&'static str; 7],
    forecast_rows: Vec<[String; 7]>,
    forecast_note: &'static str,
}

/// A row of the table.
struct Row<'a> {
    record: &'a RunRecord,
    cells: Vec<Cell>,
    class: &'static str,
}

/// A cell of the table.
struct Cell {
    text: String,
    class: &'static str,
}

/// The page of a run.
///
/// # Errors
/// None that a healthy machine has: the page is made in memory.
pub(crate) fn page(summary: &Summary<'_>, plots: &[Plot]) -> Result<String, Error> {
    let run = summary.run;
    let page = Page {
        summary,
        capacity: run.manifest.capacity_bytes.map(|bytes| format!("{:.2} GiB", gib(bytes))),
        plots,
        titles: TABLE.iter().map(|column| column.title).collect(),
        rows: run.records.iter().map(|record| Row { record, cells: cells(record), class: class(record, summary) }).collect(),
        notes: all_notes(summary),
        part_titles: peak_parts::titles().collect(),
        part_rows: peak_parts::rows(run),
        part_note: peak_parts::NOTE,
        ram_titles: ram::TITLES,
        ram_rows: ram::rows(&summary.told_cases()),
        forecast_titles: forecast::TITLES,
        forecast_rows: forecast::rows(run),
        forecast_note: forecast::NOTE,
    };
    Ok(page.render()?)
}

fn cells(record: &RunRecord) -> Vec<Cell> {
    TABLE.iter().map(|column| Cell { text: column.cell(record), class: if column.is_figure { "number" } else { "text" } }).collect()
}

fn class(record: &RunRecord, summary: &Summary<'_>) -> &'static str {
    match record.outcome {
        Outcome::Ok if summary.is_recommended(record) => "recommended",
        Outcome::Ok => "ok",
        Outcome::Oom | Outcome::OomHost => "oom",
        _ => "failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        let summary = Summary::of(&run);
        let plots = crate::plot::all(&summary).expect("plots");
        let page = page(&summary, &plots).expect("a page");
        assert!(page.contains("oom in denoise") && page.contains("≥ 31.00"));
        assert!(page.contains("&#60;b&#62;") && !page.contains("<b>"), "an error text is escaped");
        assert!(page.contains("<svg"));
        assert!(page.contains("denoise, when it ran out"));
        for outside in ["<link", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
