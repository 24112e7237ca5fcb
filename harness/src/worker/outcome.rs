//! From what a worker said and how it ended to a run record.

use engine_protocol::{
    CacheDecision, CacheUse, Config, Device, Event, HostShortage, Lowered, MemoryCourse, Outcome, PeakParts, PlannedHost, PlannedStage,
    Request, RunRecord, SCHEMA, Secs, Source, Stage, StageRecord, Transfers, gib,
};
use host_memory::{PageLockLimit, page_lock_limit};
use virtual_gpu_protocol::ProcessReport;

use super::order::Order;
use super::process::{End, Ended, name};
use crate::children::{Line, cut};
use crate::testbed::Testbed;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const SIGINT: i32 = 2;
const SIGHUP: i32 = 1;
const SIGBUS: i32 = 7;

/// Bytes that are kept of a message.
const MESSAGE: usize = 8 << 10;
/// Bytes that are kept of a name.
const NAME: usize = 256;
/// Bytes that are told of a line that is wrong.
const START: usize = 200;

/// When a case ran.
#[derive(Debug)]
pub(super) struct Course {
    /// When it began, as in RFC 3339.
    pub(super) began: String,
    /// How long it took.
    pub(super) wall_secs: f64,
}

/// What a worker has said so far.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    lines: usize,
    last: Option<Event>,
    device_name: Option<String>,
    /// The configuration as it runs.
    settled: Option<Config>,
    planned: Vec<PlannedStage>,
    planned_host: Vec<PlannedHost>,
    lowered: Vec<Lowered>,
    open_stage: Option<Stage>,
    stages: Vec<StageRecord>,
    /// Of the open stage.
    steps: Vec<PeakParts>,
    /// Of the open stage.
    step_secs: Vec<Secs>,
    /// Of the open stage.
    reused_steps: Vec<u32>,
    /// Of the open stage.
    courses: Vec<MemoryCourse>,
    /// What was planned of a cache.
    cache: Option<(CacheDecision, Option<u32>)>,
    verdict: Option<Verdict>,
    order: Order,
    /// The first line that is no event or contradicts another one, and why.
    wrong: Option<String>,
}

/// A worker's own last word.
#[derive(Debug)]
enum Verdict {
    Finished(Option<Transfers>),
    OutOfMemory { stage: Stage, requested_bytes: Option<u64>, parts: Option<PeakParts>, message: String },
    OutOfHostMemory { stage: Option<Stage>, shortage: HostShortage, message: String },
    Failed { stage: Option<Stage>, message: String },
}

impl Transcript {
    /// Takes in a line of the output of a case with so many steps, and gives the event that it is. After a line that is wrong nothing is believed.
    pub(super) fn line(&mut self, line: &Line, steps: u32) -> Option<&Event> {
        if self.is_wrong() {
            return None;
        }
        self.lines += 1;
        let event = match (line.is_cut, serde_json::from_str::<Event>(&line.text)) {
            (false, Ok(event)) => self.order.take_in(&event, steps).map(|()| event).map_err(|what| format!("contradicts itself: {what}")),
            (true, _) => Err(format!("is longer than an event: {}", cut(line.text.clone(), START))),
            (false, Err(error)) => {
                let why = cut(error.to_string(), START);
                Err(format!("is not an event ({why}): {}", cut(line.text.clone(), START)))
            }
        };
        match event {
            Ok(event) => {
                self.event(event.clone());
                Some(self.last.insert(event))
            }
            Err(why) => {
                self.wrong = Some(format!("line {} of the worker's output {why}", self.lines));
                None
            }
        }
    }

