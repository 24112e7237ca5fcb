//! Plots as SVG, one file a plot.

mod bars;
mod peak_by_level;
mod peak_by_stage;

use engine_protocol::RunRecord;

use crate::{Error, Run};

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
    Ok(vec![peak_by_level::plot(run)?, peak_by_stage::plot(run)?])
}

/// Of some cases, the one to show for all of them: the one with the smallest peak that fits, else the one that missed by least.
fn shown_case<'a>(records: impl Iterator<Item = &'a RunRecord> + Clone) -> Option<&'a RunRecord> {
    let fitting = records.clone().filter(|record| record.outcome == engine_protocol::Outcome::Ok);
    let smallest = fitting.min_by_key(|record| record.peak_device_bytes());
    smallest.or_else(|| crate::nearest_miss(records, None).map(|miss| miss.record))
}
