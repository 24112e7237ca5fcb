//! A case on several GPUs: a worker for each rank, all of which come to one record.
//!
//! Note: how they end.
//! The first rank that does not come to its end well ends all, and the case's outcome is that rank's. One that hangs is found out by what it does not do, see `standstill`. Where one has nothing
//! left to wait for, since the first one is done, [`PATIENCE`] is what it has.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use engine_protocol::{Device, Event, HostMemory, Outcome, RankRecord, RankRequest, Request, RunRecord, StageRecord};

use serde::{Deserialize, Serialize};

use super::environment::{Launcher, VISIBLE_DEVICES};
use super::patience::Patience;
use super::process::{End, Limits};
use super::run::{Ran, now, run_worker};
use super::standstill::{Hang, Standstill};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::launched::Launched;
use crate::meeting::{self, Meeting, Other};
use crate::real_gpu;
use crate::scratch::Scratch;
use crate::testbed::Testbed;

/// So long the others have once the first rank is done, which puts the video together.
const PATIENCE: Duration = Duration::from_secs(20);

/// So long the others have once one has failed: what fails alike on all, as where memory runs out, is told of the first of them.
const GRACE: Duration = Duration::from_secs(1);

/// What is said of a rank that hangs.
const HANGS: &str = "hangs";

/// How far all ranks together are.
#[derive(Debug)]
struct Course {
    /// When one did not end well.
    failed: Option<Instant>,
    /// When the first rank was done.
    done: Option<Instant>,
    /// Which have not ended.
    open: Vec<bool>,
    standstill: Standstill,
    /// The one that hangs.
    hang: Option<Hang>,
}

impl Course {
    /// Of so many ranks that meet in that folder, each with so long for a sign of life.
    fn new(meeting: &Path, ranks: usize, device: Device, patience: Duration) -> Self {
        let standstill = Standstill::new(meeting, ranks, device, patience);
        Self { failed: None, done: None, open: vec![true; ranks], standstill, hang: None }
    }

    /// Takes in how a rank ended.
    fn ended(&mut self, rank: usize, is_well: bool) {
        self.open[rank] = false;
        if !is_well {
            self.failed.get_or_insert_with(Instant::now);
        } else if rank == 0 {
            self.done = Some(Instant::now());
        }
    }

    fn is_over(&mut self) -> bool {
        if self.failed.is_none() && self.hang.is_none() {
            self.hang = self.standstill.look(|rank| self.open[rank]);
        }
        let is_past = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() > time);
        self.hang.is_some() || is_past(self.failed, GRACE) || is_past(self.done, PATIENCE)
    }
}

/// Runs a case whose configuration is split over ranks, which on the CPU are threads of one worker; nothing where the user ended it. `on_event` sees what the first rank says.
pub(super) fn run(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    Patience { whole: limit, rank: patience }: Patience,
    interrupt: Interrupt,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Option<RunRecord>, Error> {
    let (began, clock) = (now(), Instant::now());
    let meeting = Scratch::new()?;
    let count = request.config.split().ranks();
    if testbed.device == Device::Cpu {
        let request = of_rank(request, 0, count, meeting.path().to_owned());
        let ran = run_worker(launcher, testbed, &request, Limits { time: limit, interrupt, is_over: &|| false }, on_event)?;
        return Ok((ran.ended.end != End::Interrupted).then(|| ran.into_record(testbed, &request, &began, clock)));
    }
    let testbeds = testbeds(testbed, count as usize)?;
    let of_rank = |(rank, testbed): (u32, &Testbed)| on_own_gpu(of_rank(request, rank, count, meeting.path().to_owned()), testbed);
    let requests: Vec<Request> = (0..count).zip(&testbeds).map(of_rank).collect();
    let course = Mutex::new(Course::new(meeting.path(), count as usize, request.device, patience));
    let locked = || course.lock().unwrap_or_else(PoisonError::into_inner);
    let run_rank = |rank: usize, on_event: &mut dyn FnMut(&Event)| {
        let limits = Limits { time: limit, interrupt, is_over: &|| locked().is_over() };
        let ran = run_worker(launcher, &testbeds[rank], &requests[rank], limits, on_event);
        locked().ended(rank, ran.as_ref().is_ok_and(Ran::is_well));
        ran
    };
    // A rank's thread lives until its worker has ended.
    let ran: Vec<Result<Ran, Error>> = thread::scope(|scope| {
        let run_rank = &run_rank;
        let others: Vec<_> = (1..count as usize).map(|rank| scope.spawn(move || run_rank(rank, &mut |_| {}))).collect();
        let first = run_rank(0, on_event);
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|_| Err(Error::Fault("a rank's thread panicked".into()))));
        std::iter::once(first).chain(others).collect()
    });
    let ran = ran.into_iter().collect::<Result<Vec<Ran>, Error>>()?;
    let ends = ran.into_iter().zip(&testbeds).map(|(ran, testbed)| RankEnd::of(ran, testbed, request, &began, clock));
    let hang = course.into_inner().unwrap_or_else(PoisonError::into_inner).hang;
    Ok(outcome(ends.collect(), hang))
}