    /// Whether it said something that cannot be, after which it need not go on.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Started { device_name, .. } => self.device_name = Some(cut(device_name, NAME)),
            Event::Planned { config, stages, host } => {
                self.settled = Some(*config);
                (self.planned, self.planned_host) = (stages, host);
            }
            Event::Lowered(lowered) => {
                self.open_stage = None;
                self.lowered.push(lowered);
            }
            Event::StageBegun { stage } => self.open_stage = Some(stage),
            Event::Progress { .. } => {}
            Event::CachePlanned { decided, reused_steps } => self.cache = Some((decided, reused_steps)),
            Event::StepEnded { parts, secs, reused, course } => {
                if reused {
                    self.reused_steps.push(self.step_secs.len() as u32);
                }
                self.keep_course(course, Some(self.steps.len() as u32));
                self.steps.extend(parts);
                self.step_secs.extend(secs);
            }
            Event::StageEnded { stage, time, memory, host, attention, operations, course } => {
                self.keep_course(course, None);
                self.open_stage = None;
                self.keep(StageRecord { time, memory, host, attention, operations, ..StageRecord::new(stage) });
            }
            Event::Finished { transfers } => self.verdict = Some(Verdict::Finished(transfers)),
            Event::OutOfMemory { stage, requested_bytes, memory, parts_at_failure: parts, course, message } => {
                self.keep_course(course, None);
                // The stage that ran out is a stage of the run too.
                self.open_stage = Some(stage);
                self.keep(StageRecord { memory, ..StageRecord::new(stage) });
                let message = cut(message, MESSAGE);
                self.verdict = Some(Verdict::OutOfMemory { stage, requested_bytes, parts, message });
            }
            Event::OutOfHostMemory { stage, memory, shortage, message } => {
                if let Some(stage) = stage {
                    self.open_stage = Some(stage);
                    self.keep(StageRecord { memory, ..StageRecord::new(stage) });
                }
                self.verdict = Some(Verdict::OutOfHostMemory { stage, shortage, message: cut(message, MESSAGE) });
            }
            Event::Failed { stage, message } => self.verdict = Some(Verdict::Failed { stage, message: cut(message, MESSAGE) }),
        }
    }

    /// Keeps how memory went, in that step where it was one. Steps that went alike are kept once.
    fn keep_course(&mut self, course: Option<MemoryCourse>, step: Option<u32>) {
        let Some(course) = course else { return };
        let is_alike = |kept: &&mut MemoryCourse| MemoryCourse { steps: Vec::new(), ..(**kept).clone() } == course;
        match self.courses.iter_mut().filter(|_| step.is_some()).find(is_alike) {
            Some(kept) => kept.steps.extend(step),
            None => self.courses.push(MemoryCourse { steps: step.into_iter().collect(), ..course }),
        }
    }

    /// Keeps a stage that is over, with the steps that were told of in it.
    fn keep(&mut self, record: StageRecord) {
        let stage = record.stage;
        let (steps, step_secs) = (std::mem::take(&mut self.steps), std::mem::take(&mut self.step_secs));
        let (reused_steps, courses) = (std::mem::take(&mut self.reused_steps), std::mem::take(&mut self.courses));
        // Of one that runs again at a lower level, this is what counts.
        self.stages.retain(|earlier| earlier.stage != stage);
        let planned = self.planned.iter().find(|planned| planned.stage == stage);
        let predicted_peak_allocated_bytes = planned.and_then(PlannedStage::peak_allocated_bytes);
        let planned_host = self.planned_host.iter().find(|planned| planned.stage == stage);
        let predicted_host = planned_host.map(|planned| planned.memory);
        self.stages.push(StageRecord { predicted_peak_allocated_bytes, predicted_host, steps, step_secs, reused_steps, courses, ..record });
        self.stages.sort_by_key(|record| record.stage);
    }

    /// What the case was predicted to take of the GPU: the peak of its largest stage, and what the device was seen to hold beside the allocator. Not known where a
    /// stage has no prediction, since that may be the largest.
    fn predicted_need_bytes(&self) -> Option<u64> {
        let peaks: Option<Vec<u64>> = self.planned.iter().map(PlannedStage::peak_allocated_bytes).collect();
        let beside = self.stages.iter().filter_map(|stage| Some(stage.memory?.beside_bytes())).max()?;
        Some(peaks?.into_iter().max()? + beside)
    }

    /// Whether it said that the case is done, and nothing else.
    pub(super) fn is_finished(&self) -> bool {
        !self.is_wrong() && matches!(self.verdict, Some(Verdict::Finished(_)))
    }

    /// The record of the case.
    pub(super) fn into_record(
        self,
        testbed: &Testbed,
        request: &Request,
        ended: &Ended,
        report: Result<Option<ProcessReport>, String>,
        course: Course,
    ) -> RunRecord {
        let mut ending = self.judge(ended);
        let report = report.unwrap_or_else(|why| {
            ending.lacks_report(&why);
            None
        });
        if let Some(report) = &report {
            ending.lacks_address_space(report);
        }
        let has_memory = self.stages.iter().any(|stage| stage.memory.is_some());
        let has_times = self.stages.iter().any(|stage| stage.time.is_some());
        let transfers = match self.verdict {
            Some(Verdict::Finished(transfers)) => transfers,
            _ => None,
        };
        let reused_that_ran: usize = self.stages.iter().map(|stage| stage.reused_steps.len()).sum();
        let cache = self.cache.map(|(decided, planned)| CacheUse { decided, reused_steps: planned.unwrap_or(reused_that_ran as u32) });
        let predicted_need_bytes = self.predicted_need_bytes().filter(|_| ending.outcome == Outcome::Oom);
        let pinned = self.stages.iter().filter_map(|stage| stage.host).map(|host| host.pinned_peak_bytes);
        let pinned_peak_bytes = pinned.max().filter(|_| request.device.is_cuda() && ending.outcome == Outcome::Ok);
        RunRecord {
            schema: SCHEMA,
            version: Some(env!("CARGO_PKG_VERSION").into()),
            began: Some(course.began),
            case: request.case.clone(),
            outcome: ending.outcome,
            error: ending.error,
            failed_stage: ending.stage,
            requested_bytes: ending.requested_bytes,
            parts_at_failure: ending.parts_at_failure,
            host_shortage: ending.host_shortage,
            gpu: testbed.profile.as_ref().map(|profile| profile.name.clone()),
            capacity_bytes: testbed.capacity_bytes,
            device: request.device,
            device_name: self.device_name,
            memory_source: match request.device {
                Device::Virtual => has_memory.then_some(Source::Virtual),
                Device::Cuda => has_memory.then_some(Source::Measured),
                Device::Cpu => None,
            },
            time_source: match request.device {
                Device::Virtual => has_times.then_some(Source::Modelled),
                Device::Cuda | Device::Cpu => has_times.then_some(Source::Measured),
            },
            config: request.config.clone(),
            settled_config: self.settled.filter(|settled| *settled != request.config),
            lowered: self.lowered,
            stages: self.stages,
            h2d_bytes: transfers.map(|t| t.h2d_bytes),
            d2h_bytes: transfers.map(|t| t.d2h_bytes),
            host_pinned_peak_bytes: pinned_peak_bytes.or(report.as_ref().map(|report| report.pinned_peak_bytes)),
            page_lock_warning: transfers.and_then(|transfers| transfers.not_page_locked).map(|not| {
                let rates = testbed.profile.as_ref().map(|gpu| [gpu.pcie.pinned_bytes_per_sec.value, gpu.pcie.pageable()]);
                not.warning(rates) + &page_locking_limit()
            }),
            wall_secs: course.wall_secs,
            forecast: None,
            steps_of: None,
            gpu_state: None,
            is_skipped: false,
            predicted_need_bytes,
            cache,
            ranks: Vec::new(),
            unsupported_calls: report.map(|report| report.unsupported).unwrap_or_default(),
        }
    }

    /// How the case ended. What happened to the process from outside comes first, then what the worker said, then how it left.
    fn judge(&self, ended: &Ended) -> Ending {
        let stage = self.open_stage;
        let words = |what: String| Some(with_last_words(what, &ended.last_words));
        let ending = |outcome, error| Ending { outcome, error, stage, requested_bytes: None, parts_at_failure: None, host_shortage: None };
        match ended.end {
            End::TimedOut | End::Interrupted => {
                return ending(Outcome::Timeout, words(format!("not done within its time limit{}", in_stage(stage))));
            }
            End::Signalled(SIGKILL) if ended.is_memory_short => {
                let shortage = HostShortage::default();
                let error = format!("{shortage}: the kernel ended the process by SIGKILL{}", in_stage(stage));
                return Ending { host_shortage: Some(shortage), ..ending(Outcome::OomHost, words(error)) };
            }
            End::Signalled(signal @ (SIGKILL | SIGTERM | SIGINT | SIGHUP)) => {
                let hint = if signal == SIGKILL {
                    " (mostly the kernel does this, when the machine's own memory runs out: see `dmesg`)"
                } else {
                    ""
                };
                return ending(Outcome::Killed, words(format!("ended from outside by {}{}{hint}", name(signal), in_stage(stage))));
            }
            End::Signalled(_) | End::Exited(_) | End::CutShort | End::Halted => {}
        }
        if let Some(wrong) = &self.wrong {
            return ending(Outcome::Crashed, words(wrong.clone()));
        }
        match (&self.verdict, ended.end) {
            (Some(Verdict::OutOfMemory { stage, requested_bytes, parts, message }), _) => Ending {
                outcome: Outcome::Oom,
                error: Some(message.clone()),
                stage: Some(*stage),
                requested_bytes: *requested_bytes,
                parts_at_failure: *parts,
                host_shortage: None,
            },
            (Some(Verdict::OutOfHostMemory { stage, shortage, message }), _) => Ending {
                stage: stage.or(self.open_stage),
                host_shortage: Some(*shortage),
                ..ending(Outcome::OomHost, Some(message.clone()))
            },
            (Some(Verdict::Failed { stage, message }), _) => {
                Ending { stage: stage.or(self.open_stage), ..ending(Outcome::Failed, Some(message.clone())) }
            }
            (Some(Verdict::Finished(_)), End::Exited(0)) => ending(Outcome::Ok, None),
            (_, End::Signalled(_)) if let Some(shortage) = refused(&ended.last_words) => {
                Ending { host_shortage: Some(shortage), ..ending(Outcome::OomHost, Some(shortage.to_string())) }
            }
            (Some(Verdict::Finished(_)), end) => ending(Outcome::Crashed, words(format!("finished, and then {end}"))),
            (None, end) => ending(Outcome::Crashed, words(format!("{end}{} without a result{}", in_stage(stage), cause(end)))),
        }
    }
}

