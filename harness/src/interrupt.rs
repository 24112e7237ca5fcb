//! Ctrl-C: the first one asks for a clean end, a second one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Error;
use crate::exit_code::ExitCode;

/// Whether the user wants the program to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Error> {
        let wanted = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let register = || {
                // In this order: the first signal arms what the second one sets off.
                flag::register_conditional_shutdown(signal, ExitCode::Interrupted as i32, Arc::clone(&wanted.0))?;
                flag::register(signal, Arc::clone(&wanted.0))
            };
            register().map_err(|error| Error::Fault(format!("could not listen for signal {signal}: {error}")))?;
        }
        Ok(wanted)
    }

    /// Whether a signal came.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
