//! Plots as SVG and as PNG, a file of each a plot. They draw what a summary says and judge nothing.

mod bars;
mod files;
mod frame;
mod peak_by_level;
mod peak_by_stage;
mod peak_of_processes;
mod peak_parts;
mod picture;
mod png;
mod stacks;

use crate::error::Error;
use crate::summary::Summary;

pub(crate) use peak_of_processes::peak_of_processes;
pub(crate) use picture::Plot;

/// All plots that the run has figures for.
///
/// # Errors
/// A plot that cannot be drawn.
pub(crate) fn all(summary: &Summary<'_>) -> Result<Vec<Plot>, Error> {
    // On the CPU there is no GPU memory, so there is nothing to plot.
    if summary.run.records.iter().all(|record| record.reached_device_bytes().is_none()) {
        return Ok(Vec::new());
    }
    let mut plots = vec![peak_by_level::plot(summary)?, peak_by_stage::plot(summary)?];
    plots.extend(peak_parts::plot(summary)?);
    Ok(plots)
}
