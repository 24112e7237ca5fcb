//! Ctrl-C: the first one asks for a clean end, a second one ends all that was started, and then this program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::children;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Signals reach a process as a whole.
static WANTED: AtomicBool = AtomicBool::new(false);
/// Told when it becomes so, for those who wait.
static CAME: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// Whether the user wants the program to end. It is never wanted where nobody listens: a signal ends the program then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Interrupt;

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Error> {
        let failed = |error| Error::Fault(format!("could not listen for signals: {error}"));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let listen = move || {
            for _ in &mut signals {
                if Self.ask() {
                    children::end_all();
                    low_level::exit(ExitCode::Interrupted as i32);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(Self)
    }

    /// Asks for a clean end, as the first Ctrl-C does; whether one was asked for before.
    pub(crate) fn ask(self) -> bool {
        let _lock = CAME.0.lock().unwrap_or_else(PoisonError::into_inner);
        CAME.1.notify_all();
        WANTED.swap(true, Ordering::Relaxed)
    }

    /// Waits until an end is wanted.
    pub(crate) fn wait(self) {
        let lock = CAME.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(CAME.1.wait_while(lock, |()| !self.is_wanted()));
    }

    /// Waits until an end is wanted, or so long; whether one is wanted.
    pub(crate) fn wait_for(self, most: Duration) -> bool {
        let lock = CAME.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(CAME.1.wait_timeout_while(lock, most, |()| !self.is_wanted()));
        self.is_wanted()
    }

    /// Whether an end is wanted.
    pub(crate) fn is_wanted(self) -> bool {
        WANTED.load(Ordering::Relaxed)
    }
}
