//! `lowmem completions` and `lowmem man`: what shells and `man` are told of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Arguments;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Prints a shell's completions.
pub(crate) fn run(shell: Shell) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lowmem", &mut script);
    say!("{}", String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::Done)
}

/// Writes a page for `man` of lowmem and of each command into a folder.
pub(crate) fn write_pages(folder: &Path) -> Result<ExitCode, Error> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .map_err(|error| Error::io(folder, error))?;
    Ok(ExitCode::Done)
}
