//! Peak device bytes of each stage at each memory level, for the largest video of the run.

use engine_protocol::{Stage, gib};

use super::bars::{Bar, Bars, draw};
use super::{Plot, shown_case};
use crate::{Error, Run, advice};

const NAME: &str = "peak-by-stage";

/// Draws the plot.
pub(super) fn plot(run: &Run) -> Result<Plot, Error> {
    let pixels = |verdict: &crate::Verdict<'_>| {
        let config = &verdict.records[0].config;
        u64::from(config.width) * u64::from(config.height) * u64::from(config.frames)
    };
    let verdicts = crate::verdicts(run);
    let largest = verdicts.iter().reduce(|best, next| if pixels(next) > pixels(best) { next } else { best });
    let records = largest.map(|verdict| verdict.records.as_slice()).unwrap_or_default();
    let mut levels: Vec<u8> = records.iter().map(|record| record.config.low_mem_level).collect();
    levels.sort_unstable();
    levels.dedup();
    let row = |&level: &u8| {
        let case = shown_case(records.iter().copied().filter(|record| record.config.low_mem_level == level));
        let bar = |stage: Stage| {
            let case = case?;
            let memory = case.stages.iter().find(|record| record.stage == stage)?.memory?;
            Some(Bar { gib: gib(memory.peak_device_bytes), fits: case.failed_stage != Some(stage) })
        };
        Stage::ALL.into_iter().map(bar).collect()
    };
    let bars = Bars {
        groups: levels.iter().map(|level| format!("level {level}")).collect(),
        series: Stage::ALL.iter().map(|stage| stage.name().to_owned()).collect(),
        bars: levels.iter().map(row).collect(),
        counter: "peak device memory",
        capacity: run.manifest.capacity_bytes.map(gib),
    };
    let svg = draw(&bars).map_err(|message| Error::Plot { name: NAME, message })?;
    let source = run.records.first().map_or("not measured", advice::source);
    let subject = largest.map(crate::Verdict::subject).unwrap_or_default();
    let caption = format!(
        "Peak device memory (context included) of each stage, in GiB ({source}), for {subject}. An outline marked oom is the stage that ran out, \
         up to what it held until then."
    );
    Ok(Plot { name: NAME, caption, svg })
}
