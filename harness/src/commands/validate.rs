//! `lowmem validate`: programs that are not ours on the virtual GPU, against figures that others have published.

mod case;
mod program;
mod verdict;

use engine_protocol::gib;

use self::case::Case;
use self::program::{Outcome, Programs};
use self::verdict::Verdict;
use super::table;
use crate::cli::ValidateArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;

/// Runs each row's program on the row's GPU, and says how far what it counted is from what was published.
pub(crate) fn run(arguments: &ValidateArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    let path = arguments.cases.clone().unwrap_or_else(|| data::root().join("sweeps/published.csv"));
    let cases = case::read(&path, &profiles)?;
    let programs = Programs::find(arguments)?;

    let titles = ["model", "task", "GPU", "size", "options", "published GiB", "virtual GiB", "error"];
    let mut table = table(&titles, &[5, 6, 7]);
    let mut verdict = Verdict::default();
    for case in &cases {
        tell!("lowmem: line {}: {} on {}", case.line, case.title(), case.profile.name);
        let outcome = programs.run(case)?;
        table.add_row(row(case, &outcome));
        verdict.add(case, &outcome);
    }
    say!("{table}");
    say!(
        "Published: peak of allocated memory (max_memory_allocated). Virtual: the same counter on the virtual GPU, where nothing is computed."
    );
    verdict.say();
    Ok(verdict.exit_code())
}

fn row(case: &Case, outcome: &Outcome) -> [String; 8] {
    let (peak, error) = match outcome {
        Outcome::Ran { peak_allocated_bytes, .. } => {
            let error = case.error_percent(*peak_allocated_bytes).map(|error| format!("{error:+.2}%"));
            (format!("{:.2}", gib(*peak_allocated_bytes)), error.unwrap_or_default())
        }
        Outcome::Skipped(_) => (String::new(), "skipped".into()),
        Outcome::Failed(_) => (String::new(), "failed".into()),
    };
    [
        case.model.clone(),
        case.task.clone(),
        case.profile.name.clone(),
        format!("{}x{}x{}", case.width, case.height, case.frames),
        case.options.join(" "),
        case.peak_gib.map(|peak| peak.to_string()).unwrap_or_default(),
        peak,
        error,
    ]
}
