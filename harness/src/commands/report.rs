//! `lowmem report`.

use reports::Run;

use super::sweep;
use crate::cli::ReportArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Writes the report of a run directory anew, from its manifest and its records.
pub(crate) fn run(arguments: &ReportArguments) -> Result<ExitCode, Error> {
    let run = Run::load(&arguments.run_dir)?;
    reports::write(&run, &arguments.run_dir)?;
    sweep::print(&run, &arguments.run_dir.join(reports::REPORT));
    Ok(ExitCode::Done)
}
