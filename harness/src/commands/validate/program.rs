//! The programs behind the rows: scripts of ours over packages that are not, run as `lowmem on` runs a program.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{env, io};

use engine_protocol::Secs;
use virtual_gpu_protocol::environment::MOST_DEVICES;

use super::case::Case;
use crate::children::{Room, last_words};
use crate::cli::ValidateArguments;
use crate::commands::on::{GRACE, on_virtual_gpu};
use crate::data;
use crate::error::Error;
use crate::worker::{EventOrder, Guise, VISIBLE_DEVICES};

/// By what a row calls it.
const SCRIPTS: [(&str, &str); 1] = [("wan", include_str!("wan.py"))];
/// What a script ends with where it cannot run what is asked for; the reason is the last line that it wrote.
const CANNOT: i32 = 3;
/// A script says what came of it last.
const ROOM: Room = Room { lines: 12, bytes: 4 << 10 };
/// Why there are no times with another PyTorch.
const NO_OBSERVER: &str = "times need the PyTorch that lowmem is built with, and --python has another";
/// The interpreter that the PyTorch of `make setup` is for.
const PYTHON: &str = "python3.11";

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// It ran to its end.
    Ran {
        peak_allocated_bytes: u64,
        /// From prompt to video, by the virtual GPU's clock, where that was asked for.
        secs: Option<Secs>,
        /// Memory ran out in pieces that were too small; this is what it took with PyTorch's expandable segments.
        expandable: bool,
    },
    /// There is no program for it.
    Skipped(String),
    /// It did not end well.
    Failed(String),
}

/// What runs programs.
pub(super) struct Programs {
    python: String,
    path: Option<OsString>,
    /// Folders of Wan's official code.
    wan: Vec<PathBuf>,
    /// Whether times are compared, and not peaks.
    times: bool,
}

impl Programs {
    /// Finds the interpreter: one that was named, with its own packages; else the one that PyTorch was fetched for, with packages that are fetched once.
    pub(super) fn find(arguments: &ValidateArguments) -> Result<Self, Error> {
        if let Some(missing) = arguments.wan.iter().find(|folder| !folder.is_dir()) {
            return Err(Error::input(format!("--wan {}: there is no such folder", missing.display())));
        }
        let (wan, times) = (arguments.wan.clone(), arguments.times);
        let own_path = env::var_os("PYTHONPATH").filter(|path| !path.is_empty());
        if let Some(python) = &arguments.python {
            return Ok(Self { python: python.clone(), path: own_path, wan, times });
        }
        let fetched = fetched_packages()?;
        let path = env::join_paths(fetched.into_iter().chain(own_path.iter().flat_map(env::split_paths)));
        let path = path.map_err(|error| Error::Fault(format!("no path for Python: {error}")))?;
        Ok(Self { python: PYTHON.into(), path: Some(path), wan, times })
    }

    /// Runs the row's program, if there is one.
    pub(super) fn run(&self, case: &Case) -> Result<Outcome, Error> {
        let Some((_, script)) = SCRIPTS.iter().find(|(name, _)| *name == case.program) else {
            return Ok(Outcome::Skipped(format!("there is no program `{}`", case.program)));
        };
        let missing = match self.times {
            true => case.total_secs.is_none().then_some("no time was published"),
            false => case.peak_gib.is_none().then_some("no peak of memory was published"),
        };
        if let Some(missing) = missing {
            return Ok(Outcome::Skipped(missing.into()));
        }
        if case.gpus > MOST_DEVICES {
            return Ok(Outcome::Skipped(format!("it ran on {} GPUs, and {MOST_DEVICES} are the most here", case.gpus)));
        }
        if case.program == "wan" && self.wan.is_empty() {
            return Ok(Outcome::Skipped("the official code is needed: --wan DIR".into()));
        }
        Ok(match self.run_script(script, case, false)? {
            Ended::Outcome(outcome) => outcome,
            Ended::RanOut => match self.run_script(script, case, true)? {
                Ended::Outcome(outcome) => outcome,
                Ended::RanOut => Outcome::Failed("it does not fit".into()),
            },
        })
    }

