//! One case in one process, or in one for each rank: started, watched, ended, and turned into a run record.

mod ask;
mod environment;
mod order;
mod outcome;
mod patience;
mod process;
mod ranks;
mod report;
mod run;
mod standstill;

use std::time::{Duration, Instant};

use engine_protocol::{Event, Request, RunRecord, Split};

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::meeting::Meeting;
use crate::testbed::Testbed;

pub(crate) use ask::{calibrate, disk_rate, host_rates, inspect, plan, plans};
pub(crate) use environment::{EventOrder, Guise, Launcher, VISIBLE_DEVICES, onto_virtual_gpu, put_first};
pub(crate) use patience::{Patience, RANK_TIMEOUT_SECS};
use process::{End, Limits};
pub(crate) use ranks::is_hang;
pub(crate) use report::read_left;
use run::{now, run_worker};

/// Runs one case to its end. Whatever becomes of the worker is a record; nothing is recorded where the user ended it.
///
/// `on_event` sees each event as it comes.
pub(crate) fn run_case(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    patience: Patience,
    interrupt: &Interrupt,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Option<RunRecord>, Error> {
    let (began, clock) = (now(), Instant::now());
    match request.config.split() {
        Split::ONE => run_worker(launcher, testbed, request, limits(patience.whole, interrupt), on_event)
            .map(|ran| (ran.ended.end != End::Interrupted).then(|| ran.into_record(testbed, request, &began, clock))),
        _ => ranks::run(launcher, testbed, request, patience, *interrupt, on_event),
    }
}

/// As [`run_case`], of a case whose ranks have each a process of `lowmem`: this one's rank, for which the first one gets the record of all.
pub(crate) fn run_rank(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    patience: Patience,
    interrupt: &Interrupt,
    meeting: &Meeting,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Option<RunRecord>, Error> {
    ranks::run_launched(launcher, testbed, request, meeting, patience, *interrupt, on_event)
}

fn limits(time: Option<Duration>, interrupt: &Interrupt) -> Limits<'static> {
    Limits { time, interrupt: *interrupt, is_over: &|| false }
}
