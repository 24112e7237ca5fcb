//! The command line: the commands, each with its arguments (`arguments`), and the options that several of them have (`options`).

mod arguments;
mod options;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use engine_protocol::parse_setting;
use serde_json::Value;

pub(crate) use arguments::{
    AdviseArguments, AutotuneArguments, CalibrateArguments, CardsArguments, CompareArguments, DoctorArguments, ExportArguments,
    ExportFormat, FillTablesArguments, FlagsArguments, GenerateArguments, HistoryArguments, MaxArguments, MergeArguments, ModelsArguments,
    ModelsCommand, MonitorArguments, OnArguments, PlanArguments, ProfileArguments, QualityArguments, ReportArguments, SnapshotArguments,
    SweepArguments, ValidateArguments,
};
pub(crate) use options::{DeviceArguments, FormArguments, ListArguments, VideoArguments};

use crate::exit_code::ExitCode;

/// Runs video diffusion in as little GPU memory as can be, and measures every memory setting.
#[derive(Debug, Parser)]
#[command(name = "lowmem", version)]
#[command(after_help = ExitCode::help())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say for each model how it runs on this machine, or on one that is named: what `lowmem` alone does
    Advise(AdviseArguments),
    /// Find the largest video that fits: the largest size, or with --resolution the most frames
    Max(MaxArguments),
    /// One video on many GPUs, side by side: level, memory, time, and with --prices what it costs
    Cards(CardsArguments),
    /// Run every case of a sweep definition and write a report
    Sweep(SweepArguments),
    /// Find the best memory level for a budget
    Autotune(AutotuneArguments),
    /// Make a video
    Generate(Box<GenerateArguments>),
    /// Print what will live where and the predicted peaks, before anything is allocated
    Plan(PlanArguments),
    /// Show where the time of one configuration goes, operation by operation, and what holds it up
    Profile(ProfileArguments),
    /// Measure what the GPU reaches, for later predictions of times and memory; on the virtual GPU, check that it gives back its profile
    Calibrate(CalibrateArguments),
    /// Run any program, unchanged, on a virtual GPU and say what it needed
    On(OnArguments),
    /// Hold the virtual GPU against peaks of memory and times that others have published
    Validate(ValidateArguments),
    /// Put runs of parts of a sweep together
    Merge(MergeArguments),
    /// Hold two runs against each other, case by case; with --fail-above for CI
    Compare(CompareArguments),
    /// Say what the cases of a run that give up quality cost of it: PSNR and SSIM of their videos
    Quality(QualityArguments),
    /// Write the report of a run directory anew, from its records
    Report(ReportArguments),
    /// Write a run as CSV, Markdown, JSON, SQL or Parquet, for other programs
    Export(ExportArguments),
    /// List the runs of a folder, the oldest first, with what was recommended and what changed
    History(HistoryArguments),
    /// Look at this machine: who holds GPU memory, driver, link, clocks, RAM, page-locking; and what to do
    Doctor(DoctorArguments),
    /// Watch the GPUs: memory, load, heat, power and clocks, on a terminal, as CSV or JSON, or for Prometheus
    Monitor(MonitorArguments),
    /// Read a memory snapshot of PyTorch: the peak, who held it, and fragmentation
    Snapshot(SnapshotArguments),
    /// Fill what is "to be tested" in a Markdown document from runs, each figure with where it is from
    FillTables(FillTablesArguments),
    /// List the GPU profiles, and the real GPUs that are here
    Gpus(ListArguments),
    /// List the models, or look into a checkpoint
    Models(ModelsArguments),
    /// List the flags of a configuration, or say all about one
    Flags(FlagsArguments),
    /// Print the JSON schema of what a command prints with --json, or list those commands
    Schema {
        /// The command: `plan`, `models inspect`
        of: Option<String>,
    },
    /// Fetch PyTorch, once: what an unpacked archive needs before anything else
    Setup,
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the pages for `man`, for those who make packages
    #[command(hide = true)]
    Man {
        /// Folder for them
        folder: PathBuf,
    },
}

impl Default for Command {
    fn default() -> Self {
        Self::Advise(AdviseArguments::default())
    }
}

/// What a flag of a configuration that was written as an option should be: `low_mem_level=3` for `--low-mem-level=3`. None where no flag is meant.
pub(crate) fn as_setting(error: &clap::Error) -> Option<String> {
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let key = option.trim_start_matches('-').split('=').next()?.replace('-', "_");
    let key = engine_protocol::flag(&key).ok()?.key;
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let at = words.iter().position(|word| word.split('=').next() == Some(option))?;
    let after = words.get(at + 1).filter(|next| !next.starts_with('-')).map(String::as_str);
    let value = words[at].split_once('=').map(|(_, value)| value).or(after).unwrap_or("VALUE");
    Some(format!("{option} is no option: write {key}={value}"))
}

/// Settings of `key=value` words.
pub(crate) fn settings(words: &[String]) -> Result<Vec<(String, Value)>, crate::error::Error> {
    Ok(words.iter().map(|word| parse_setting(word)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
