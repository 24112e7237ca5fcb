//! Peak device bytes of each memory level, a bar a resolution.

use engine_protocol::gib;

use super::bars::{Bar, Bars, draw};
use super::{Plot, levels, shown_case};
use crate::{Error, Run, advice, needed_bytes};

const NAME: &str = "peak-by-level";

/// Draws the plot.
pub(super) fn plot(run: &Run) -> Result<Plot, Error> {
    let verdicts = crate::verdicts(run);
    let levels = levels(run.records.iter());
    let several_models = run.manifest.models.len() > 1;
    let series = |verdict: &crate::Verdict<'_>| {
        let config = &verdict.records[0].config;
        if several_models { format!("{} {}", config.model, config.resolution) } else { config.resolution.to_string() }
    };
    let bar = |verdict: &crate::Verdict<'_>, level: u8| {
        let case = shown_case(verdict.records.iter().copied().filter(|record| record.config.low_mem_level == level))?;
        let bytes = needed_bytes(case).or_else(|| case.reached_device_bytes())?;
        Some(Bar { gib: gib(bytes), fits: needed_bytes(case).is_none() })
    };
    let bars = Bars {
        groups: levels.iter().map(|level| format!("level {level}")).collect(),
        series: verdicts.iter().map(series).collect(),
        bars: levels.iter().map(|&level| verdicts.iter().map(|verdict| bar(verdict, level)).collect()).collect(),
        counter: "peak device memory",
        capacity: run.manifest.capacity_bytes.map(gib),
    };
    let svg = draw(&bars).map_err(|message| Error::Plot { name: NAME, message })?;
    let source = run.records.first().map_or("not measured", advice::source);
    let caption = format!(
        "Peak device memory (context included) of each memory level, in GiB ({source}). Of a level's cases the one with the smallest peak is \
         shown. An outline marked oom did not fit: it reaches to what the case needs at least, or to the edge."
    );
    Ok(Plot { name: NAME, caption, svg })
}
