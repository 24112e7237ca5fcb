//! What a run says, on the terminal or as JSON: of `lowmem sweep`, `merge` and `report`. The answer comes first, and the long table last.

use std::path::Path;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use engine_protocol::{Device, Outcome, RunRecord};
use reports::{Summary, TableColumn};

use super::table;
use crate::cli::FormArguments;
use crate::error::Error;
use crate::json;
use crate::print::{self, WIDTH};
use crate::run_json::RunJson;

/// Says what a run in that directory says.
pub(super) fn tell(summary: &Summary<'_>, dir: &Path, form: FormArguments) -> Result<(), Error> {
    if form.json {
        return json::print(&RunJson::new(summary, dir));
    }
    say!("{}:", summary.title);
    summary.sentences.iter().for_each(|sentence| print::prose("  ", sentence));
    print::prose("", summary.ranking);
    say!("\nReport: {}\n", dir.join(reports::REPORT).display());
    print::prose("", &summary.provenance);
    reports::terminal_notes(summary).iter().for_each(|note| print::prose("", note));
    if !summary.unsupported_calls.is_empty() {
        let calls: Vec<_> = summary.unsupported_calls.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        print::prose("", &format!("Calls that the virtual GPU does not support, and how often they came: {}.", calls.join(", ")));
    }
    say!();
    print::table(&cases(summary, form.wide));
    Ok(())
}

/// The cases; as many columns as a terminal has room for, or all.
fn cases(summary: &Summary<'_>, is_wide: bool) -> Table {
    let run = summary.run;
    let named = reports::rows_look_alike(summary);
    let is_there = |column: &&TableColumn| !(column.is_memory && run.manifest.device == Device::Cpu);
    let columns = if is_wide { reports::table_columns(run) } else { reports::terminal_columns(run, named) };
    let columns: Vec<_> = columns.into_iter().filter(is_there).collect();
    let titles: Vec<&str> = named.then_some("case").into_iter().chain(columns.iter().map(|column| column.title)).collect();
    let figures: Vec<_> = (0..columns.len()).filter(|&index| columns[index].is_figure).map(|index| index + usize::from(named)).collect();
    let mut table = table(&titles, &figures);
    if !is_wide {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    }
    for record in &run.records {
        let cells = named.then(|| record.case.clone()).into_iter().chain(columns.iter().map(|column| column.cell(record)));
        table.add_row(cells.map(|text| styled(&text, record, summary)));
    }
    table
}

/// A cell in its case's colour: what is recommended stands out, and so does what did not end.
fn styled(text: &str, record: &RunRecord, summary: &Summary<'_>) -> Cell {
    let cell = Cell::new(untrusted::line(text));
    match record.outcome {
        Outcome::Ok if summary.is_recommended(record) => cell.fg(Color::Green).add_attribute(Attribute::Bold),
        Outcome::Ok => cell,
        Outcome::Oom | Outcome::OomHost => cell.add_attribute(Attribute::Dim),
        _ => cell.fg(Color::Red),
    }
}
