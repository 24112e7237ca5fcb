//! `lowmem report`.

use reports::Summary;

use super::run_answer;
use crate::cli::ReportArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::live::Live;
use crate::web::Address;

/// Writes the report of a run directory anew, from its manifest and its records. With `--serve` its page follows what another process adds to them.
pub(crate) fn run(arguments: &ReportArguments) -> Result<ExitCode, Error> {
    let run = reports::load(&arguments.run_dir)?;
    let address = arguments.serve.wanted().map(Address::of_page).transpose()?;
    let summary = Summary::of(&run);
    reports::write(&summary, &arguments.run_dir)?;
    run_answer::tell(&summary, &arguments.run_dir, arguments.form)?;
    if let Some(address) = address {
        let interrupt = Interrupt::listen()?;
        Live::follow(address, &arguments.run_dir)?.stay(interrupt);
    }
    Ok(ExitCode::Done)
}