    fn run_script(&self, script: &str, case: &Case, expandable: bool) -> Result<Ended, Error> {
        let guise = Guise { devices: case.gpus as u16, masks_name: false, is_strict: false, goes_beyond: false, events: EventOrder::Clock };
        let (ended, need) = on_virtual_gpu(&self.words(script, case), self.path.clone(), &case.profile, guise, |command| {
            // The user's own would be in no row.
            command
                .env_remove("PYTORCH_ALLOC_CONF")
                .env_remove("PYTORCH_CUDA_ALLOC_CONF")
                .env_remove(VISIBLE_DEVICES)
                .env("PYTHONDONTWRITEBYTECODE", "1");
            if expandable {
                command.env("PYTORCH_ALLOC_CONF", "expandable_segments:True");
            }
            end(command, &self.python)
        })?;
        let (status, printed, said) = ended;
        let secs = self.times.then(|| times(&printed)).flatten();
        if !need.unreadable.is_empty() {
            return Ok(Ended::Outcome(Outcome::Failed(format!("reports that cannot be read: {}", need.unreadable.join("; ")))));
        }
        Ok(match (status.code(), need.peak_allocated_bytes()) {
            (Some(0), Some(_)) if self.times && !need.tells_work() => Ended::Outcome(Outcome::Skipped(NO_OBSERVER.into())),
            (Some(0), Some(_)) if self.times && secs.is_none() => Ended::Outcome(Outcome::Failed("it told no time".into())),
            (Some(0), Some(peak_allocated_bytes)) => Ended::Outcome(Outcome::Ran { peak_allocated_bytes, secs, expandable }),
            (Some(0), None) => Ended::Outcome(Outcome::Failed("it did not use the GPU".into())),
            (Some(CANNOT), _) => Ended::Outcome(Outcome::Skipped(last_line(&said))),
            (Some(_), _) if need.ran_out() => Ended::RanOut,
            (Some(code), _) => Ended::Outcome(Outcome::Failed(format!("exit code {code}: {}", last_line(&said)))),
            (None, _) => Ended::Outcome(Outcome::Failed(format!("ended by signal {}", status.signal().unwrap_or_default()))),
        })
    }

    fn words(&self, script: &str, case: &Case) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.python.clone().into(), "-c".into(), script.into()];
        if case.program == "wan" {
            words.extend(self.wan.iter().flat_map(|folder| ["--wan".into(), folder.clone().into()]));
        }
        let numbers = [("--width", case.width), ("--height", case.height), ("--frames", case.frames), ("--gpus", case.gpus)];
        words.extend(["--model", &case.model, "--task", &case.task].map(Into::into));
        words.extend(numbers.iter().flat_map(|(name, number)| [OsString::from(name), number.to_string().into()]));
        if self.times {
            words.extend(["--times", "--steps", &case.steps.to_string()].map(Into::into));
        }
        words.extend(case.options.iter().map(Into::into));
        words
    }
}

/// How a script ended.
enum Ended {
    Outcome(Outcome),
    /// For want of memory.
    RanOut,
}

/// Runs it to its end, and gives the last that it wrote to standard output and to standard error.
fn end(command: &Command, python: &str) -> Result<(ExitStatus, String, String), Error> {
    let ended = last_words(command, GRACE, ROOM).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::input(format!("--python {python}: there is no such program")),
        _ => Error::input(format!("{python}: could not be started: {error}")),
    })?;
    let (status, [printed, said]) = ended;
    Ok((status, printed.join("\n"), said.join("\n")))
}

/// What a script that is asked for times prints last: at least, most likely, at most.
fn times(printed: &str) -> Option<Secs> {
    let [low, expected, high] = serde_json::from_str(&last_line(printed)).ok()?;
    Some(Secs { low, expected, high })
}

/// The folders of the packages that `setup/python-packages.sh` fetches, and of PyTorch.
fn fetched_packages() -> Result<[PathBuf; 2], Error> {
    let script = Path::new("setup/python-packages.sh");
    let advice = "name a Python with PyTorch for CUDA 13 by --python, or run it in a checkout of lowmem after `make build`";
    if !data::is_checkout() {
        return Err(Error::input(format!("there is no Python with the programs' packages: {advice}")));
    }
    let ended = last_words(&Command::new(script), Duration::ZERO, ROOM);
    let (status, [printed, said]) = ended.map_err(|error| Error::input(format!("{}: {error}: {advice}", script.display())))?;
    if !status.success() {
        return Err(Error::input(format!("{}: {advice}", last_line(&said.join("\n")))));
    }
    let torch = Path::new(".libtorch/torch");
    let torch = torch.canonicalize().map_err(|error| Error::input(format!("{}: {error}: {advice}", torch.display())))?;
    Ok([PathBuf::from(last_line(&printed.join("\n"))), torch.parent().map(Path::to_owned).unwrap_or_default()])
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}
