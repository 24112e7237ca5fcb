//! Programs that this one starts, none of which outlives it. Each has a guard: see there.

mod guard;
mod lines;
mod listed;

use std::collections::BTreeSet;
use std::env;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, set_child_subreaper, waitid, waitpid};
use signal_hook::consts::SIGKILL;

pub(crate) use guard::{PASSED_ON, called};
pub(crate) use lines::{LastWords, Line, Room, cut, drain, read_lines};
pub(crate) use listed::children_of;

/// How long a guard may take to end what it guards, before it is killed itself.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long the output of a program may stay open after its end: something else may hold it.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether all have ended.
const POLL: Duration = Duration::from_millis(2);

/// Those that run. Its lock is held while one is started and while one is taken in, so that no signal meets another process of the same number.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
/// Children that were there before this program was: a shell that becomes another program hands its own on.
static FOREIGN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The command that starts `program` under a guard, with the same words, variables and folder. What the program leaves behind has the time `grace` to end by itself.
///
/// # Errors
/// A program that is not there, and one that may not be executed.
pub(crate) fn guarded(program: &Command, grace: Duration) -> io::Result<Command> {
    find(program)?;
    Ok(guard::command(program, grace))
}

/// What `execvp` would find.
fn find(program: &Command) -> io::Result<()> {
    let name = Path::new(program.get_program());
    let tried: Vec<PathBuf> = if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        vec![program.get_current_dir().map_or_else(|| name.to_owned(), |folder| folder.join(name))]
    } else {
        let own = program.get_envs().find(|(key, _)| *key == "PATH").map(|(_, value)| value.map(ToOwned::to_owned));
        let path = own.unwrap_or_else(|| env::var_os("PATH")).unwrap_or_else(|| "/bin:/usr/bin".into());
        env::split_paths(&path).map(|folder| folder.join(name)).collect()
    };
    let found: Vec<_> = tried.iter().filter_map(|path| path.metadata().ok()).collect();
    let may_run = |file: &std::fs::Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
    match found.as_slice() {
        [] => Err(ErrorKind::NotFound.into()),
        files if files.iter().any(may_run) => Ok(()),
        _ => Err(ErrorKind::PermissionDenied.into()),
    }
}

/// Runs `program` to its end without input; how it ended, and the last lines of its output and of its standard error.
///
/// # Errors
/// As [`guarded`].
pub(crate) fn last_words(program: &Command, grace: Duration, room: Room) -> io::Result<(ExitStatus, [Vec<String>; 2])> {
    let mut command = guarded(program, grace)?;
    let mut child = Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (printed, said) = (LastWords::read(child.stdout(), room), LastWords::read(child.stderr(), room));
    let status = child.wait()?;
    let deadline = Instant::now() + DRAIN;
    Ok((status, [printed.until(deadline), said.until(deadline)]))
}

/// A guard that runs. Dropped, it ends what it guards.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    ended: Option<ExitStatus>,
    /// When it was asked to end.
    asked: Option<Instant>,
}

impl Guarded {
    /// Starts a command that [`guarded`] gave. The calling thread must live until it has ended: its end is taken for this program's.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        static FIRST: Once = Once::new();
        let mut running = locked(&RUNNING);
        FIRST.call_once(|| {
            locked(&FOREIGN).extend(children_of(std::process::id()));
            // Where a guard is killed, what it guarded comes to us.
            let _ = set_child_subreaper(Some(getpid()));
        });
        let child = command.spawn()?;
        running.insert(child.id());
        Ok(Self { child, ended: None, asked: None })
    }

    /// The guard's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The program's number, where it still runs.
    pub(crate) fn program(&self) -> Option<u32> {
        children_of(self.child.id()).first().copied()
    }

    /// Standard input, once.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Standard output, once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Standard error, once.
    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Passes a signal on to the program.
    pub(crate) fn signal(&self, signal: i32) {
        signal_to(self.child.id(), Signal::from_named_raw(signal));
    }

    /// Asks for the end of the program and of all that descends from it.
    pub(crate) fn end(&mut self) {
        if self.asked.is_none() && self.ended.is_none() {
            self.asked = Some(Instant::now());
            signal_to(self.child.id(), Some(guard::END));
        }
    }

    /// How the program ended, where it did.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let mut running = locked(&RUNNING);
        if self.asked.is_some_and(|asked| asked.elapsed() > PATIENCE) {
            self.child.kill()?;
        }
        if let Some(status) = self.child.try_wait()? {
            running.remove(&self.child.id());
            self.ended = Some(status);
            if status.signal() == Some(SIGKILL) {
                // It may have been the guard itself.
                end_strays(&running);
            }
        }
        Ok(self.ended)
    }

    /// Waits until the program has ended; it is not taken in, so that it can still be signalled.
    pub(crate) fn wait_without_reaping(&self) -> io::Result<()> {
        let Some(process) = pid(self.child.id()) else { return Ok(()) };
        loop {
            match waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.wait_without_reaping()?;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
        while let Ok(None) = self.try_wait() {
            thread::sleep(POLL);
        }
    }
}

/// Asks for the end of all that run, and waits until they have ended: those that started them take them in.
pub(crate) fn end_all() {
    let deadline = Instant::now() + PATIENCE;
    locked(&RUNNING).iter().for_each(|&child| signal_to(child, Some(guard::END)));
    while Instant::now() < deadline && locked(&RUNNING).iter().any(|&child| is_running(child)) {
        thread::sleep(POLL);
    }
}

/// Whether a child has not ended yet, be it taken in or not.
fn is_running(child: u32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    pid(child).is_some_and(|child| matches!(waitid(WaitId::Pid(child), options), Ok(None)))
}

/// Kills the children that nobody here started, until none is left.
fn end_strays(running: &BTreeSet<u32>) {
    let deadline = Instant::now() + PATIENCE;
    let foreign = locked(&FOREIGN);
    loop {
        let mut strays = children_of(std::process::id());
        strays.retain(|child| !running.contains(child) && !foreign.contains(child));
        if strays.is_empty() || Instant::now() >= deadline {
            return;
        }
        for stray in strays {
            signal_to(stray, Some(Signal::KILL));
            let _ = pid(stray).map(|stray| waitpid(Some(stray), WaitOptions::NOHANG));
        }
        thread::sleep(POLL);
    }
}

fn signal_to(process: u32, signal: Option<Signal>) {
    // One that has ended needs no signal.
    let _ = pid(process).zip(signal).map(|(process, signal)| kill_process(process, signal));
}

fn pid(process: u32) -> Option<Pid> {
    i32::try_from(process).ok().and_then(Pid::from_raw)
}

/// Locks. A thread that died has left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
