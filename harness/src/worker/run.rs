//! One worker, from its start to its end.

use std::ops::ControlFlow;
use std::time::Instant;

use engine_protocol::{Device, Event, Request, RunRecord};
use virtual_gpu_protocol::{ProcessReport, environment as virtual_gpu_variable};

use super::environment::Launcher;
use super::outcome::{Course, Transcript};
use super::process::{self, Bounds, End, Ended, Limits};
use super::report::ReportFile;
use crate::children::{Line, Room};
use crate::error::Error;
use crate::testbed::Testbed;

/// An event has some thousand bytes; what cannot be told in this is no event.
const BOUNDS: Bounds = Bounds { line: 256 << 10, last_words: Room { lines: 12, bytes: 1 << 10 } };

/// A worker that has ended, and what it said.
pub(super) struct Ran {
    transcript: Transcript,
    pub(super) ended: Ended,
    report: Result<Option<ProcessReport>, String>,
}

impl Ran {
    /// One of another process, of which nothing is known.
    pub(super) fn without_word() -> Self {
        let ended = Ended { end: End::Halted, is_memory_short: false, last_words: Vec::new() };
        Self { transcript: Transcript::default(), ended, report: Ok(None) }
    }

    /// The record of the case that it ran, which began then.
    pub(super) fn into_record(self, testbed: &Testbed, request: &Request, began: &str, clock: Instant) -> RunRecord {
        let course = Course { began: began.to_owned(), wall_secs: clock.elapsed().as_secs_f64() };
        self.transcript.into_record(testbed, request, &self.ended, self.report, course)
    }

    /// Whether it did all that it was asked for.
    pub(super) fn is_well(&self) -> bool {
        self.transcript.is_finished() && self.ended.end == End::Exited(0)
    }
}

/// Runs one worker to its end.
pub(super) fn run_worker(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    limits: Limits<'_>,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Ran, Error> {
    let report = ReportFile::new()?;
    let mut command = launcher.command(testbed, request.config.allocator, report.path())?;
    if let (Some(ranks), Device::Virtual) = (&request.ranks, testbed.device) {
        command.env(virtual_gpu_variable::RANKS, &ranks.meeting);
    }
    let mut transcript = Transcript::default();
    let input = serde_json::to_string(request).map_err(|error| Error::Fault(format!("the request is no JSON: {error}")))?;
    let mut on_line = |line: &Line| {
        if let Some(event) = transcript.line(line, request.config.steps) {
            on_event(event);
        }
        // What it says next is not believed; one that was killed in the middle of a line is near its end.
        if transcript.is_wrong() && line.is_whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let ended = process::run(&command, input + "\n", limits, BOUNDS, &mut on_line)?;
    Ok(Ran { transcript, ended, report: report.read() })
}

/// The time of day as in RFC 3339.
pub(super) fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
