//! `lowmem` as a program of `lowmem on`: what would need a GPU of its own there is refused, since nobody could say which of the two virtual GPUs was measured.

use std::env;
use std::process::Command;

use crate::cli;
use crate::error::Error;

/// In the environment of every program of `lowmem on`, the GPU that it is on.
const ON: &str = "LOWMEM_ON";

/// Tells the program, and all that it starts, that it is on this GPU.
pub(crate) fn mark(command: &mut Command, gpu: &str) {
    command.env(ON, gpu);
}

/// Refuses a command that runs or measures something, where this is a program of `lowmem on`.
pub(crate) fn check(command: &cli::Command) -> Result<(), Error> {
    let name = match command {
        cli::Command::Advise(_) => "advise",
        cli::Command::Max(_) => "max",
        cli::Command::Cards(_) => "cards",
        cli::Command::Sweep(_) => "sweep",
        cli::Command::Autotune(_) => "autotune",
        cli::Command::Generate(_) => "generate",
        cli::Command::Quality(_) => "quality",
        cli::Command::Plan(_) => "plan",
        cli::Command::Profile(_) => "profile",
        cli::Command::Calibrate(_) => "calibrate",
        cli::Command::On(_) => "on",
        cli::Command::Validate(_) => "validate",
        cli::Command::Report(_)
        | cli::Command::Compare(_)
        | cli::Command::Merge(_)
        | cli::Command::Export(_)
        | cli::Command::History(_)
        | cli::Command::Doctor(_)
        | cli::Command::Monitor(_)
        | cli::Command::Snapshot(_)
        | cli::Command::FillTables(_)
        | cli::Command::Gpus(_)
        | cli::Command::Models(_)
        | cli::Command::Flags(_)
        | cli::Command::Schema { .. }
        | cli::Command::Setup
        | cli::Command::Completions { .. }
        | cli::Command::Man { .. } => return Ok(()),
    };
    match env::var_os(ON) {
        Some(gpu) => Err(Error::input(format!(
            "`lowmem {name}` cannot run in a program of `lowmem on {}`: it chooses a GPU itself, and what it used would be in neither report. Run it by \
             itself, or unset {ON} if this is no such program",
            gpu.display()
        ))),
        None => Ok(()),
    }
}
