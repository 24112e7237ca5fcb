//! What a worker may say, and in which order: events that contradict each other or themselves are the worker's failure, and no result.

use engine_protocol::{Event, Stage, StageMemory};
use serde_json::Value;

/// More bytes than anything has: a few of them can still be added up.
const MOST_BYTES: u64 = 1 << 60;
/// More seconds than anybody waits: three centuries.
const MOST_SECS: f64 = 1e10;
/// A time is the difference of two clocks now and then, which round each by itself.
const LEAST_SECS: f64 = -1e-3;
/// More times than a run can go on at a lower level.
const MOST_LOWERINGS: usize = 16;

/// So many steps are taken in of a case that has fewer: what it told of them is kept in its record.
const STEPS: usize = 1000;

/// How far the story is that a worker tells.
#[derive(Debug, Default)]
pub(super) struct Order {
    open: Option<Stage>,
    /// The last stage that ended in this attempt.
    ended: Option<Stage>,
    steps: usize,
    lowerings: usize,
    last_word: Option<String>,
}

impl Order {
    /// Takes in the next event of a case with so many steps.
    ///
    /// # Errors
    /// What it contradicts, in words.
    pub(super) fn take_in(&mut self, event: &Event, steps: u32) -> Result<(), String> {
        let name = name(event);
        if let Some(last) = &self.last_word {
            return Err(format!("`{last}` and then `{name}`, though nothing may follow the first"));
        }
        figures(event).map_err(|what| format!("`{name}` with {what}"))?;
        match event {
            Event::StageBegun { stage } => {
                if let Some(open) = self.open {
                    return Err(format!("`stage_begun {}` and then `{name}`, before the first of the two stages ended", open.name()));
                }
                if let Some(ended) = self.ended.filter(|ended| ended >= stage) {
                    return Err(format!("`stage_ended {}` and then `{name}`, which comes before it", ended.name()));
                }
                self.open = Some(*stage);
            }
            Event::StageEnded { stage, .. } => {
                match self.open.take() {
                    Some(open) if open == *stage => {}
                    Some(open) => return Err(format!("`stage_begun {}` and then `{name}`, which is another stage", open.name())),
                    None => return Err(format!("`{name}` without a `stage_begun {}` before it", stage.name())),
                }
                self.ended = Some(*stage);
            }
            Event::StepEnded { .. } => {
                self.steps += 1;
                if self.steps > STEPS.max(steps as usize) {
                    return Err(format!("`step_ended` {} times, and the case has {steps} steps", self.steps));
                }
            }
            Event::Lowered(_) => {
                self.lowerings += 1;
                if self.lowerings > MOST_LOWERINGS {
                    return Err(format!("`lowered` {} times, and there are not so many levels", self.lowerings));
                }
                (self.open, self.ended) = (None, None);
            }
            Event::Finished { .. } | Event::OutOfMemory { .. } | Event::OutOfHostMemory { .. } | Event::Failed { .. } => {
                self.last_word = Some(name);
            }
            Event::Started { .. } | Event::Planned { .. } | Event::Progress { .. } | Event::CachePlanned { .. } => {}
        }
        Ok(())
    }
}

/// An event as it is called, with its stage where that tells it from others.
fn name(event: &Event) -> String {
    let of = |name: &str, stage: Stage| format!("{name} {}", stage.name());
    match event {
        Event::Started { .. } => "started".into(),
        Event::Planned { .. } => "planned".into(),
        Event::Lowered(_) => "lowered".into(),
        Event::StageBegun { stage } => of("stage_begun", *stage),
        Event::Progress { stage, .. } => of("progress", *stage),
        Event::StepEnded { .. } => "step_ended".into(),
        Event::CachePlanned { .. } => "cache_planned".into(),
        Event::StageEnded { stage, .. } => of("stage_ended", *stage),
        Event::Finished { .. } => "finished".into(),
        Event::OutOfMemory { .. } => "out_of_memory".into(),
        Event::OutOfHostMemory { .. } => "out_of_host_memory".into(),
        Event::Failed { .. } => "failed".into(),
    }
}

/// Whether all of an event's figures can be.
fn figures(event: &Event) -> Result<(), String> {
    let memory = match event {
        Event::StageEnded { memory, .. } | Event::OutOfMemory { memory, .. } | Event::OutOfHostMemory { memory, .. } => memory.as_ref(),
        Event::Lowered(lowered) => lowered.memory.as_ref(),
        Event::StepEnded { .. } | Event::Finished { .. } => None,
        Event::Planned { stages, host, .. } => {
            let told = serde_json::to_value((stages, host)).unwrap_or_default();
            return check("", &told);
        }
        // Without a figure, or with none that is summed up.
        Event::Started { .. } | Event::StageBegun { .. } | Event::Progress { .. } | Event::CachePlanned { .. } | Event::Failed { .. } => {
            return Ok(());
        }
    };
    check("", &serde_json::to_value(event).unwrap_or_default())?;
    memory.map_or(Ok(()), peaks)
}

