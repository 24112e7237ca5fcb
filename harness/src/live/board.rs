//! What those who look are told: how far the run is, and its page, which is made from the run directory when somebody asks for it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reports::Summary;
use serde::Serialize;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::progress::Reached;

/// How long the end waits for those who look to take the last page.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Cases run, or may come.
    Running,
    /// Somebody who looks has asked to stop.
    Stopping,
    /// No more cases come.
    Ended,
}

/// How far a run is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Now {
    /// A higher one comes with each change.
    pub(super) version: u64,
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) reached: Reached,
    #[serde(skip)]
    was_stopped: bool,
    /// How many are told of changes.
    #[serde(skip)]
    listeners: usize,
}

/// A page of that version.
type Page = (u64, Arc<str>);

/// What those who look are told.
pub(super) struct Board {
    dir: PathBuf,
    stop: Option<Interrupt>,
    now: Mutex<Now>,
    changed: Condvar,
    /// The newest that was made: several may look.
    page: Mutex<Option<Page>>,
}

/// Somebody who is told of changes.
pub(super) struct Listener<'a>(&'a Board);

impl Board {
    pub(super) fn new(dir: PathBuf, stop: Option<Interrupt>, reached: Reached) -> Self {
        let now = Now { version: 1, state: State::Running, reached, was_stopped: false, listeners: 0 };
        Self { dir, stop, now: Mutex::new(now), changed: Condvar::new(), page: Mutex::new(None) }
    }

    /// The run has got so far.
    pub(super) fn reach(&self, reached: Reached) {
        self.change(|now| now.reached = reached);
    }

    /// What a Ctrl-C does; whether it may be asked for here.
    pub(super) fn stop(&self) -> bool {
        let Some(interrupt) = self.stop else { return false };
        self.change(|now| {
            if now.state == State::Running {
                (now.state, now.was_stopped) = (State::Stopping, true);
                interrupt.ask();
            }
        });
        true
    }

    /// Whether somebody who looks had it end.
    pub(super) fn was_stopped(&self) -> bool {
        locked(&self.now).was_stopped
    }

    /// No more cases come. Waits a little until all who look have the last page.
    pub(super) fn end(&self) {
        self.change(|now| now.state = State::Ended);
        drop(self.changed.wait_timeout_while(locked(&self.now), FAREWELL, |now| now.listeners > 0));
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = locked(&self.now);
        change(&mut now);
        now.version += 1;
        self.changed.notify_all();
    }

    /// Somebody wants to be told of changes.
    pub(super) fn listen(&self) -> Listener<'_> {
        locked(&self.now).listeners += 1;
        Listener(self)
    }

    /// The page as it is now.
    pub(super) fn page(&self) -> Result<Arc<str>, Error> {
        let mut page = locked(&self.page);
        // Before the records are read: what comes in meanwhile makes another version.
        let version = locked(&self.now).version;
        if let Some((of, text)) = &*page
            && *of == version
        {
            return Ok(Arc::clone(text));
        }
        let run = reports::load(&self.dir)?;
        let text: Arc<str> = reports::live_page(&Summary::of(&run), reports::Live { version, may_stop: self.stop.is_some() })?.into();
        *page = Some((version, Arc::clone(&text)));
        Ok(text)
    }
}

impl Listener<'_> {
    /// How far it is, when that is of another version than `known` or `patience` is over.
    pub(super) fn wait(&self, known: u64, patience: Duration) -> Now {
        let is_known = |now: &mut Now| now.version == known;
        let (now, _) = self.0.changed.wait_timeout_while(locked(&self.0.now), patience, is_known).unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        locked(&self.0.now).listeners -= 1;
        self.0.changed.notify_all();
    }
}

/// Locks. A thread that died has left nothing half done: each change is one assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
