//! What only the engine knows, asked of the worker without running a case: what a checkpoint holds, what a plan comes to, and what the
//! processor, the disk and the GPU reach.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use engine_protocol::{Allocator, Calibration, Device, DiskRate, HostRates, Inventory, PlanReport, Request};
use serde::de::DeserializeOwned;

use super::environment::Launcher;
use super::report::ReportFile;
use crate::error::Error;
use crate::testbed::Testbed;

/// The worker's exit code for what it cannot take, after a message on standard error.
const BAD_INPUT: i32 = 2;

/// What the checkpoint in `folder` holds.
pub(crate) fn inspect(folder: &Path) -> Result<Inventory, Error> {
    ask(&[OsStr::new("inspect"), folder.as_os_str()], "")
}

/// What will live where in the case of `request`, and the predicted peaks.
pub(crate) fn plan(request: &Request) -> Result<PlanReport, Error> {
    plans(std::slice::from_ref(request))?.pop().ok_or_else(|| Error::Fault("the worker gave no plan".into()))
}

/// The same of many cases, which takes hardly longer.
pub(crate) fn plans(requests: &[Request]) -> Result<Vec<PlanReport>, Error> {
    let lines = requests.iter().map(|request| Ok(serde_json::to_string(request)? + "\n")).collect::<Result<String, serde_json::Error>>();
    let lines = lines.map_err(|error| Error::Fault(format!("a request is no JSON: {error}")))?;
    let answers = said(Launcher::find(Device::Cpu)?.host_command(), &[OsStr::new("plan")], &lines)?;
    let plans =
        serde_json::Deserializer::from_slice(&answers).into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| no_answer(&error))?;
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

/// The answer of the worker that `command` starts.
fn answer<T: DeserializeOwned>(command: Command, words: &[&OsStr], input: &str) -> Result<T, Error> {
    serde_json::from_slice(&said(command, words, input)?).map_err(|error| no_answer(&error))
}

fn no_answer(error: &serde_json::Error) -> Error {
    Error::Fault(format!("the worker's answer is none: {error}"))
}

/// What the worker that `command` starts says on standard output.
fn said(mut command: Command, words: &[&OsStr], input: &str) -> Result<Vec<u8>, Error> {
    command.args(words);
    let output = run(&mut command, input).map_err(|error| Error::Fault(format!("{}: {error}", command.get_program().display())))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(BAD_INPUT) => Err(Error::input(said)),
        _ => {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            Err(Error::Fault(format!("the worker did not answer `{}` ({}): {said}", words.join(" "), output.status)))
        }
    }
}

fn run(command: &mut Command, input: &str) -> std::io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // Beside reading: neither side waits for the other. A worker that ended without reading says why itself.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    })
}
