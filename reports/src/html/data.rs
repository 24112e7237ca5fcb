//! What the page's scripts draw from: one block of JSON in the page, made from the same summary as its text.

use std::collections::{BTreeMap, HashMap, HashSet};

use engine_protocol::{Config, Outcome, PeakParts, RunRecord};
use rayon::prelude::*;
use serde::Serialize;

use super::bands::{Band, bands};
use super::figure::{gpu, ram, total};
use super::grid::Grid;
use super::levels::finding;
use super::peak::MEANINGS;
use crate::advice::flags;
use crate::summary::Summary;
use crate::table::outcome;
use crate::verdict::{Verdict, need, total_secs};
use crate::words::time_with_range;

/// Cases that the page shows moment by moment: the chosen ones first. Of the others it has the peaks.
const WITH_COURSES: usize = 60;

/// All of it.
#[derive(Serialize)]
pub(super) struct Data<'a> {
    sweep: &'a str,
    capacity_bytes: Option<u64>,
    parts: [&'static str; 9],
    meanings: [&'static str; 9],
    /// The columns of `results.csv`, in order.
    columns: Vec<&'static str>,
    /// Of columns in which the cases do not differ, by their place, the cell.
    same: BTreeMap<usize, &'a str>,
    /// The other columns' cells, a row for each case.
    rows: Vec<Vec<&'a str>>,
    videos: Vec<Video>,
    cases: Vec<Case<'a>>,
    /// The case that is shown first.
    shown: Option<usize>,
}

/// A model and the size and length of a video.
#[derive(Serialize)]
struct Video {
    name: String,
    finding: Option<String>,
    /// The recommended case, or where none is, the best so far.
    best: Option<usize>,
    /// The cases that fit, the best first.
    ranked: Vec<usize>,
}

/// A case.
#[derive(Serialize)]
struct Case<'a> {
    name: &'a str,
    video: usize,
    level: u8,
    flags: String,
    outcome: String,
    /// What it takes of the GPU, with the room that it leaves to others; of one that ran out, what it needs at least.
    needs: Option<u64>,
    fits: bool,
    /// The least, the most likely and the longest time; of a measured one, by how far its steps differ.
    secs: Option<[f64; 3]>,
    /// Whether no other case of this video is both faster and smaller.
    is_best: bool,
    gpu: String,
    ram: String,
    time: String,
    bands: Vec<Band>,
}

impl<'a> Data<'a> {
    /// That of a run whose cases are in `grid`; `about` is the video that the first screen is about.
    pub(super) fn of(summary: &Summary<'a>, grid: &'a Grid<'a>, shown: Option<&RunRecord>) -> Self {
        let places: HashMap<&str, usize> = grid.records.iter().enumerate().map(|(place, record)| (record.case.as_str(), place)).collect();
        let place = |record: &RunRecord| places.get(record.case.as_str()).copied();
        let video = |verdict: &Verdict<'_>| Video {
            name: verdict.subject(),
            finding: finding(summary.run, verdict),
            best: verdict.best.and_then(place),
            ranked: verdict.ranked.iter().filter_map(|record| place(record)).collect(),
        };
        let videos: HashMap<&str, usize> = summary
            .verdicts
            .iter()
            .enumerate()
            .flat_map(|(index, verdict)| verdict.records.iter().map(move |record| (record.case.as_str(), index)))
            .collect();
        let chosen = shown.into_iter().chain(summary.verdicts.iter().filter_map(|verdict| verdict.best));
        let ranked = summary.verdicts.iter().flat_map(|verdict| verdict.ranked.iter().copied().take(4));
        let mut with_courses: HashSet<&str> = HashSet::new();
        for record in chosen.chain(ranked).chain(grid.records.iter().copied()) {
            if with_courses.len() < WITH_COURSES {
                with_courses.insert(&record.case);
            }
        }
        let frontier: HashSet<&str> = summary.verdicts.iter().flat_map(|verdict| frontier(&verdict.ranked)).collect();
        let case = |record: &&'a RunRecord| Case {
            name: &record.case,
            video: videos.get(record.case.as_str()).copied().unwrap_or_default(),
            level: record.config.low_mem_level,
            flags: flags(summary.run, &record.config),
            outcome: outcome(record),
            needs: need(record).map(|need| need.bytes).or_else(|| record.peak_device_bytes()).map(|bytes| bytes + reserve(&record.config)),
            fits: record.outcome == Outcome::Ok,
            secs: total_secs(record).map(|secs| spread(record).unwrap_or([secs.low, secs.expected, secs.high])),
            is_best: frontier.contains(record.case.as_str()),
            gpu: {
                let figure = gpu(record);
                format!("{}{}", figure.before, figure.text)
            },
            ram: ram(record).text,
            time: total_secs(record).map_or_else(|| total(record).text, time_with_range),
            bands: bands(record, with_courses.contains(record.case.as_str())),
        };
        let cells =
            |row: &'a Vec<String>| row.iter().zip(&grid.varies).filter(|(_, varies)| **varies).map(|(cell, _)| cell.as_str()).collect();
        let first = grid.rows.first();
        let same = |(index, varies): (usize, &bool)| Some((index, first?.get(index)?.as_str())).filter(|_| !varies);
        Self {
            sweep: &summary.run.manifest.sweep,
            capacity_bytes: shown.and_then(|record| summary.run.capacity_of(record)).or(summary.run.manifest.capacity_bytes),
            parts: PeakParts::NAMES,
            meanings: MEANINGS,
            columns: grid.columns.iter().map(|column| column.name).collect(),
            same: grid.varies.iter().enumerate().filter_map(same).collect(),
            rows: grid.rows.iter().map(cells).collect(),
            videos: summary.verdicts.iter().map(video).collect(),
            cases: grid.records.par_iter().map(case).collect(),
            shown: shown.and_then(place),
        }
    }
}

/// As JSON that may stand in a block of a page: nothing in it ends the block or begins a comment, and every line of it is one for a script too.
pub(crate) fn inert_json(data: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(data)?;
    let mut inert = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => inert += &format!("\\u{:04x}", u32::from(c)),
            _ => inert.push(c),
        }
    }
    Ok(inert)
}

fn reserve(config: &Config) -> u64 {
    u64::MAX - config.usable_of(u64::MAX)
}

/// The ends of a measured time, as far as its steps differ.
fn spread(record: &RunRecord) -> Option<[f64; 3]> {
    let ([least, largest], step, total) = (record.step_spread()?, record.step_secs()?.expected, total_secs(record)?.expected);
    let steps = f64::from(record.config.steps.saturating_sub(1));
    Some([total + (least - step) * steps, total, total + (largest - step) * steps])
}

/// Of these cases, those that no other one beats in both time and memory.
fn frontier<'a>(ranked: &[&'a RunRecord]) -> Vec<&'a str> {
    let mut timed: Vec<(f64, u64, &str)> = ranked
        .iter()
        .filter_map(|record| Some((total_secs(record)?.expected, record.peak_device_bytes()?, record.case.as_str())))
        .collect();
    timed.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let mut least = u64::MAX;
    let mut best = Vec::new();
    for (_, bytes, case) in timed {
        if bytes < least {
            least = bytes;
            best.push(case);
        }
    }
    best
}
