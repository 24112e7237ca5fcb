//! lowmem: measures every memory setting of a video diffusion model and tells which one to use.

#[macro_use]
mod print;

mod appended_file;
mod autos;
mod autotune;
#[cfg(test)]
mod bare_record;
mod calibration;
mod calibration_runs;
mod children;
mod cli;
mod commands;
mod data;
mod disk;
mod doctor;
mod error;
mod exit_code;
mod gpu_name;
mod gpu_profile;
mod gpu_watch;
mod host;
mod host_kills;
mod host_peaks;
mod host_rates;
mod interrupt;
mod json;
mod kept_rates;
mod launched;
mod live;
mod meeting;
mod model;
mod monitor;
mod nesting;
mod pcie_slot;
mod progress;
mod pytorch;
mod quality;
mod ram;
mod rank_plans;
mod real_gpu;
mod run_differences;
mod run_json;
mod run_store;
mod scratch;
mod shared_weights;
mod shares;
mod snapshot;
mod splits;
mod stand_in;
mod sweep;
mod testbed;
mod usual_sizes;
mod web;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command};
use crate::error::Error;

fn main() -> ExitCode {
    if let Some(code) = children::called() {
        return code;
    }
    if std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == commands::smi::NAME)) {
        return ending(commands::smi::run());
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match cli::as_setting(&error) {
            Some(advice) => return ending(Err::<ExitCode, _>(Error::input(advice))),
            None => error.exit(),
        },
    };
    let command = arguments.command.unwrap_or_default();
    if let Err(error) = nesting::check(&command) {
        return ending(Err::<ExitCode, _>(error));
    }
    scratch::clear_temporary();
    shared_weights::clear_left();
    let result = match command {
        // Its exit code is another program's.
        Command::On(arguments) => return ending(commands::on::run(&arguments)),
        Command::Advise(arguments) => commands::advise::run(&arguments),
        Command::Cards(arguments) => commands::cards::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Merge(arguments) => commands::merge::run(&arguments),
        Command::Max(arguments) => commands::max::run(&arguments),
        Command::Sweep(arguments) => commands::sweep::run(arguments),
        Command::Autotune(arguments) => commands::autotune::run(arguments),
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Plan(arguments) => commands::plan::run(&arguments),
        Command::Calibrate(arguments) => commands::calibrate::run(&arguments),
        Command::Profile(arguments) => commands::profile::run(&arguments),
        Command::Validate(arguments) => commands::validate::run(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Quality(arguments) => commands::quality::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::History(arguments) => commands::history::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Monitor(arguments) => commands::monitor::run(&arguments),
        Command::Snapshot(arguments) => commands::snapshot::run(&arguments),
        Command::FillTables(arguments) => commands::fill_tables::run(&arguments),
        Command::Gpus(arguments) => commands::gpus::run(&arguments),
        Command::Models(arguments) => commands::models::run(arguments),
        Command::Flags(arguments) => commands::flags::run(&arguments),
        Command::Schema { of } => commands::schema::run(of.as_deref()),
        Command::Setup => commands::setup::run(),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Man { folder } => commands::completions::write_pages(&folder),
    };
    ending(result)
}

/// What the shell is told.
fn ending(result: Result<impl Into<ExitCode>, Error>) -> ExitCode {
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            tell!("lowmem: {error}");
            error.exit_code().into()
        }
    }
}
