//! `lowmem validate`: programs that are not ours on the virtual GPU, against figures that others have published.

mod case;
mod program;
mod verdict;

use engine_protocol::{Secs, gib};
use schemars::JsonSchema;
use serde::Serialize;

use self::case::Case;
use self::program::{Outcome, Programs};
use self::verdict::Verdict;
use super::table;
use crate::cli::ValidateArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;
use crate::json;

/// The figures that are held against the virtual GPU where no others are named.
const PUBLISHED: &str = "published.csv";

/// Runs each row's program on the row's GPU, and says how far what it counted is from what was published.
pub(crate) fn run(arguments: &ValidateArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    let named = arguments.cases.as_ref().map_or(PUBLISHED.into(), |path| path.to_string_lossy());
    let file = data::find(&named)?.ok_or_else(|| Error::input(format!("{named}: no such file, and none of ours of that name")))?;
    let cases = case::read(&file, &profiles)?;
    let programs = Programs::find(arguments)?;

    let mut verdict = Verdict::default();
    let mut outcomes = Vec::new();
    for case in &cases {
        tell!("lowmem: line {}: {} on {}", case.line, case.title(), case.profile.name);
        let outcome = programs.run(case)?;
        verdict.add(case, &outcome);
        outcomes.push((case, outcome));
    }
    if arguments.json {
        json::print(&outcomes.iter().map(|(case, outcome)| RowJson::new(case, outcome, arguments.times)).collect::<Vec<_>>())?;
        return Ok(verdict.exit_code());
    }
    let [published, counted] = if arguments.times { ["published", "modelled"] } else { ["published GiB", "virtual GiB"] };
    let mut table = table(&["model", "task", "GPU", "size", "options", published, counted, "error"], &[5, 6, 7]);
    for (case, outcome) in &outcomes {
        table.add_row(row(case, outcome, arguments.times));
    }
    say!("{table}");
    say!("{}", if arguments.times { TIMES } else { PEAKS });
    verdict.say();
    Ok(verdict.exit_code())
}

/// A published figure, and what the virtual GPU makes of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Row")]
pub(crate) struct RowJson {
    /// Where it stands in its file.
    line: u64,
    model: String,
    task: String,
    gpu: String,
    width: u32,
    height: u32,
    frames: u32,
    options: Vec<String>,
    published_peak_gib: Option<f64>,
    published_total_secs: Option<f64>,
    /// The peak of allocated memory on the virtual GPU.
    peak_allocated_bytes: Option<u64>,
    /// With --times, what its clock says.
    total_secs: Option<Secs>,
    /// How far that is from what was published, in percent.
    error_percent: Option<f64>,
    /// Why it was not run.
    skipped: Option<String>,
    /// Why it failed.
    failed: Option<String>,
}

impl RowJson {
    fn new(case: &Case, outcome: &Outcome, times: bool) -> Self {
        let (ran, skipped, failed) = match outcome {
            Outcome::Ran { peak_allocated_bytes, secs, .. } => (Some((*peak_allocated_bytes, *secs)), None, None),
            Outcome::Skipped(why) => (None, Some(why.clone()), None),
            Outcome::Failed(why) => (None, None, Some(why.clone())),
        };
        let total_secs = ran.and_then(|(_, secs)| secs);
        let error_percent = match (total_secs, ran) {
            (Some(secs), _) => case.time_error_percent(secs),
            (None, Some((bytes, _))) if !times => case.peak_error_percent(bytes),
            _ => None,
        };
        Self {
            line: case.line,
            model: case.model.clone(),
            task: case.task.clone(),
            gpu: case.profile.name.clone(),
            width: case.width,
            height: case.height,
            frames: case.frames,
            options: case.options.clone(),
            published_peak_gib: case.peak_gib,
            published_total_secs: case.total_secs,
            peak_allocated_bytes: ran.map(|(bytes, _)| bytes),
            total_secs,
            error_percent,
            skipped,
            failed,
        }
    }
}

const PEAKS: &str =
    "Published: peak of allocated memory (max_memory_allocated). Virtual: the same counter on the virtual GPU, where nothing is computed.";
const TIMES: &str = "Published: total time. Modelled: by the virtual GPU's clock, from prompt to video, with its two ends; a few steps are run and count for all. Loading \
                     is not in it, nor is a text encoder on the CPU, whose machine was not published.";

fn row(case: &Case, outcome: &Outcome, times: bool) -> [String; 8] {
    let (counted, error) = match outcome {
        Outcome::Ran { secs: Some(secs), .. } => {
            (reports::time_with_range(*secs), case.time_error_percent(*secs).map(|error| format!("{error:+.1}%")))
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
        published.map(|figure| if times { reports::time(figure) } else { figure.to_string() }).unwrap_or_default(),
        counted,
        error.unwrap_or_default(),
    ]
}
