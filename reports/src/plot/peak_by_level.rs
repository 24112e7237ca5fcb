//! Peak device bytes of each memory level, a bar a resolution.

use engine_protocol::gib;

use super::bars::{Bar, Bars};
use super::files::files;
use super::picture::{Plot, source_of_all};
use crate::error::Error;
use crate::shown_cases::{levels, shown_case};
use crate::summary::Summary;
use crate::verdict::{Verdict, need};
use crate::words::CONTEXT;

const NAME: &str = "peak-by-level";

/// Draws the plot.
pub(super) fn plot(summary: &Summary<'_>) -> Result<Plot, Error> {
    let (run, verdicts) = (summary.run, &summary.verdicts);
    let levels = levels(run.records.iter());
    let several_models = run.manifest.models.len() > 1;
    let series = |verdict: &Verdict<'_>| {
        let config = &verdict.records[0].config;
        if several_models { format!("{} {}", config.model, config.resolution) } else { config.resolution.to_string() }
    };
    let bar = |verdict: &Verdict<'_>, level: u8| {
        let case = shown_case(verdict, level)?;
        let need = need(case);
        let bytes = need.map(|need| need.bytes).or_else(|| case.reached_device_bytes())?;
        Some(Bar { gib: gib(bytes), fits: need.is_none() })
    };
    let bars = Bars {
        groups: levels.iter().map(|level| format!("level {level}")).collect(),
        series: verdicts.iter().map(series).collect(),
        bars: levels.iter().map(|&level| verdicts.iter().map(|verdict| bar(verdict, level)).collect()).collect(),
        counter: "peak device memory",
        capacity: run.manifest.capacity_bytes.map(gib),
    };
    let caption = format!(
        "Peak GPU memory of each memory level, in GiB ({}), with {CONTEXT}. Of each level the best case that fits is shown, by the rule that recommends one. An outline marked oom (out of \
         memory) did not fit: it is as high as what the case is predicted to need, or needs at least.",
        source_of_all(&run.records)
    );
    Plot::new(NAME, caption, files(&bars))
}
