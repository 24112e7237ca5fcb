//! One case in one process: started, watched, ended, and turned into a run record.

mod ask;
mod environment;
mod order;
mod outcome;
mod process;
mod report;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use engine_protocol::{Event, Request, RunRecord};

use crate::children::{Line, Room};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::testbed::Testbed;

pub(crate) use ask::{calibrate, disk_rate, host_rates, inspect, plan, plans};
pub(crate) use environment::{EventOrder, Guise, Launcher, VISIBLE_DEVICES, onto_virtual_gpu, put_first};
use outcome::{Course, Transcript};
use process::{Bounds, End};
use report::ReportFile;
pub(crate) use report::read_left;

/// An event has some thousand bytes; what cannot be told in this is no event.
const BOUNDS: Bounds = Bounds { line: 256 << 10, last_words: Room { lines: 12, bytes: 1 << 10 } };

/// Runs one case to its end. Whatever becomes of the worker is a record; nothing is recorded where the user ended it.
///
/// `on_event` sees each event as it comes.
pub(crate) fn run_case(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    limit: Option<Duration>,
    interrupt: &Interrupt,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Option<RunRecord>, Error> {
    let (began, clock) = (now(), Instant::now());
    let report = ReportFile::new()?;
    let command = launcher.command(testbed, request.config.allocator, report.path())?;
    let mut transcript = Transcript::default();
    let input = serde_json::to_string(request).map_err(|error| Error::Fault(format!("the request is no JSON: {error}")))?;
    let mut on_line = |line: &Line| {
        if let Some(event) = transcript.line(line, request.config.steps) {
            on_event(event);
        }
        // What it says next is not believed; one that was killed in the middle of a line is near its end.
        if transcript.is_wrong() && line.is_whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let ended = process::run(&command, input + "\n", limit, *interrupt, BOUNDS, &mut on_line)?;
    if ended.end == End::Interrupted {
        return Ok(None);
    }
    let course = Course { began, wall_secs: clock.elapsed().as_secs_f64() };
    Ok(Some(transcript.into_record(testbed, request, &ended, report.read(), course)))
}

/// The time of day as in RFC 3339.
fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
