//! `lowmem report`.

use reports::Summary;

use super::run_answer;
use crate::cli::ReportArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Writes the report of a run directory anew, from its manifest and its records.
pub(crate) fn run(arguments: &ReportArguments) -> Result<ExitCode, Error> {
    let run = reports::load(&arguments.run_dir)?;
    let summary = Summary::of(&run);
    reports::write(&summary, &arguments.run_dir)?;
    run_answer::tell(&summary, &arguments.run_dir, arguments.form)?;
    Ok(ExitCode::Done)
}