/// Runs the rank of this process, where each has a process of its own: for the first one the case's record, for another its own. Nothing where the user ended it.
pub(super) fn run_launched(
    launcher: &Launcher,
    testbed: &Testbed,
    request: &Request,
    meeting: &Meeting,
    Patience { whole: time, rank: patience }: Patience,
    interrupt: Interrupt,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Option<RunRecord>, Error> {
    let (began, clock) = (now(), Instant::now());
    let Launched { rank, count, .. } = meeting.launched;
    let testbed = own_testbed(testbed, rank as usize, count as usize)?;
    let of_rank = on_own_gpu(of_rank(request, rank, count, meeting.folder().to_owned()), &testbed);
    let course = Course::new(meeting.folder(), count as usize, request.device, patience);
    let others = Mutex::new(Others { meeting, testbed: &testbed, request, course, ends: (0..count).map(|_| None).collect() });
    let locked = || others.lock().unwrap_or_else(PoisonError::into_inner);
    let is_over = || {
        let mut others = locked();
        others.look();
        others.course.is_over() || (rank > 0 && meeting.is_over())
    };
    let ran = run_worker(launcher, &testbed, &of_rank, Limits { time, interrupt, is_over: &is_over }, on_event)?;
    let mut others = others.into_inner().unwrap_or_else(PoisonError::into_inner);
    let end = RankEnd { hang: others.course.hang.clone(), ..RankEnd::of(ran, &testbed, request, &began, clock) };
    if rank > 0 {
        meeting.tell(&end)?;
        let told = Instant::now();
        // The first one speaks for all, and before this process tells the launcher how it ended.
        while !meeting.is_over() && !meeting::rest(interrupt) {
            if let Some(Hang { rank: 0, why }) = end.hang.as_ref().filter(|_| told.elapsed() > PATIENCE) {
                return Err(Error::Fault(format!("rank 0 of {count}: hangs: {why}")));
            }
        }
        return Ok((end.fate != Fate::Interrupted).then_some(end.record));
    }
    others.course.ended(0, end.fate == Fate::Well);
    others.ends[0] = Some(end);
    // Each of them ends by itself where the course is over; one that cannot even do that is not waited for.
    let mut over = None;
    while others.ends.iter().any(Option::is_none) && !meeting::rest(interrupt) {
        others.look();
        if over.is_none() && others.course.is_over() {
            over = Some(Instant::now());
        }
        if over.is_some_and(|over| over.elapsed() > PATIENCE) {
            break;
        }
    }
    if interrupt.is_wanted() {
        return Ok(None);
    }
    let missing = || RankEnd::without_word(&testbed, request, Outcome::Timeout, "it does not end".into());
    let hang = others.course.hang.take();
    Ok(outcome(others.ends.into_iter().map(|end| end.unwrap_or_else(missing)).collect(), hang))
}

/// The request of one of the ranks of `request`.
fn of_rank(request: &Request, rank: u32, count: u32, meeting: PathBuf) -> Request {
    Request {
        ranks: Some(RankRequest { rank, count, meeting }),
        // One of them writes what the user asked for.
        output: request.output.clone().filter(|_| rank == 0),
        snapshot: request.snapshot.clone().filter(|_| rank == 0),
        operation_times: request.operation_times.clone().filter(|_| rank == 0),
        ..request.clone()
    }
}

/// The same where the rank's GPU is that of `testbed`: its placement follows that one's memory and rates.
fn on_own_gpu(request: Request, testbed: &Testbed) -> Request {
    Request { gpu: testbed.profile.clone(), memory_limit_bytes: testbed.memory_limit_of(&request.config), ..request }
}

/// In which way a rank came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    Well,
    Failed,
    /// Since another one had failed, or it had nothing left to wait for.
    Halted,
    /// By the user.
    Interrupted,
}

/// How a rank ended, and its record of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RankEnd {
    fate: Fate,
    record: RunRecord,
    /// Which one hangs, as this one has seen.
    hang: Option<Hang>,
}

