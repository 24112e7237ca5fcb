//! What the peak of each stage is made of at each memory level, for the largest video of the run.

use engine_protocol::{PeakParts, RunRecord, Stage, gib};

use super::stacks::{Stack, Stacks, draw};
use super::{Plot, largest_video, shown_cases};
use crate::{Error, Run, advice};

const NAME: &str = "peak-parts";

/// Draws the plot; nothing where no case of the largest video has its parts.
pub(super) fn plot(run: &Run) -> Result<Option<Plot>, Error> {
    let verdicts = crate::verdicts(run);
    let Some(largest) = largest_video(&verdicts) else { return Ok(None) };
    let (levels, cases): (Vec<u8>, Vec<Option<&RunRecord>>) = shown_cases(largest).into_iter().unzip();
    let stacks: Vec<Vec<_>> = cases.iter().map(|case| Stage::ALL.map(|stage| stack((*case)?, stage)).into()).collect();
    if stacks.iter().flatten().all(Option::is_none) {
        return Ok(None);
    }
    let stacks = Stacks {
        groups: levels.iter().map(|level| format!("level {level}")).collect(),
        names: Stage::ALL.map(|stage| stage.name().to_owned()).into(),
        layers: PeakParts::NAMES.map(str::to_owned).into(),
        stacks,
        counter: "peak reserved memory",
    };
    let svg = draw(&stacks).map_err(|message| Error::Plot { name: NAME, message })?;
    let source = run.records.first().map_or("not measured", advice::source);
    let caption = format!(
        "What the peak of each stage is made of, in GiB ({source}), for {}. A stage that ran out is marked oom and shows what was there when it did.",
        largest.subject()
    );
    Ok(Some(Plot { name: NAME, caption, svg }))
}

fn stack(case: &RunRecord, stage: Stage) -> Option<Stack> {
    let ran_out = case.failed_stage == Some(stage);
    let peak = || case.stage_memory(stage)?.parts;
    let parts = if ran_out { case.parts_at_failure.or_else(peak)? } else { peak()? };
    let label = if ran_out { "oom".into() } else { format!("{:.1}", gib(parts.reserved_bytes())) };
    Some(Stack { gib: parts.bytes().map(gib).into(), label })
}
