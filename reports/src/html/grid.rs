//! The cases that the page has, with every cell of `results.csv`: what its table is sorted by, and what it gives to be saved.

use std::collections::{HashMap, HashSet};

use engine_protocol::RunRecord;

use crate::columns::{Column, columns, is_flag};
use crate::csv;
use crate::shown_cases::shown_cases;
use crate::summary::Summary;

/// The most cases that the page has: a browser stays quick with them. `results.csv` has all.
const MOST_CASES: usize = 2000;

/// Cases with their cells.
pub(super) struct Grid<'a> {
    /// The cases, in the order of the run.
    pub records: Vec<&'a RunRecord>,
    /// The columns of `results.csv`.
    pub columns: Vec<Column>,
    /// The cells of each case, as `results.csv` has them.
    pub rows: Vec<Vec<String>>,
    /// Of each column, whether the cases differ in it.
    pub varies: Vec<bool>,
}

impl<'a> Grid<'a> {
    /// That of a run: all cases, or where they are too many those that are told of and then the first ones.
    pub(super) fn of(summary: &Summary<'a>) -> Self {
        let records = shown(summary);
        let columns = columns();
        let rows: Vec<Vec<String>> = records.iter().map(|record| csv::cells(&columns, summary.run, record)).collect();
        let differ = |column: usize| rows.iter().any(|row| row.get(column) != rows[0].get(column));
        let varies = (0..columns.len()).map(differ).collect();
        Self { records, columns, rows, varies }
    }

    /// The flags in which cases of one level differ, by their place among the columns; without a video's size, which has a column of its own. What follows from
    /// the level says nothing beside it.
    pub(super) fn varying_flags(&self) -> Vec<usize> {
        let is_told = |name: &str| is_flag(name) && !["width", "height", "low_mem_level", "frames"].contains(&name);
        (0..self.columns.len()).filter(|&index| is_told(self.columns[index].name) && self.differs_within_a_level(index)).collect()
    }

    fn differs_within_a_level(&self, index: usize) -> bool {
        let mut first: HashMap<u8, &String> = HashMap::new();
        let mut cells = self.records.iter().zip(&self.rows).map(|(record, row)| (record.config.low_mem_level, &row[index]));
        cells.any(|(level, cell)| *first.entry(level).or_insert(cell) != cell)
    }

    /// Whether the cases differ in a column.
    pub(super) fn differ_in(&self, name: &str) -> bool {
        self.columns.iter().zip(&self.varies).any(|(column, varies)| column.name == name && *varies)
    }
}

fn shown<'a>(summary: &Summary<'a>) -> Vec<&'a RunRecord> {
    let all = &summary.run.records;
    if all.len() <= MOST_CASES {
        return all.iter().collect();
    }
    let of_levels = summary.verdicts.iter().flat_map(|verdict| shown_cases(verdict).into_iter().filter_map(|(_, case)| case));
    let told: HashSet<&str> = of_levels.chain(summary.told_cases()).take(MOST_CASES).map(|record| record.case.as_str()).collect();
    let is_told = |record: &&RunRecord| told.contains(record.case.as_str());
    let others = all.iter().filter(|record| !is_told(record)).take(MOST_CASES - told.len());
    let shown: HashSet<&str> = others.map(|record| record.case.as_str()).chain(told.iter().copied()).collect();
    all.iter().filter(|record| shown.contains(record.case.as_str())).collect()
}