impl RankEnd {
    fn of(ran: Ran, testbed: &Testbed, request: &Request, began: &str, clock: Instant) -> Self {
        let fate = match ran.ended.end {
            End::Interrupted => Fate::Interrupted,
            End::Halted => Fate::Halted,
            _ if ran.is_well() => Fate::Well,
            _ => Fate::Failed,
        };
        Self { fate, record: ran.into_record(testbed, request, began, clock), hang: None }
    }

    /// One of which nothing else is known.
    fn without_word(testbed: &Testbed, request: &Request, outcome: Outcome, why: String) -> Self {
        let record = Ran::without_word().into_record(testbed, request, &now(), Instant::now());
        Self { fate: Fate::Failed, record: RunRecord { outcome, error: Some(why), ..record }, hang: None }
    }
}

/// The ranks of a meeting, as this one comes to know of them.
struct Others<'a> {
    meeting: &'a Meeting,
    testbed: &'a Testbed,
    request: &'a Request,
    course: Course,
    /// How each ended, where that is known. This one's own comes last.
    ends: Vec<Option<RankEnd>>,
}

impl Others<'_> {
    /// Takes in what has become of others since.
    fn look(&mut self) {
        let of_none = |outcome, why| RankEnd::without_word(self.testbed, self.request, outcome, why);
        let own = self.meeting.launched.rank as usize;
        let open: Vec<usize> = (0..self.ends.len()).filter(|&rank| rank != own && self.ends[rank].is_none()).collect();
        for rank in open {
            let end = match self.meeting.see::<RankEnd>(rank as u32) {
                Other::Ended(end) => end,
                Other::Dead => of_none(Outcome::Killed, "its process is gone".into()),
                Other::NotThere if self.meeting.is_late() => {
                    of_none(Outcome::Timeout, format!("it has not come in {} s", meeting::PATIENCE.as_secs()))
                }
                Other::NotThere | Other::Working => continue,
            };
            self.course.ended(rank, end.fate == Fate::Well);
            self.course.hang = self.course.hang.take().or_else(|| end.hang.clone());
            self.ends[rank] = Some(end);
        }
    }
}

/// The record of the case, from how its ranks ended; nothing where the user ended it.
fn outcome(ends: Vec<RankEnd>, hang: Option<Hang>) -> Option<RunRecord> {
    if ends.iter().any(|end| end.fate == Fate::Interrupted) {
        return None;
    }
    let first = |fate: Fate| ends.iter().position(|end| end.fate == fate);
    let late = |rank| Hang { rank, why: format!("it is not done {} s after the first rank was", PATIENCE.as_secs()) };
    let failed = first(Fate::Failed);
    let hang = if failed.is_some() { None } else { hang.or_else(|| first(Fate::Halted).map(late)) };
    let failed = failed.or(hang.as_ref().map(|hang| hang.rank));
    let record = together(ends.into_iter().map(|end| end.record).collect(), failed)?;
    Some(match hang {
        Some(hang) => hung(record, &hang),
        None => record,
    })
}

/// The GPU of the rank that this process is. Where the launcher lets it see one alone, that is it.
fn own_testbed(testbed: &Testbed, rank: usize, count: usize) -> Result<Testbed, Error> {
    if testbed.device != Device::Cuda || !testbed.others.is_empty() {
        return Ok(testbeds(testbed, count)?.swap_remove(rank));
    }
    let Some(visible) = std::env::var(VISIBLE_DEVICES).ok().filter(|visible| !visible.is_empty() && !visible.contains(',')) else {
        return Ok(testbeds(testbed, count)?.swap_remove(rank));
    };
    let gpus = real_gpu::list().map_err(Error::input)?;
    let bound = visible.parse().map_or_else(|_| gpus.iter().find(|gpu| gpu.uuid.starts_with(&visible)), |place: usize| gpus.get(place));
    let uuid = bound.map(|gpu| gpu.uuid.clone());
    let uuid = uuid.ok_or_else(|| Error::input(format!("{VISIBLE_DEVICES}={visible}: there is no such GPU")))?;
    Ok(Testbed { uuid: Some(uuid), ..testbed.clone() })
}

