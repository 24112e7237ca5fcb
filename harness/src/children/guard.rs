//! What stands between this program and each one that it starts: this program again, under another name. It is the parent of all that the guarded program leaves
//! behind, and ends it: when the guarded program ends, when it is asked to, and when its own parent ends, be it by SIGKILL. It ends as the guarded program did.
//!
//! ```text
//! lowmem ──> lowmem-guard ──> lowmem-start, which becomes the program ──> whatever that starts
//! ```
//!
//! The kernel tells a process of its parent's end if the process has asked for it. Nobody can ask for a child, so the child asks as `lowmem-start`, and then becomes
//! the program, which keeps it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpgrp, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, waitpid,
};
use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level;

use super::listed::children_of;

/// What this program is called where it guards another one.
const GUARD: &str = "lowmem-guard";
/// What it is called before it becomes the guarded program.
const START: &str = "lowmem-start";
/// This very program, even where its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Tells a guard to end all that it guards. The kernel sends it when the guard's parent ends.
pub(super) const END: Signal = Signal::ALARM;
/// What people and programs send to each other, and a guarded program gets.
pub(crate) const PASSED_ON: [i32; 6] = [SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
/// How often it is looked whether anything is left.
const POLL: Duration = Duration::from_millis(1);
/// How long what is left may take to end after it was killed. What waits for a device cannot be killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a signal that is sent to all of a group, the guard sees one, and one more that its parent passes on, within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How shells count what could not be executed.
const NOT_EXECUTED: u8 = 126;

/// The command that guards `program`. What it leaves behind has the time `grace` to end by itself.
pub(super) fn command(program: &Command, grace: Duration) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0(GUARD).arg(own_number()).arg(grace.as_millis().to_string()).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = program.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

/// Does what this program's name says, where that is one of the two.
pub(crate) fn called() -> Option<ExitCode> {
    let mut words = env::args_os();
    let name = words.next()?;
    let role = if name == GUARD {
        guard
    } else if name == START {
        start
    } else {
        return None;
    };
    let parent = words.next()?.to_str()?.parse().ok().and_then(Pid::from_raw)?;
    Some(role(parent, words.collect()).unwrap_or_else(|error| {
        tell!("lowmem: {error}");
        ExitCode::from(NOT_EXECUTED)
    }))
}

/// Becomes the program, which ends with its parent.
fn start(parent: Pid, words: Vec<OsString>) -> std::io::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        // It ended before the kernel was asked.
        return Ok(ExitCode::FAILURE);
    }
    let [program, words @ ..] = words.as_slice() else { return Ok(ExitCode::FAILURE) };
    let error = Command::new(program).args(words).exec();
    Err(std::io::Error::new(error.kind(), format!("{}: could not be started: {error}", program.display())))
}

/// Starts the program and sees to it that nothing of it is left in the end.
fn guard(parent: Pid, words: Vec<OsString>) -> std::io::Result<ExitCode> {
    let [grace, words @ ..] = words.as_slice() else { return Ok(ExitCode::FAILURE) };
    let grace = Duration::from_millis(grace.to_str().and_then(|millis| millis.parse().ok()).unwrap_or_default());
    let mut signals = SignalsInfo::<WithOrigin>::new(PASSED_ON.into_iter().chain([SIGALRM, SIGCHLD]))?;
    set_parent_process_death_signal(Some(END))?;
    set_child_subreaper(Some(getpid()))?;
    if getppid() != Some(parent) {
        return Ok(ExitCode::FAILURE);
    }
    let program = Command::new(THIS_PROGRAM).arg0(START).arg(own_number()).args(words).spawn()?;
    let Some(program) = i32::try_from(program.id()).ok().and_then(Pid::from_raw) else { return Ok(ExitCode::FAILURE) };

    let mut ended = None;
    // One that leads a group of its own is no part of what a terminal or a shell signals.
    let is_alone = getpgrp() == getpid();
    let mut seen: BTreeMap<i32, Instant> = BTreeMap::new();
    for origin in &mut signals {
        match origin.signal {
            SIGALRM => break,
            SIGCHLD => ended = reap(program).or(ended),
            signal => {
                let is_passed_on = origin.process.is_some_and(|sender| Pid::from_raw(sender.pid) == Some(parent));
                let has_it_already = !is_alone && seen.get(&signal).is_some_and(|when| when.elapsed() < AT_ONCE);
                if !is_passed_on {
                    seen.insert(signal, Instant::now());
                }
                if is_alone || is_passed_on && !has_it_already {
                    // It is not reaped yet, so no other process has its number.
                    let _ = Signal::from_named_raw(signal).map(|signal| kill_process(program, signal));
                }
            }
        }
        if ended.is_some() {
            break;
        }
    }
    if ended.is_some() {
        let deadline = Instant::now() + grace;
        while is_anything_left() && Instant::now() < deadline && !signals.pending().any(|origin| origin.signal == SIGALRM) {
            thread::sleep(POLL);
        }
    }
    ended = end_all(program).or(ended);
    Ok(ended.map_or(ExitCode::FAILURE, end_as))
}

/// Takes in all children that have ended; how the program did, where it is among them.
fn reap(program: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((process, status))) = waitpid(None, WaitOptions::NOHANG) {
        if process == program {
            ended = Some(status);
        }
    }
    ended
}

/// Whether a child is left, after those that have ended are taken in.
fn is_anything_left() -> bool {
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Kills what is left, generation by generation: the children of one that ends become ours.
fn end_all(program: Pid) -> Option<WaitStatus> {
    let deadline = Instant::now() + PATIENCE;
    let mut ended = None;
    loop {
        for child in children_of(std::process::id()) {
            let child = i32::try_from(child).ok().and_then(Pid::from_raw);
            let _ = child.map(|child| kill_process(child, Signal::KILL));
        }
        ended = reap(program).or(ended);
        if !is_anything_left() || Instant::now() >= deadline {
            return ended;
        }
        thread::sleep(POLL);
    }
}

/// Ends as the program did.
fn end_as(status: WaitStatus) -> ExitCode {
    if let Some(signal) = status.terminating_signal() {
        // The program has left its core already, where it was to leave one.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = if signal == SIGKILL { low_level::raise(signal) } else { low_level::emulate_default_handler(signal) };
        // A signal that this program cannot end by is told as shells tell it.
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn own_number() -> String {
    std::process::id().to_string()
}
