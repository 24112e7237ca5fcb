//! Ctrl-C: the first one asks for a clean end, a second one ends all that was started, and then this program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::children;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// Signals reach a process as a whole.
static WANTED: AtomicBool = AtomicBool::new(false);

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
                if WANTED.swap(true, Ordering::Relaxed) {
                    children::end_all();
                    low_level::exit(ExitCode::Interrupted as i32);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(Self)
    }

    /// Whether a signal came.
    pub(crate) fn is_wanted(self) -> bool {
        WANTED.load(Ordering::Relaxed)
    }
}