/// Each rank's own GPU: those that were named for each; else virtual ones are alike, and of real ones there must be as many of that kind.
fn testbeds(testbed: &Testbed, count: usize) -> Result<Vec<Testbed>, Error> {
    if let Some(named) = testbed.of_each_rank(count)? {
        return Ok(named);
    }
    let Some(chosen) = testbed.uuid.as_ref().filter(|_| testbed.device == Device::Cuda) else {
        return Ok(vec![testbed.clone(); count]);
    };
    let mut gpus = real_gpu::list().map_err(Error::input)?;
    // The chosen one is the first rank's.
    gpus.sort_by_key(|gpu| gpu.uuid != *chosen);
    let alike = gpus.first().map(|first| (first.title.clone(), first.memory_bytes));
    gpus.retain(|gpu| Some((gpu.title.clone(), gpu.memory_bytes)) == alike);
    if gpus.len() < count {
        let title = alike.map_or_else(String::new, |(title, _)| title);
        return Err(Error::input(format!(
            "{count} ranks need {count} GPUs of one kind, and of {title} there are {}: ask for fewer, name one for each rank (--gpu A,B), or use --device virtual",
            gpus.len()
        )));
    }
    Ok(gpus.into_iter().take(count).map(|gpu| Testbed { uuid: Some(gpu.uuid), ..testbed.clone() }).collect())
}

/// The record of the case, from those that ranks have of themselves: the first one's, or that of the one that failed. Nothing where there is no rank.
fn together(mut records: Vec<RunRecord>, failed: Option<usize>) -> Option<RunRecord> {
    let ranks: Vec<RankRecord> = records.iter().map(RankRecord::of).collect();
    if failed.unwrap_or_default() >= records.len() {
        return None;
    }
    let count = records.len();
    let own = records.remove(failed.unwrap_or_default());
    // What ran out of memory is told of the rank that did.
    let is_over = |stage: &StageRecord| own.outcome == Outcome::Oom && own.failed_stage == Some(stage.stage);
    let stages = own.stages.iter().map(|stage| largest(stage, &records, is_over(stage))).collect();
    let error = match failed {
        Some(rank) => own.error.clone().map(|error| format!("rank {rank} of {count}: {error}")),
        None => own.error.clone(),
    };
    let summed = |of: fn(&RunRecord) -> Option<u64>| records.iter().map(of).try_fold(of(&own)?, |sum, bytes| Some(sum + bytes?));
    let (h2d_bytes, d2h_bytes, host_pinned_peak_bytes) =
        (summed(|record| record.h2d_bytes), summed(|record| record.d2h_bytes), summed(|record| record.host_pinned_peak_bytes));
    Some(RunRecord { stages, error, ranks, h2d_bytes, d2h_bytes, host_pinned_peak_bytes, ..own })
}

/// A stage as the case has it: with the memory of the rank that held most of its GPU, unless it is to be its own, and of the host what all held together.
fn largest(stage: &StageRecord, others: &[RunRecord], is_own: bool) -> StageRecord {
    let same: Vec<&StageRecord> = others.iter().filter_map(|other| other.stage(stage.stage)).collect();
    let peak = |stage: &StageRecord| stage.memory.map(|memory| memory.peak_device_bytes);
    // Of equals the first one.
    let most = same.iter().copied().fold(stage, |most, other| if !is_own && peak(other) > peak(most) { other } else { most });
    let summed = |of: fn(&StageRecord) -> Option<HostMemory>| {
        // One that does not decode holds what it held before, as long as it is there.
        let held = others.iter().filter_map(|other| other.stage(stage.stage).or(other.stages.last()));
        held.filter_map(of).fold(of(stage), |sum, other| sum.map(|sum: HostMemory| sum.plus(other)))
    };
    StageRecord {
        time: stage.time,
        step_secs: stage.step_secs.clone(),
        reused_steps: stage.reused_steps.clone(),
        host: summed(|stage| stage.host),
        predicted_host: summed(|stage| stage.predicted_host),
        ..most.clone()
    }
}

/// Whether the case ended since a rank hangs.
pub(crate) fn is_hang(record: &RunRecord) -> bool {
    let said = record.error.as_deref().and_then(|error| error.split_once(": "));
    record.outcome == Outcome::Timeout && !record.ranks.is_empty() && said.is_some_and(|(_, what)| what.starts_with(HANGS))
}

/// The case of which a rank hangs.
fn hung(record: RunRecord, Hang { rank, why }: &Hang) -> RunRecord {
    let count = record.ranks.len();
    let stage = record.failed_stage.map(|stage| format!(" in {}", stage.name())).unwrap_or_default();
    let error = format!("rank {rank} of {count}: {HANGS}{stage}: {why}");
    RunRecord { outcome: Outcome::Timeout, error: Some(error), ..record }
}
