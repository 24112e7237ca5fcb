//! Plots as SVG, one file a plot.

mod bars;
mod frame;
mod peak_by_level;
mod peak_by_stage;
mod peak_parts;
mod stacks;

use std::collections::BTreeSet;

use engine_protocol::RunRecord;

use crate::{Error, Run, Verdict};

/// A plot of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// Its file's name, without the ending.
    pub name: &'static str,
    /// What it shows, in which unit, and where the figures come from.
    pub caption: String,
    /// The picture.
    pub svg: String,
}

/// All plots that the run has figures for.
///
/// # Errors
/// A plot that cannot be drawn.
pub(crate) fn all(run: &Run) -> Result<Vec<Plot>, Error> {
    // On the CPU there is no GPU memory, so there is nothing to plot.
    if run.records.iter().all(|record| record.reached_device_bytes().is_none()) {
        return Ok(Vec::new());
    }
    let mut plots = vec![peak_by_level::plot(run)?, peak_by_stage::plot(run)?];
    plots.extend(peak_parts::plot(run)?);
    Ok(plots)
}

/// The model and resolution with the most pixels: the first of equals.
fn largest_video<'a, 'run>(verdicts: &'a [Verdict<'run>]) -> Option<&'a Verdict<'run>> {
    let pixels = |verdict: &Verdict<'_>| {
        let config = &verdict.records[0].config;
        config.resolution.pixels() * u64::from(config.frames)
    };
    verdicts.iter().reduce(|best, next| if pixels(next) > pixels(best) { next } else { best })
}

/// Each memory level of a model and resolution, lowest first, with the case to show for it.
fn shown_cases<'run>(verdict: &Verdict<'run>) -> Vec<(u8, Option<&'run RunRecord>)> {
    let of = |level| shown_case(verdict.records.iter().copied().filter(move |record| record.config.low_mem_level == level));
    levels(verdict.records.iter().copied()).into_iter().map(|level| (level, of(level))).collect()
}

/// The memory levels of some cases, each once, lowest first.
fn levels<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Vec<u8> {
    let levels: BTreeSet<u8> = records.map(|record| record.config.low_mem_level).collect();
    levels.into_iter().collect()
}

/// Of some cases, the one to show for all of them: the one with the smallest peak that fits, else the one that missed by least.
fn shown_case<'a>(records: impl Iterator<Item = &'a RunRecord> + Clone) -> Option<&'a RunRecord> {
    let fitting = records.clone().filter(|record| record.outcome == engine_protocol::Outcome::Ok);
    let smallest = fitting.min_by_key(|record| record.peak_device_bytes());
    smallest.or_else(|| crate::nearest_miss(records, None).map(|miss| miss.record))
}