/// What a crash mostly comes from, where that is known.
fn cause(end: End) -> &'static str {
    match end {
        // Files of weights are mapped: what cannot be read of one is no error of a call.
        End::Signalled(SIGBUS) => {
            ": a file of weights became shorter while it was read, or its disk could not be read. See `dmesg` for the disk, and fetch the file again"
        }
        _ => "",
    }
}

/// What may have held page-locking down, behind a warning.
fn page_locking_limit() -> String {
    match page_lock_limit() {
        Some(PageLockLimit::Wsl) => "; this is WSL, which lets a process lock little".into(),
        Some(PageLockLimit::Ulimit(bytes)) => format!("; `ulimit -l` is {:.2} GiB", gib(bytes)),
        None => String::new(),
    }
}

/// How a case ended.
#[derive(Debug)]
struct Ending {
    outcome: Outcome,
    error: Option<String>,
    stage: Option<Stage>,
    requested_bytes: Option<u64>,
    parts_at_failure: Option<PeakParts>,
    host_shortage: Option<HostShortage>,
}

/// What the host's memory did not give, where a process that aborted says so last: Rust's allocator (`memory allocation of 4096 bytes failed`) or C++'s.
fn refused(last_words: &[String]) -> Option<HostShortage> {
    let of_rust = |line: &String| line.split_once("memory allocation of ")?.1.strip_suffix(" bytes failed")?.parse().ok();
    let requested_bytes = last_words.iter().find_map(of_rust);
    let is_refused = requested_bytes.is_some() || last_words.iter().any(|line| line.contains("std::bad_alloc"));
    is_refused.then_some(HostShortage { requested_bytes, available_bytes: None, is_page_locked: false })
}

