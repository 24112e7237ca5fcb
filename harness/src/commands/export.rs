//! `lowmem export`: a run for other programs.

use reports::{Format, Summary, write_whole};

use crate::cli::{ExportArguments, ExportFormat};
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Writes the run as the format says, into a file or on standard output.
pub(crate) fn run(arguments: &ExportArguments) -> Result<ExitCode, Error> {
    let run = reports::load(&arguments.run_dir)?;
    let format = match arguments.format {
        ExportFormat::Md => Format::Markdown,
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Json => Format::Json,
        ExportFormat::Sql => Format::Sql,
        ExportFormat::Parquet if arguments.out.is_none() => {
            return Err(Error::input("--format parquet is no text for a terminal: name a file with --out"));
        }
        ExportFormat::Parquet => Format::Parquet,
        ExportFormat::Timeline => Format::Timeline,
    };
    let bytes = reports::export(&Summary::of(&run), format)?;
    match &arguments.out {
        Some(path) => {
            write_whole(path, &bytes).map_err(|error| Error::io(path, error))?;
            tell!("{} cases: {}", run.records.len(), path.display());
        }
        None => crate::print::exact(&mut std::io::stdout(), &bytes),
    }
    Ok(ExitCode::Done)
}
