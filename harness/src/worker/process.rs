//! A worker's process: a group of its own, a time limit, its output as lines, and how it ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use engine_protocol::Request;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::Error;
use crate::host_kills::{HostKills, kernel_log_names};
use crate::interrupt::Interrupt;

/// How long to wait for the next line before looking at the clock and at Ctrl-C again.
const POLL: Duration = Duration::from_millis(20);
/// How long a worker's output may stay open after its end: something else may hold it.
const DRAIN: Duration = Duration::from_secs(1);
/// Lines of standard error that are kept for the error text.
const LAST_LINES: usize = 12;

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

/// Runs `command`, gives it the request, hands each line of its output to `on_line`, and sees to it that nothing of its group is left.
pub(super) fn run(
    mut command: Command,
    request: &Request,
    limit: Option<Duration>,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<Ended, Error> {
    let input = serde_json::to_string(request).map_err(|error| Error::Fault(format!("the request is no JSON: {error}")))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let kills = HostKills::until_now();
    let child = command.spawn().map_err(|error| Error::Fault(format!("{program}: {error}: run `make build`")))?;
    let mut group = Group(child);
    let process = group.0.id();

    if let Some(mut stdin) = group.0.stdin.take() {
        // On a thread, since a worker that never reads would block us; one that is gone already says by its end what is wrong.
        thread::spawn(move || stdin.write_all(format!("{input}\n").as_bytes()));
    }
    let lines = read_lines(group.0.stdout.take());
    let errors = read_lines(group.0.stderr.take());

    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut forced = None;
    let mut open = true;
    let status = loop {
        if open {
            match lines.recv_timeout(POLL) {
                Ok(line) => on_line(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        } else {
            // Its output is closed, so its end is near.
            thread::sleep(Duration::from_millis(2));
        }
        if forced.is_none() && interrupt.is_wanted() {
            forced = Some(End::Interrupted);
            group.kill();
        } else if forced.is_none() && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            forced = Some(End::TimedOut);
            group.kill();
        }
        match group.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(Error::Fault(format!("{program}: cannot tell whether it runs: {error}"))),
        }
    };
    // What it started and left behind.
    group.kill();
    drain(&lines, on_line);
    let mut last_words = VecDeque::new();
    drain(&errors, &mut |line| {
        last_words.push_back(line.to_owned());
        if last_words.len() > LAST_LINES {
            last_words.pop_front();
        }
    });
    let is_memory_short = status.signal().is_some() && kernel_log_names(process) || HostKills::until_now().are_more_than(&kills);
    Ok(Ended { end: forced.unwrap_or_else(|| end(status)), is_memory_short, last_words: last_words.into() })
}

/// A process and its group, killed when dropped, so that no way out leaves it running.
struct Group(Child);

impl Group {
    fn kill(&self) {
        // A group that is gone already is what is wanted.
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process_group(pid, Signal::KILL));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}

/// Reads lines on a thread; the channel closes with the pipe.
fn read_lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            loop {
                line.clear();
                match reader.read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => break,
                    Ok(_) => {}
                }
                let text = String::from_utf8_lossy(&line);
                if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

fn drain(lines: &Receiver<String>, on_line: &mut dyn FnMut(&str)) {
    let deadline = Instant::now() + DRAIN;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        on_line(&line);
    }
}
