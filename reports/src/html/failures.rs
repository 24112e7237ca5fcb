//! Cases that did not come to their end, grouped by cause: what they said last, and the command that runs them again.

use engine_protocol::{Outcome, RunRecord, gib};

use crate::advice::host_remedies;
use crate::command::shell_line;
use crate::run::Run;
use crate::verdict::need;

/// Cases that are named one by one.
const FEW_CASES: usize = 12;
/// Lines of what a case said that are shown.
const LAST_LINES: usize = 12;

/// Cases with one cause.
pub(super) struct Failure<'a> {
    /// What came of them: `out of memory in load`.
    pub cause: String,
    pub class: &'static str,
    pub cases: Vec<&'a str>,
    /// How many more there are.
    pub more: usize,
    /// What to know or to do.
    pub advice: String,
    /// The last lines of what the first of them said.
    pub last: String,
}

/// The causes: those to look into first, then the most cases.
pub(super) fn groups(run: &Run) -> Vec<Failure<'_>> {
    let mut found: Vec<(String, Vec<&RunRecord>)> = Vec::new();
    for record in run.records.iter().filter(|record| record.outcome != Outcome::Ok) {
        let cause = cause(record);
        match found.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, records)) => records.push(record),
            None => found.push((cause, vec![record])),
        }
    }
    found.sort_by_key(|(_, records)| (records[0].outcome.is_answer(), std::cmp::Reverse(records.len())));
    found.into_iter().map(|(cause, records)| group(cause, &records)).collect()
}

fn cause(record: &RunRecord) -> String {
    let what = match record.outcome {
        Outcome::Ok => "ok",
        Outcome::Oom => "out of the GPU's memory",
        Outcome::OomHost => "out of the machine's own memory",
        Outcome::Failed => "failed",
        Outcome::Crashed => "crashed",
        Outcome::Killed => "killed",
        Outcome::Timeout => "took too long",
    };
    let stage = record.failed_stage.map(|stage| format!(" in {}", stage.name())).unwrap_or_default();
    let said = record.error.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
    // Figures differ from case to case and are not the cause.
    let said: String = said.chars().filter(|c| !c.is_ascii_digit()).take(120).collect();
    if record.outcome.is_answer() || said.is_empty() { format!("{what}{stage}") } else { format!("{what}{stage}: {}", said.trim()) }
}

fn group<'a>(cause: String, records: &[&'a RunRecord]) -> Failure<'a> {
    let needs: Vec<_> = records.iter().filter_map(|record| need(record)).collect();
    let word = if needs.iter().all(|need| need.is_whole) { "about" } else { "at least" };
    let bytes = || needs.iter().map(|need| need.bytes);
    let advice = match records[0].outcome {
        Outcome::Oom => match (bytes().min(), bytes().max()) {
            (Some(least), Some(most)) if least < most => format!("They need {word} {:.2} to {:.2} GiB.", gib(least), gib(most)),
            (Some(least), _) => format!("It takes {word} {:.2} GiB.", gib(least)),
            _ => String::new(),
        },
        Outcome::OomHost => format!("{}.", host_remedies(records[0])),
        _ => String::new(),
    };
    let said = records[0].error.as_deref().unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    Failure {
        cause,
        class: if records[0].outcome.is_answer() { "oom" } else { "failure" },
        cases: records.iter().take(FEW_CASES).map(|record| record.case.as_str()).collect(),
        more: records.len().saturating_sub(FEW_CASES),
        advice,
        last: lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"),
    }
}

/// The command that runs again what did not come to a lasting end, in the folder where the run was begun; nothing for a run that no sweep made.
pub(super) fn again(run: &Run) -> Option<String> {
    let words = &run.manifest.command_line;
    let has = |word: &str| words.iter().any(|other| other == word);
    let is_left = run.missing() > 0 || run.records.iter().any(|record| !record.outcome.is_lasting());
    if !is_left || !has("sweep") {
        return None;
    }
    let out = (!words.iter().any(|word| word == "--out" || word.starts_with("--out="))).then_some(["--out", "RUN"]).into_iter().flatten();
    let resume = (!has("--resume")).then_some("--resume");
    let first = ["lowmem".to_owned()].into_iter();
    Some(shell_line(first.chain(words.iter().skip(1).cloned()).chain(out.chain(resume).map(str::to_owned))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn cases_with_one_cause_are_one_group_and_figures_are_no_cause() {
        let failed = |case: &str, error: &str| {
            let mut record = samples::ok(case, 1, 5);
            (record.outcome, record.error) = (Outcome::Failed, Some(error.into()));
            record
        };
        let mut records = vec![samples::oom("a", 0, 20), samples::oom("b", 0, 21), samples::oom("c", 0, 21)];
        records.extend([failed("d", "no kernel 7"), failed("e", "no kernel 12\nsecond"), failed("f", "other")]);
        let run = samples::run(records);
        let groups = groups(&run);
        let told: Vec<_> = groups.iter().map(|group| (group.cause.as_str(), group.cases.len())).collect();
        assert_eq!(told, [("failed: no kernel", 2), ("failed: other", 1), ("out of the GPU's memory in denoise", 3)]);
        assert_eq!(groups[2].advice, "They need at least 31.00 to 32.00 GiB.");
        assert_eq!(again(&run).as_deref(), Some("lowmem sweep --out RUN --resume"));
    }
}
