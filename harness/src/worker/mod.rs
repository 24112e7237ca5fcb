//! One case in one process: started, watched, ended, and turned into a run record.

mod ask;
mod environment;
mod outcome;
mod process;
mod report;

use std::time::{Duration, Instant};

use engine_protocol::{Event, Request, RunRecord};

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::testbed::Testbed;

pub(crate) use ask::{calibrate, disk_rate, host_rates, inspect, plan, plans};
pub(crate) use environment::{EventOrder, Guise, Launcher, VISIBLE_DEVICES, onto_virtual_gpu, put_first};
use outcome::{Course, Transcript};
use process::End;
use report::ReportFile;
pub(crate) use report::read_left;

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
    let mut on_line = |line: &str| {
        if let Some(event) = transcript.line(line) {
            on_event(event);
        }
    };
    let ended = process::run(command, request, limit, interrupt, &mut on_line)?;
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