impl Ending {
    /// The virtual GPU keeps its memory in this machine's address space. Where it had room for what it refused, that is what lacked, and no GPU.
    fn lacks_address_space(&mut self, report: &ProcessReport) {
        let refused = report.devices.values().find_map(|device| device.refusals.last);
        let Some(refused) = refused.filter(|last| self.outcome == Outcome::Oom && last.requested_bytes <= last.free_bytes) else { return };
        let shortage = HostShortage { requested_bytes: Some(refused.requested_bytes), available_bytes: None, is_page_locked: false };
        *self = Ending {
            outcome: Outcome::OomHost,
            error: Some(format!("{shortage} (address space, in which the virtual GPU keeps its memory: see `ulimit -v`)")),
            requested_bytes: None,
            host_shortage: Some(shortage),
            parts_at_failure: None,
            stage: self.stage,
        };
    }

    /// What the virtual GPU wrote down of the worker cannot be read, so nobody knows what it was asked for and did not do: a case that seemed to go well may not have.
    fn lacks_report(&mut self, why: &str) {
        let message = format!("the virtual GPU's report of the worker cannot be read ({why}), so what it does not support is not known");
        self.error = Some(match self.error.take() {
            Some(error) => format!("{error}; {message}"),
            None => message,
        });
        if self.outcome == Outcome::Ok {
            self.outcome = Outcome::Failed;
        }
    }
}

