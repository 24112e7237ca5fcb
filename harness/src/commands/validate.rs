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
use crate::data::{self, DataFile};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;

/// The figures that are held against the virtual GPU where no others are named.
const PUBLISHED: &str = "published.csv";

/// Runs each row's program on the row's GPU, and says how far what it counted is from what was published.
pub(crate) fn run(arguments: &ValidateArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    let file = match &arguments.cases {
        Some(path) => DataFile { path: path.clone(), text: data::read(path)?.into() },
        None => {
            data::find(PUBLISHED)?.ok_or_else(|| Error::input(format!("{PUBLISHED} is not there: name a file of published figures")))?
        }
    };
    let cases = case::read(&file, &profiles)?;
    let programs = Programs::find(arguments)?;

    let [published, counted] = if arguments.times { ["published s", "modelled s"] } else { ["published GiB", "virtual GiB"] };
    let mut table = table(&["model", "task", "GPU", "size", "options", published, counted, "error"], &[5, 6, 7]);
    let mut verdict = Verdict::default();
    for case in &cases {
        tell!("lowmem: line {}: {} on {}", case.line, case.title(), case.profile.name);
        let outcome = programs.run(case)?;
        table.add_row(row(case, &outcome, arguments.times));
        verdict.add(case, &outcome);
    }
    say!("{table}");
    say!("{}", if arguments.times { TIMES } else { PEAKS });
    verdict.say();
    Ok(verdict.exit_code())
}

const PEAKS: &str =
    "Published: peak of allocated memory (max_memory_allocated). Virtual: the same counter on the virtual GPU, where nothing is computed.";
const TIMES: &str = "Published: total time. Modelled: by the virtual GPU's clock, from prompt to video, with its two ends; a few steps are run and count for all. Loading \
                     is not in it, nor is a text encoder on the CPU, whose machine was not published.";

fn row(case: &Case, outcome: &Outcome, times: bool) -> [String; 8] {
    let (counted, error) = match outcome {
        Outcome::Ran { secs: Some(secs), .. } => {
            (reports::secs_in_words(*secs), case.time_error_percent(*secs).map(|error| format!("{error:+.1}%")))
        }
        Outcome::Ran { peak_allocated_bytes, .. } => (
            format!("{:.2}", gib(*peak_allocated_bytes)),
            case.peak_error_percent(*peak_allocated_bytes).map(|error| format!("{error:+.2}%")),
        ),
        Outcome::Skipped(_) => (String::new(), Some("skipped".into())),
        Outcome::Failed(_) => (String::new(), Some("failed".into())),
    };
    let published = if times { case.total_secs } else { case.peak_gib };
    [
        case.model.clone(),
        case.task.clone(),
        case.profile.name.clone(),
        format!("{}x{}x{}", case.width, case.height, case.frames),
        case.options.join(" "),
        published.map(|figure| figure.to_string()).unwrap_or_default(),
        counted,
        error.unwrap_or_default(),
    ]
}
