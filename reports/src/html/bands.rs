//! A case in time: its stages, and the steps of denoise, each with what its peak was made of. Steps in a row that are alike are one band.

use engine_protocol::{MemoryCourse, Outcome, PeakParts, RunRecord, Stage, StageRecord};
use serde::Serialize;

use super::course::Course;
use crate::words::time;

/// A stretch of a case's time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Band {
    /// What people call it: `encode`, `steps 2 to 50`.
    pub name: String,
    /// The stage that it is, or is part of.
    pub stage: &'static str,
    /// How long it took; empty where that is not known.
    pub secs: Option<f64>,
    /// The same as people say it.
    pub time: String,
    /// What its peak was made of, in the order of [`PeakParts::NAMES`]; empty where that is not known.
    pub parts: Option<[u64; 9]>,
    /// Its peak of reserved bytes.
    pub reserved: Option<u64>,
    /// What the device holds beside what is reserved: the CUDA context and the libraries' own memory.
    pub beside: u64,
    /// The peak of allocated bytes that was predicted for its stage.
    pub predicted: Option<u64>,
    /// Whether memory ran out in it.
    pub ran_out: bool,
    /// What was asked for then.
    pub asked: Option<u64>,
    /// How its memory went; empty where that is not known, and of cases for which the page has no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
}

/// The bands of a case, in order; with courses where they are wanted.
pub(super) fn bands(record: &RunRecord, with_courses: bool) -> Vec<Band> {
    let mut bands: Vec<Band> = record.stages.iter().flat_map(|stage| of_stage(record, stage)).collect();
    if !with_courses {
        bands.iter_mut().for_each(|band| band.course = None);
    }
    bands
}

fn of_stage(record: &RunRecord, stage: &StageRecord) -> Vec<Band> {
    let ran_out = record.failed_stage == Some(stage.stage) && record.outcome == Outcome::Oom;
    let parts = stage.memory.and_then(|memory| memory.parts);
    let parts = if ran_out { record.parts_at_failure.or(parts) } else { parts };
    let whole = Band {
        name: stage.stage.name().to_owned(),
        stage: stage.stage.name(),
        secs: None,
        time: String::new(),
        parts: parts.map(|parts| parts.bytes()),
        reserved: stage.memory.map(|memory| memory.peak_reserved_bytes),
        beside: stage.memory.map_or(0, |memory| memory.beside_bytes()),
        predicted: stage.predicted_peak_allocated_bytes,
        ran_out,
        asked: record.requested_bytes.filter(|_| ran_out),
        course: course(stage, |course| course.steps.is_empty()),
    };
    if stage.stage != Stage::Denoise || stage.steps.is_empty() || stage.steps.len() != stage.step_secs.len() || ran_out {
        return vec![lasting(whole, stage.secs().map(|secs| secs.expected))];
    }
    let mut found = runs_of_steps(stage);
    let (ran, asked) = (stage.steps.len(), record.config.steps as usize);
    if let (Some(&Steps { to, parts, .. }), Some(secs), 1..) = (found.last(), record.left_steps_secs(), asked.saturating_sub(ran)) {
        found.push(Steps { from: to + 1, to: asked, secs: secs.expected, parts, is_as: Some(to) });
    }
    let of_steps = |steps: Steps| {
        let named = if steps.from == steps.to { format!("step {}", steps.from) } else { format!("steps {} to {}", steps.from, steps.to) };
        let name = steps.is_as.map_or_else(|| named.clone(), |as_step| format!("{named}, not run: as step {as_step}"));
        let (parts, reserved) = (Some(steps.parts.bytes()), Some(steps.parts.reserved_bytes()));
        let step = steps.is_as.unwrap_or(steps.from) - 1;
        let course = course(stage, |course| course.steps.contains(&(step as u32)));
        lasting(Band { name, parts, reserved, course, ..whole.clone() }, Some(steps.secs))
    };
    let after = whole.course.as_ref().map(|_| Band { name: "after the steps".to_owned(), parts: None, reserved: None, ..whole.clone() });
    found.into_iter().map(of_steps).chain(after).collect()
}

/// How memory went in a part of a stage.
fn course(stage: &StageRecord, is_it: impl Fn(&MemoryCourse) -> bool) -> Option<Course> {
    stage.courses.iter().find(|course| is_it(course)).map(Course::of)
}

fn lasting(band: Band, secs: Option<f64>) -> Band {
    Band { secs, time: secs.map(time).unwrap_or_default(), ..band }
}

/// Steps in a row with the same parts, counted from 1.
#[derive(Clone, Copy)]
struct Steps {
    from: usize,
    to: usize,
    secs: f64,
    parts: PeakParts,
    /// They did not run, and are taken to be as this one.
    is_as: Option<usize>,
}

/// The steps that ran. The first stands by itself, since it also pays for what happens once.
fn runs_of_steps(denoise: &StageRecord) -> Vec<Steps> {
    let mut found: Vec<Steps> = Vec::new();
    for (index, (parts, secs)) in denoise.steps.iter().zip(&denoise.step_secs).enumerate() {
        match found.last_mut() {
            Some(last) if index > 1 && last.parts == *parts => {
                last.to += 1;
                last.secs += secs.expected;
            }
            _ => found.push(Steps { from: index + 1, to: index + 1, secs: secs.expected, parts: *parts, is_as: None }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use engine_protocol::{GIB, Secs};

    use super::*;
    use crate::samples;

    #[test]
    fn steps_that_are_alike_are_one_band_and_those_that_did_not_run_say_so() {
        let mut record = samples::ok("a", 1, 10);
        (record.config.steps, record.config.steps_measured) = (50, Some(4.into()));
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
        denoise.steps = [8, 8, 8, 9].map(|gib| PeakParts::new([gib * GIB, 0, 0, 0, 0, 0, 0, 0], 10 * GIB)).to_vec();
        denoise.step_secs = [3.0, 2.0, 2.0, 2.0].map(Secs::measured).to_vec();
        let found = bands(&record, true);
        let told: Vec<_> = found.iter().map(|band| (band.name.as_str(), band.secs)).collect();
        assert_eq!(
            told,
            [
                ("load", None),
                ("encode", None),
                ("step 1", Some(3.0)),
                ("steps 2 to 3", Some(4.0)),
                ("step 4", Some(2.0)),
                ("steps 5 to 50, not run: as step 4", Some(92.0)),
                ("decode", None),
            ]
        );
        assert_eq!(found[4].parts.map(|parts| parts[0]), Some(9 * GIB));
    }

    #[test]
    fn what_ran_out_has_what_was_there_then() {
        let found = bands(&samples::oom("a", 0, 20), true);
        let last = found.last().expect("a band");
        assert_eq!((last.name.as_str(), last.ran_out, last.parts.map(|parts| parts[0])), ("denoise", true, Some(19 * GIB)));
    }
}