fn in_stage(stage: Option<Stage>) -> String {
    stage.map(|stage| format!(" in {}", stage.name())).unwrap_or_default()
}

fn with_last_words(what: String, last_words: &[String]) -> String {
    if last_words.is_empty() { what } else { format!("{what}; its last words:\n{}", last_words.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(end: End, last_words: &str) -> Ended {
        Ended { end, is_memory_short: false, last_words: vec![last_words.into()] }
    }

    fn told(transcript: &mut Transcript, said: &Said) {
        drop(transcript.line(&Line { text: said.text(), is_whole: true, is_cut: false }, 2).cloned());
    }

    fn judged(lines: &[Said], end: End) -> (Outcome, Option<Stage>, String) {
        let mut transcript = Transcript::default();
        lines.iter().for_each(|line| told(&mut transcript, line));
        let ending = transcript.judge(&ended(end, "the end"));
        (ending.outcome, ending.stage, ending.error.unwrap_or_default())
    }

    /// What a worker says, how it ends, and what that is: outcome, stage and a part of the error.
    type Row = (&'static [Said], End, Outcome, Option<Stage>, &'static str);

    /// What a worker prints.
    #[derive(Debug)]
    enum Said {
        Begun,
        Finished,
        OutOfMemory,
        OutOfHostMemory,
        Failed,
        /// What is no event.
        Other(&'static str),
    }

    impl Said {
        fn text(&self) -> String {
            let event = match self {
                Self::Begun => Event::StageBegun { stage: Stage::Denoise },
                Self::Finished => Event::Finished { transfers: None },
                Self::OutOfMemory => Event::OutOfMemory {
                    stage: Stage::Decode,
                    requested_bytes: Some(5),
                    memory: None,
                    parts_at_failure: None,
                    course: None,
                    message: "tried".into(),
                },
                Self::OutOfHostMemory => Event::OutOfHostMemory {
                    stage: Some(Stage::Load),
                    memory: None,
                    shortage: HostShortage::default(),
                    message: "RAM ran out".into(),
                },
                Self::Failed => Event::Failed { stage: None, message: "why".into() },
                Self::Other(text) => return (*text).to_owned(),
            };
            serde_json::to_string(&event).expect("an event is JSON")
        }
    }

    #[test]
    fn every_end_is_an_outcome() {
        use Said::{Begun, Failed, Finished, Other, OutOfHostMemory, OutOfMemory};
        let cases: [Row; 16] = [
            (&[Finished], End::Exited(0), Outcome::Ok, None, ""),
            (&[Begun, OutOfMemory], End::Exited(0), Outcome::Oom, Some(Stage::Decode), "tried"),
            (&[OutOfMemory], End::Signalled(6), Outcome::Oom, Some(Stage::Decode), "tried"),
            (&[Begun, OutOfHostMemory], End::Exited(0), Outcome::OomHost, Some(Stage::Load), "RAM ran out"),
            (&[Begun, Failed], End::Exited(1), Outcome::Failed, Some(Stage::Denoise), "why"),
            (&[Begun], End::Exited(0), Outcome::Crashed, Some(Stage::Denoise), "exited with code 0 in denoise without a result"),
            (&[Begun], End::Signalled(11), Outcome::Crashed, Some(Stage::Denoise), "crashed with SIGSEGV in denoise"),
            (&[Finished], End::Signalled(6), Outcome::Crashed, None, "finished, and then crashed with SIGABRT"),
            (&[Begun], End::Signalled(7), Outcome::Crashed, Some(Stage::Denoise), "a file of weights became shorter while it was read"),
            (&[Begun], End::Signalled(9), Outcome::Killed, Some(Stage::Denoise), "ended from outside by SIGKILL in denoise"),
            (&[Begun, Other("{\"event\":\"stage_e")], End::Signalled(15), Outcome::Killed, Some(Stage::Denoise), "by SIGTERM"),
            (&[Begun], End::TimedOut, Outcome::Timeout, Some(Stage::Denoise), "not done within its time limit in denoise"),
            (&[Other("hello"), Finished], End::Exited(0), Outcome::Crashed, None, "line 1 of the worker's output is not an event"),
            (&[OutOfMemory, Finished], End::CutShort, Outcome::Crashed, Some(Stage::Decode), "`out_of_memory` and then `finished`"),
            (&[Begun, Other("hello")], End::CutShort, Outcome::Crashed, Some(Stage::Denoise), "is not an event"),
            (&[], End::Exited(127), Outcome::Crashed, None, "exited with code 127 without a result; its last words:\nthe end"),
        ];
        for (lines, end, outcome, stage, message) in cases {
            let (got, at, text) = judged(lines, end);
            assert_eq!((got, at), (outcome, stage), "{lines:?} {end:?}");
            assert!(text.contains(message), "{lines:?} {end:?}: {text}");
        }
    }

    #[test]
    fn an_allocation_of_the_host_that_aborts_is_no_crash() {
        let mut transcript = Transcript::default();
        told(&mut transcript, &Said::Begun);
        let judged = |words: &str| transcript.judge(&ended(End::Signalled(6), words));
        let ending = judged("memory allocation of 4096 bytes failed");
        assert_eq!((ending.outcome, ending.stage), (Outcome::OomHost, Some(Stage::Denoise)));
        assert_eq!(ending.host_shortage.and_then(|shortage| shortage.requested_bytes), Some(4096));
        assert_eq!(judged("  what():  std::bad_alloc").outcome, Outcome::OomHost);
        assert_eq!(judged("double free").outcome, Outcome::Crashed);
    }

    #[test]
    fn a_kill_while_the_kernel_counts_one_is_the_hosts_memory() {
        let mut transcript = Transcript::default();
        told(&mut transcript, &Said::Begun);
        let outcome = |end, is_memory_short| transcript.judge(&Ended { is_memory_short, ..ended(end, "") }).outcome;
        assert_eq!(outcome(End::Signalled(9), true), Outcome::OomHost);
        assert_eq!(outcome(End::Signalled(9), false), Outcome::Killed);
        assert_eq!(outcome(End::Signalled(15), true), Outcome::Killed);
        assert_eq!(outcome(End::TimedOut, true), Outcome::Timeout, "we ended it ourselves");
    }

    #[test]
    fn a_report_that_cannot_be_read_is_told() {
        let ended = ended(End::Exited(0), "");
        for (line, outcome, message) in [(Said::Finished, Outcome::Failed, ""), (Said::OutOfMemory, Outcome::Oom, "tried; ")] {
            let mut transcript = Transcript::default();
            told(&mut transcript, &line);
            let mut ending = transcript.judge(&ended);
            ending.lacks_report("EOF at line 1");
            assert_eq!(ending.outcome, outcome);
            let start = format!("{message}the virtual GPU's report of the worker cannot be read (EOF at line 1)");
            assert!(ending.error.as_ref().is_some_and(|error| error.starts_with(&start)), "{ending:?}");
        }
    }
}
