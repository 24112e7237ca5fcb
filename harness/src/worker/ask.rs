//! What only the engine knows, asked of the worker without running a case: what a checkpoint holds, what a plan comes to, and what the
//! processor, the disk and the GPU reach.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use engine_protocol::{Allocator, Calibration, CheckpointFiles, Device, DiskRate, HostRates, Inventory, PlanReport, Request};
use serde::de::DeserializeOwned;

use super::environment::Launcher;
use super::process::{self, Bounds, End, Limits};
use super::report::ReportFile;
use crate::children::{Line, Room};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::testbed::Testbed;

/// The worker's exit code for what it cannot take, after a message on standard error.
const BAD_INPUT: i32 = 2;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(600);
/// A plan lists every group of a model, and a refusal every tensor that is missing.
const BOUNDS: Bounds = Bounds { line: 16 << 20, last_words: Room { lines: 200, bytes: 4 << 10 } };

/// What the checkpoint in `files` holds.
pub(crate) fn inspect(files: &CheckpointFiles) -> Result<Inventory, Error> {
    let files = serde_json::to_string(files).map_err(|error| Error::Fault(format!("the checkpoint's files are no JSON: {error}")))?;
    ask(&[OsStr::new("inspect")], &files)
}

/// What will live where in the case of `request`, and the predicted peaks.
pub(crate) fn plan(request: &Request) -> Result<PlanReport, Error> {
    plans(std::slice::from_ref(request))?.pop().ok_or_else(|| Error::Fault("the worker gave no plan".into()))
}

/// The same of many cases, which takes hardly longer.
pub(crate) fn plans(requests: &[Request]) -> Result<Vec<PlanReport>, Error> {
    let lines = requests.iter().map(|request| Ok(serde_json::to_string(request)? + "\n")).collect::<Result<String, serde_json::Error>>();
    let lines = lines.map_err(|error| Error::Fault(format!("a request is no JSON: {error}")))?;
    let answers = said(Launcher::find(Device::Cpu)?.host_command(), &[OsStr::new("plan")], &lines, requests.len())?;
    let plans = answers.iter().map(|line| parsed(line)).collect::<Result<Vec<_>, Error>>()?;
    if plans.len() == requests.len() { Ok(plans) } else { Err(Error::Fault("the worker left out plans".into())) }
}

/// What the processor of this machine, which is named so, reaches. It is measured, which takes a few seconds.
pub(crate) fn host_rates(processor: &str) -> Result<HostRates, Error> {
    ask(&[OsStr::new("rates"), OsStr::new(processor)], "")
}

/// What the disk gives that holds the checkpoint in `folder`. It is measured, which takes a second or two.
pub(crate) fn disk_rate(folder: &Path) -> Result<DiskRate, Error> {
    ask(&[OsStr::new("disk"), folder.as_os_str()], "")
}

/// What the GPU of `testbed` reaches. It is measured, which takes some seconds.
pub(crate) fn calibrate(launcher: &Launcher, testbed: &Testbed) -> Result<Calibration, Error> {
    let report = ReportFile::new()?;
    answer(launcher.command(testbed, Allocator::Native, report.path())?, &[OsStr::new("calibrate")], "")
}

/// The worker's answer to `words` and `input`.
fn ask<T: DeserializeOwned>(words: &[&OsStr], input: &str) -> Result<T, Error> {
    answer(Launcher::find(Device::Cpu)?.host_command(), words, input)
}

/// The answer of the worker that `command` starts: its last line.
fn answer<T: DeserializeOwned>(command: Command, words: &[&OsStr], input: &str) -> Result<T, Error> {
    parsed(said(command, words, input, 1)?.last().map_or("", String::as_str))
}

fn parsed<T: DeserializeOwned>(line: &str) -> Result<T, Error> {
    serde_json::from_str(line).map_err(|error| Error::Fault(format!("the worker's answer is none: {error}")))
}

/// The last lines, `most` at most, that the worker that `command` starts says on standard output.
fn said(mut command: Command, words: &[&OsStr], input: &str, most: usize) -> Result<Vec<String>, Error> {
    command.args(words);
    let mut said = VecDeque::new();
    let mut on_line = |line: &Line| {
        if said.len() == most {
            said.pop_front();
        }
        said.push_back(line.text.clone());
        ControlFlow::Continue(())
    };
    let ended = process::run(
        &command,
        input.to_owned(),
        Limits { time: Some(LIMIT), interrupt: Interrupt, is_over: &|| false },
        BOUNDS,
        &mut on_line,
    )?;
    let last_words = ended.last_words.join("\n").trim().to_owned();
    match ended.end {
        End::Exited(0) => Ok(said.into()),
        End::Interrupted => Err(Error::Interrupted),
        End::Exited(BAD_INPUT) => Err(Error::input(last_words)),
        end => {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            Err(Error::Fault(format!("the worker did not answer `{}` ({end}): {last_words}", words.join(" "))))
        }
    }
}
