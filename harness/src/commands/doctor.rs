//! `lowmem doctor`: what of this machine keeps videos from fitting or makes them slow, and what to do.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::DoctorArguments;
use crate::doctor::{Check, Facts, State, checks};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{json, print};

/// What to try where all is well and a video is not: the questions of people, each with the command that answers it.
const NEXT: [(&str, &str); 4] = [
    ("It runs out of GPU memory", "lowmem autotune --model NAME --resolution SIZE"),
    ("It runs out of RAM", "lowmem autotune --model NAME --ram 32GB"),
    ("It is slow", "lowmem profile model=NAME low_mem_level=3"),
    ("Another program runs out", "lowmem on 24GB -- PROGRAM"),
];

/// Looks at this machine and says what it found.
pub(crate) fn run(arguments: &DoctorArguments) -> Result<ExitCode, Error> {
    let checks = checks(&Facts::here(&arguments.python));
    let is_bad = checks.iter().any(|check| check.state == State::Bad);
    if arguments.json {
        json::print(&checks.iter().map(CheckJson::of).collect::<Vec<_>>())?;
    } else {
        for check in &checks {
            print::prose("", &format!("{:<5} {}: {}.", check.state.word(), check.what, check.found));
            if let Some(advice) = &check.advice {
                print::prose("      ", &format!("{advice}."));
            }
        }
        say!("\nAnd where something is wrong all the same:");
        NEXT.iter().for_each(|(what, command)| say!("  {what:<26} {command}"));
    }
    Ok(if is_bad { ExitCode::Fault } else { ExitCode::Done })
}

/// One thing that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Check")]
pub(crate) struct CheckJson {
    /// What it is about.
    what: String,
    /// `ok`, `?` where nobody says, `mind` where it costs time or memory, `bad` where nothing works with it.
    state: String,
    /// What was found.
    found: String,
    /// What to do.
    advice: Option<String>,
}

impl CheckJson {
    fn of(check: &Check) -> Self {
        Self { what: check.what.to_owned(), state: check.state.word().to_owned(), found: check.found.clone(), advice: check.advice.clone() }
    }
}
