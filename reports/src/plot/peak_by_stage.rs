//! Peak device bytes of each stage at each memory level, for the largest video of the run.

use engine_protocol::{RunRecord, Stage, gib};

use super::bars::{Bar, Bars, draw};
use super::{Plot, largest_video, shown_cases};
use crate::{Error, Run, advice};

const NAME: &str = "peak-by-stage";

/// Draws the plot.
pub(super) fn plot(run: &Run) -> Result<Plot, Error> {
    let verdicts = crate::verdicts(run);
    let largest = largest_video(&verdicts);
    let cases = largest.map(shown_cases).unwrap_or_default();
    let row = |&(_, case): &(u8, Option<&RunRecord>)| {
        let bar = |stage: Stage| {
            let case = case?;
            let memory = case.stage_memory(stage)?;
            Some(Bar { gib: gib(memory.peak_device_bytes), fits: case.failed_stage != Some(stage) })
        };
        Stage::ALL.into_iter().map(bar).collect()
    };
    let bars = Bars {
        groups: cases.iter().map(|(level, _)| format!("level {level}")).collect(),
        series: Stage::ALL.iter().map(|stage| stage.name().to_owned()).collect(),
        bars: cases.iter().map(row).collect(),
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
