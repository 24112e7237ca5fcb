//! `report.html`: one page with nothing outside it.

use askama::Template;
use engine_protocol::{Outcome, RunRecord, gib};

use crate::plot::Plot;
use crate::{Error, Run, advice, parts, predicted, summary, table};

/// The page and what fills it.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    run: &'a Run,
    provenance: String,
    capacity: Option<String>,
    sentences: Vec<String>,
    ranking: &'static str,
    plots: &'a [Plot],
    titles: [&'static str; 10],
    rows: Vec<Row<'a>>,
    notes: Vec<String>,
    part_titles: Vec<String>,
    part_rows: Vec<(&'a str, Vec<String>)>,
    part_note: &'static str,
    predicted_titles: [&'static str; 7],
    predicted_rows: Vec<[String; 7]>,
    predicted_note: &'static str,
    unsupported: Vec<(String, u64)>,
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
pub(crate) fn page(run: &Run, plots: &[Plot]) -> Result<String, Error> {
    let verdicts = summary::verdicts(run);
    let recommended: Vec<&str> = verdicts.iter().filter_map(|verdict| Some(verdict.best?.case.as_str())).collect();
    let row = |record| Row { record, cells: cells(record), class: class(record, &recommended) };
    let page = Page {
        run,
        provenance: run.provenance(),
        capacity: run.manifest.capacity_bytes.map(|bytes| format!("{:.2} GiB", gib(bytes))),
        sentences: advice::sentences(run),
        ranking: summary::ranking(run),
        plots,
        titles: table::TITLES,
        rows: run.records.iter().map(row).collect(),
        notes: table::notes(run),
        part_titles: parts::titles().collect(),
        part_rows: parts::rows(run),
        part_note: parts::NOTE,
        predicted_titles: predicted::TITLES,
        predicted_rows: predicted::rows(run),
        predicted_note: predicted::NOTE,
        unsupported: table::unsupported_calls(run),
    };
    Ok(page.render()?)
}

fn cells(record: &RunRecord) -> Vec<Cell> {
    let number = |index| index >= table::TEXT_COLUMNS && index + 1 < table::TITLES.len();
    let texts = table::row(record).into_iter().enumerate();
    texts.map(|(index, text)| Cell { text, class: if number(index) { "number" } else { "text" } }).collect()
}

fn class(record: &RunRecord, recommended: &[&str]) -> &'static str {
    match record.outcome {
        Outcome::Ok if recommended.contains(&record.case.as_str()) => "recommended",
        Outcome::Ok => "ok",
        Outcome::Oom => "oom",
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
        let plots = crate::plot::all(&run).expect("plots");
        let page = page(&run, &plots).expect("a page");
        assert!(page.contains("oom in denoise (needs at least 31.00 GiB)"));
        assert!(page.contains("&#60;b&#62;") && !page.contains("<b>"), "an error text is escaped");
        assert!(page.contains("<svg"));
        assert!(page.contains("denoise, when it ran out"));
        for outside in ["<link", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
