//! The program's run: signals reach it, and what its processes hold of the machine's memory is looked at.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use crate::children::{Guarded, PASSED_ON, guarded};
use crate::error::Error;
use crate::host_peaks::HostPeaks;

/// How long what a program leaves behind may take to end by itself: some of it clears up after the program.
pub(in crate::commands) const GRACE: Duration = Duration::from_secs(2);

/// How the program ended, and the most of the machine's memory that each of its processes was seen to hold.
pub(super) type Watched = (ExitStatus, BTreeMap<u32, u64>);

/// Runs it to its end. Signals that are sent to us alone are passed on; what the terminal sends reaches the program by itself.
pub(super) fn watch(command: &mut Command) -> Result<Watched, Error> {
    run(command, false)
}

/// The same without input and output: standard input may be read already, and what is said would be said twice.
pub(super) fn watch_silently(command: &mut Command) -> Result<Watched, Error> {
    run(command, true)
}

fn run(command: &Command, is_silent: bool) -> Result<Watched, Error> {
    let program = command.get_program().to_string_lossy();
    let fault = |what: &str, error: std::io::Error| Error::Fault(format!("{program}: {what}: {error}"));
    let mut signals = SignalsInfo::<WithOrigin>::new(PASSED_ON).map_err(|error| fault("could not listen for signals", error))?;
    let spawned = guarded(command, GRACE).and_then(|mut command| {
        if is_silent {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        Guarded::spawn(&mut command)
    });
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Error::input(format!("{program}: there is no such program: name one on the PATH, or a file such as ./{program}"))
        }
        ErrorKind::PermissionDenied => {
            Error::input(format!("{program}: it may not be executed: name the program that runs it, as in `python {program}`"))
        }
        _ => Error::input(format!("{program}: could not be started: {error}")),
    })?;
    let handle = signals.handle();
    let host_peaks = HostPeaks::of(child.id());
    let waited = thread::scope(|scope| {
        let passing = &child;
        scope.spawn(move || {
            for origin in &mut signals {
                if origin.cause != Cause::Kernel {
                    passing.signal(origin.signal);
                }
            }
        });
        let waited = child.wait_without_reaping();
        // Before it is taken in: until then no other process has its number.
        handle.close();
        waited
    });
    let status = waited.and_then(|()| child.wait()).map_err(|error| fault("cannot tell how it ended", error))?;
    let mut host_peaks = host_peaks.end();
    host_peaks.remove(&child.id());
    Ok((status, host_peaks))
}