/// No peak is below what was held in the end.
fn peaks(memory: &StageMemory) -> Result<(), String> {
    let pairs = [
        ("allocated", memory.peak_allocated_bytes, memory.allocated_bytes),
        ("reserved", memory.peak_reserved_bytes, memory.reserved_bytes),
    ];
    match pairs.iter().find(|(_, peak, end)| peak < end) {
        Some((what, peak, end)) => Err(format!("a peak_{what}_bytes of {peak} below its {what}_bytes of {end}")),
        None => Ok(()),
    }
}

/// Whether the figures under `key` can be: counts of bytes that can be added up, and times and rates that are no less than nothing.
fn check(key: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| check(key, value)),
        Value::Array(values) => values.iter().try_for_each(|value| check(key, value)),
        Value::Number(number) => {
            let is_secs = ["low", "expected", "high"].contains(&key);
            let is_possible = match (number.as_u64(), number.as_f64()) {
                (Some(count), _) if !is_secs => count <= MOST_BYTES,
                (_, Some(secs)) if is_secs => (LEAST_SECS..=MOST_SECS).contains(&secs),
                (_, Some(figure)) => figure >= 0.0,
                _ => false,
            };
            let what = if is_secs { format!("a time of {number} s") } else { format!("{key} of {number}") };
            if is_possible { Ok(()) } else { Err(format!("{what}, which cannot be")) }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with the last of these lines, where the ones before are right.
    fn wrong(lines: &[&str]) -> String {
        let mut order = Order::default();
        let mut told = |line: &&str| order.take_in(&serde_json::from_str(line).expect("an event"), 2);
        let (last, before) = lines.split_last().expect("a line");
        assert_eq!(before.iter().try_for_each(&mut told), Ok(()));
        told(last).err().unwrap_or_default()
    }

    fn begun(stage: &str) -> String {
        format!(r#"{{"event":"stage_begun","stage":"{stage}"}}"#)
    }

    fn ended(stage: &str, secs: &str, peak: u64) -> String {
        let times = format!(r#"{{"secs":{{"low":{secs},"expected":{secs},"high":{secs}}}}}"#);
        let rest = r#""allocated_bytes":2,"reserved_bytes":2,"peak_reserved_bytes":2,"peak_device_bytes":3"#;
        format!(r#"{{"event":"stage_ended","stage":"{stage}","time":{times},"memory":{{"peak_allocated_bytes":{peak},{rest}}}}}"#)
    }

    const FINISHED: &str = r#"{"event":"finished","transfers":null}"#;
    const FAILED: &str = r#"{"event":"failed","stage":null,"message":"late"}"#;
    const STEP: &str = r#"{"event":"step_ended","parts":null,"secs":null}"#;
    const LOWERED: &str =
        r#"{"event":"lowered","stage":"denoise","steps_done":1,"from_level":0,"to_level":1,"requested_bytes":null,"memory":null}"#;

    #[test]
    fn a_story_in_order_is_believed() {
        let stages = [begun("load"), ended("load", "1", 2), begun("denoise"), ended("denoise", "-0.0001", 2)];
        let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
        assert_eq!(wrong(&[&stages[..3], &[STEP, LOWERED], &stages[..3], &[STEP], &stages[3..], &[FINISHED]].concat()), "");
    }

    #[test]
    fn what_contradicts_is_named() {
        assert_eq!(wrong(&[FINISHED, FAILED]), "`finished` and then `failed`, though nothing may follow the first");
        assert_eq!(wrong(&[STEP; STEPS + 1]), "`step_ended` 1001 times, and the case has 2 steps");
        let [load, decode] = [begun("load"), begun("decode")];
        let [load_end, decode_end] = [ended("load", "1", 2), ended("decode", "1", 2)];
        assert!(wrong(&[&load, &decode]).starts_with("`stage_begun load` and then `stage_begun decode`"));
        assert!(wrong(&[&load, &decode_end]).starts_with("`stage_begun load` and then `stage_ended decode`"));
        assert!(wrong(&[&decode, &decode_end, &load]).starts_with("`stage_ended decode` and then `stage_begun load`"));
        assert_eq!(wrong(&[&load_end]), "`stage_ended load` without a `stage_begun load` before it");
    }

    #[test]
    fn figures_that_cannot_be_are_named() {
        let of = |secs, peak| wrong(&[&begun("load"), &ended("load", secs, peak)]);
        assert_eq!(of("1", u64::MAX), "`stage_ended load` with peak_allocated_bytes of 18446744073709551615, which cannot be");
        assert_eq!(of("1", 1), "`stage_ended load` with a peak_allocated_bytes of 1 below its allocated_bytes of 2");
        assert_eq!(of("-5", 2), "`stage_ended load` with a time of -5.0 s, which cannot be");
        assert!(of("1e308", 2).ends_with("which cannot be"));
    }
}
