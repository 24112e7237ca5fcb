//! Peak device bytes of each stage at each memory level, for the largest video of the run.

use engine_protocol::{RunRecord, Stage, gib};

use super::bars::{Bar, Bars};
use super::files::files;
use super::picture::{Plot, source_of_all};
use crate::error::Error;
use crate::shown_cases::{shown_cases, stages};
use crate::summary::Summary;
use crate::verdict::{Verdict, failed_stage_need};

const NAME: &str = "peak-by-stage";

/// Draws the plot.
pub(super) fn plot(summary: &Summary<'_>) -> Result<Plot, Error> {
    let (run, largest) = (summary.run, summary.largest_video());
    let cases = largest.map(shown_cases).unwrap_or_default();
    let stages = stages(cases.iter().filter_map(|&(_, case)| case));
    let row = |&(_, case): &(u8, Option<&RunRecord>)| {
        let bar = |stage: Stage| {
            let case = case?;
            let memory = case.stage_memory(stage)?;
            let failed = case.failed_stage == Some(stage);
            let need = failed_stage_need(case).filter(|_| failed);
            Some(Bar { gib: gib(need.unwrap_or(memory.peak_device_bytes)), fits: !failed })
        };
        stages.iter().copied().map(bar).collect()
    };
    let bars = Bars {
        groups: cases.iter().map(|(level, _)| format!("level {level}")).collect(),
        series: stages.iter().map(|stage| stage.name().to_owned()).collect(),
        bars: cases.iter().map(row).collect(),
        counter: "peak device memory",
        capacity: run.manifest.capacity_bytes.map(gib),
    };
    let caption = format!(
        "Peak GPU memory of each stage, in GiB ({}), for {}. An outline marked oom is the stage that ran out of memory: it is as high as what it is predicted to need, or needs at least.",
        source_of_all(&run.records),
        largest.map(Verdict::subject).unwrap_or_default()
    );
    Plot::new(NAME, caption, files(&bars))
}
