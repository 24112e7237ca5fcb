//! What the peak of each stage is made of at each memory level, for the largest video of the run.

use engine_protocol::{PeakParts, RunRecord, Stage, gib};

use super::files::files;
use super::picture::{Plot, source_of_all};
use super::stacks::{Stack, Stacks};
use crate::error::Error;
use crate::shown_cases::{shown_cases, stages};
use crate::summary::Summary;
use crate::verdict::failed_stage_need;

const NAME: &str = "peak-parts";

/// Draws the plot; nothing where no case of the largest video has its parts.
pub(super) fn plot(summary: &Summary<'_>) -> Result<Option<Plot>, Error> {
    let Some(largest) = summary.largest_video() else { return Ok(None) };
    let (levels, cases): (Vec<u8>, Vec<Option<&RunRecord>>) = shown_cases(largest).into_iter().unzip();
    let stages = stages(cases.iter().copied().flatten());
    let stacks: Vec<Vec<_>> = cases.iter().map(|case| stages.iter().map(|&stage| stack((*case)?, stage)).collect()).collect();
    if stacks.iter().flatten().all(Option::is_none) {
        return Ok(None);
    }
    let stacks = Stacks {
        groups: levels.iter().map(|level| format!("level {level}")).collect(),
        names: stages.iter().map(|stage| stage.name().to_owned()).collect(),
        layers: PeakParts::NAMES.map(str::to_owned).into(),
        stacks,
        counter: "peak reserved memory",
    };
    let caption = format!(
        "What the peak of each stage is made of, in GiB ({}), for {}. A stage that ran out of memory shows what was there when it did, and above that what it is predicted to need, or needs at least.",
        source_of_all(&summary.run.records),
        largest.subject()
    );
    Plot::new(NAME, caption, files(&stacks)).map(Some)
}

fn stack(case: &RunRecord, stage: Stage) -> Option<Stack> {
    let ran_out = case.failed_stage == Some(stage);
    let peak = || case.stage_memory(stage)?.parts;
    let parts = if ran_out { case.parts_at_failure.or_else(peak)? } else { peak()? };
    let need = failed_stage_need(case).filter(|_| ran_out);
    let label = match need {
        Some(bytes) => format!("needs {:.1}", gib(bytes)),
        None if ran_out => "oom".into(),
        None => format!("{:.1}", gib(parts.reserved_bytes())),
    };
    Some(Stack { gib: parts.bytes().map(gib).into(), label })
}
