//! A worker's process: a time limit, its output as lines, and how it ended. The clock and Ctrl-C decide, whatever it does and whatever it starts.

use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGKILL;

use crate::children::{DRAIN, Guarded, LastWords, Line, Room, drain, guarded, read_lines};
use crate::error::Error;
use crate::host_kills::{HostKills, kernel_log_names};
use crate::interrupt::Interrupt;

/// How long to wait for the next line before looking at the clock and at Ctrl-C again.
const POLL: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// By us, since its time was up.
    TimedOut,
    /// By us, since the user wants to end.
    Interrupted,
    /// By us, since what it said is enough.
    CutShort,
    /// By us, since what it was part of is over.
    Halted,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "crashed with {}", name(*signal)),
            Self::TimedOut => f.write_str("was not done within its time limit"),
            Self::Interrupted | Self::CutShort | Self::Halted => f.write_str("was ended"),
        }
    }
}

/// A signal as people know it.
pub(super) fn name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// A process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// How.
    pub(super) end: End,
    /// Whether the kernel ended processes meanwhile since the machine's memory ran out.
    pub(super) is_memory_short: bool,
    /// The last lines of its standard error.
    pub(super) last_words: Vec<String>,
}

/// How much is kept of what a worker says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of a line of its output.
    pub(super) line: usize,
    /// Of its standard error.
    pub(super) last_words: Room,
}

/// What ends a process before its time.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    /// How long it may take.
    pub(super) time: Option<Duration>,
    /// The user.
    pub(super) interrupt: Interrupt,
    /// Whether what it is part of is over.
    pub(super) is_over: &'a dyn Fn() -> bool,
}

/// Runs `command`, gives it `input`, hands each line of its output to `on_line` until that has enough, and sees to it that nothing that it started is left.
pub(super) fn run(
    command: &Command,
    input: String,
    limits: Limits<'_>,
    bounds: Bounds,
    on_line: &mut dyn FnMut(&Line) -> ControlFlow<()>,
) -> Result<Ended, Error> {
    let program = command.get_program().to_string_lossy();
    let kills = HostKills::until_now();
    let start = || {
        let mut command = guarded(command, Duration::ZERO)?;
        // A group of its own, which the terminal's Ctrl-C does not reach: whether it ends is decided here.
        Guarded::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0))
    };
    let mut worker = start().map_err(|error| Error::Fault(format!("{program}: {error}: run `make build`")))?;

    if let Some(mut stdin) = worker.stdin() {
        // On a thread, since a worker that never reads would block us; one that is gone already says by its end what is wrong.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    let lines = read_lines(worker.stdout(), bounds.line);
    let last_words = LastWords::read(worker.stderr(), bounds.last_words);

    let deadline = limits.time.and_then(|limit| Instant::now().checked_add(limit));
    let (mut forced, mut process) = (None, None);
    let (mut is_open, mut looked) = (true, Instant::now());
    let status = loop {
        if is_open {
            match lines.recv_timeout(POLL) {
                Ok(line) => {
                    if forced.is_none() && on_line(&line).is_break() {
                        forced = Some(End::CutShort);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => is_open = false,
            }
        } else {
            // Its output is closed, so its end is near.
            thread::sleep(Duration::from_millis(2));
        }
        if forced.is_none() && limits.interrupt.is_wanted() {
            forced = Some(End::Interrupted);
        } else if forced.is_none() && (limits.is_over)() {
            forced = Some(End::Halted);
        } else if forced.is_none() && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            forced = Some(End::TimedOut);
        }
        if forced.is_some() {
            worker.end();
        }
        // Of one that says much, not at each line.
        if !is_open || forced.is_some() || looked.elapsed() >= POLL {
            looked = Instant::now();
            process = process.or_else(|| worker.program());
            match worker.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(Error::Fault(format!("{program}: cannot tell whether it runs: {error}"))),
            }
        }
    };
    let deadline = Instant::now() + DRAIN;
    if forced.is_none() {
        drain(&lines, deadline, on_line);
    }
    drop(lines);
    let is_in_log = || status.signal().is_some() && process.is_some_and(kernel_log_names);
    let is_memory_short = is_in_log() || HostKills::until_now().are_more_than(&kills);
    // What it said may be enough, and something else may have ended it meanwhile.
    let by_us = forced.filter(|&forced| !matches!(forced, End::CutShort | End::Halted) || status.signal() == Some(SIGKILL));
    Ok(Ended { end: by_us.unwrap_or_else(|| end(status)), is_memory_short, last_words: last_words.until(deadline) })
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}
