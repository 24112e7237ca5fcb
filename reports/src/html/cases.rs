//! The table of all cases: what differs first, then what came of it.

use engine_protocol::{Outcome, RunRecord, Stage};

use super::figure::{Figure, gpu, pinned, ram, total};
use super::grid::Grid;
use crate::sentences::step;
use crate::summary::Summary;
use crate::table::outcome;

/// A column.
pub(super) struct CaseColumn {
    pub title: &'static str,
    /// The column of `results.csv` by which it is sorted; where its cell is empty, the one after `|`.
    pub sort: &'static str,
    pub class: &'static str,
    cell: Cell,
}

enum Cell {
    /// The cell of `results.csv` at that place.
    Flag(usize),
    Of(fn(&RunRecord) -> Figure),
}

/// A case with its cells.
pub(super) struct CaseRow<'a> {
    pub case: &'a str,
    pub cells: Vec<(Figure, &'static str)>,
    pub class: &'static str,
    pub source: &'static str,
}

/// The columns for these cases: the level, what else differs, and what came of it.
pub(super) fn columns(grid: &Grid<'_>) -> Vec<CaseColumn> {
    let of = |title, sort, class, cell| CaseColumn { title, sort, class, cell: Cell::Of(cell) };
    let mut columns = vec![of("level", "low_mem_level", "number", |r| Figure::text("low_mem_level", r.config.low_mem_level.to_string()))];
    if grid.differ_in("model") {
        columns.push(of("model", "model", "text", |r| Figure::text("model", r.config.model.clone())));
    }
    if grid.differ_in("gpu") {
        columns.push(of("GPU", "gpu", "text", |r| Figure::text("gpu", r.gpu.clone().unwrap_or_default())));
    }
    if grid.differ_in("width") || grid.differ_in("height") {
        columns.push(of("resolution", "width", "text", |r| Figure::text("", r.config.resolution.to_string())));
    }
    if grid.differ_in("frames") {
        columns.push(of("frames", "frames", "number", |r| Figure::text("frames", r.config.frames.to_string())));
    }
    let flag = |index: usize| {
        let name = grid.columns[index].name;
        CaseColumn { title: name, sort: name, class: "text", cell: Cell::Flag(index) }
    };
    columns.extend(grid.varying_flags().into_iter().map(flag));
    columns.extend([
        of("outcome", "outcome", "text", |r| Figure::text("", outcome(r))),
        of("total", "total_secs", "number", total),
        of("peak device GiB", "peak_device_bytes|predicted_need_bytes|needed_bytes", "number", gpu),
        of("peak reserved GiB", "peak_reserved_bytes", "number", |r| Figure::gib("peak_reserved_bytes", r.peak_reserved_bytes())),
        of("peak allocated GiB", "peak_allocated_bytes", "number", |r| Figure::gib("peak_allocated_bytes", r.peak_allocated_bytes())),
        of("peak stage", "peak_stage", "text", |r| Figure::text("peak_stage", r.peak_stage().map(Stage::name).unwrap_or_default().into())),
        of("RAM GiB", "host_peak_bytes|predicted_host_peak_bytes", "number", ram),
        of("page-locked GiB", "host_pinned_peak_bytes", "number", pinned),
        of("step", "step_secs", "number", |r| Figure::text("", step(r).filter(|_| r.outcome == Outcome::Ok).unwrap_or_default())),
    ]);
    columns
}

/// A row for each case.
pub(super) fn rows<'a>(summary: &Summary<'a>, grid: &Grid<'a>, columns: &[CaseColumn]) -> Vec<CaseRow<'a>> {
    let row = |(record, cells): (&&'a RunRecord, &Vec<String>)| CaseRow {
        case: &record.case,
        cells: columns
            .iter()
            .map(|column| {
                let figure = match column.cell {
                    Cell::Flag(index) => Figure::text(column.sort, cells[index].clone()),
                    Cell::Of(cell) => cell(record),
                };
                (figure, column.class)
            })
            .collect(),
        class: class(record, summary),
        source: record.memory_source.map_or("", |source| source.name()),
    };
    grid.records.iter().zip(&grid.rows).map(row).collect()
}

fn class(record: &RunRecord, summary: &Summary<'_>) -> &'static str {
    match record.outcome {
        Outcome::Ok if summary.is_recommended(record) => "recommended",
        Outcome::Ok => "ok",
        Outcome::Oom | Outcome::OomHost => "oom",
        _ => "failure",
    }
}
