//! What this rank lets others see of itself (see [`Signs`]): that it goes on, and whether it waits for them. The thread that works says so, as it works.
//!
//! Of ranks that are threads, and of one rank alone, nothing is said.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, PoisonError};

use engine_protocol::{RankRequest, Signs};

use crate::error::{Error, Result};

struct Said {
    place: PathBuf,
    file: File,
    signs: Signs,
}

static SAID: Mutex<Option<Said>> = Mutex::new(None);

/// From now on others see how far this rank is.
///
/// # Errors
/// A folder that cannot be written to.
pub(crate) fn begin(ranks: &RankRequest) -> Result<()> {
    let place = Signs::place(&ranks.meeting, ranks.rank);
    let failed = |error| Error::file(&place, error);
    let began = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Signs::began(&stat)).unwrap_or_default();
    let signs = Signs { process: process::id(), began, ..Signs::default() };
    // In one step, so that nobody reads half of it.
    let draft = place.with_extension("draft");
    fs::write(&draft, signs.to_line()).and_then(|()| fs::rename(&draft, &place)).map_err(failed)?;
    let file = File::options().write(true).open(&place).map_err(failed)?;
    *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some(Said { place, file, signs });
    Ok(())
}

/// This rank goes on.
pub(crate) fn beat() {
    say(|_| {});
}

/// Runs what waits until other ranks are there, or have done something.
pub(crate) fn wait_for_ranks<R>(wait: impl FnOnce() -> R) -> R {
    say(|signs| signs.waits = true);
    let result = wait();
    say(|signs| {
        signs.waits = false;
        signs.met += 1;
    });
    result
}

/// Other ranks were there already. Others see that with the next sign, which costs a write: a step may have a hundred thousand exchanges.
pub(crate) fn met_without_waiting() {
    if let Some(said) = &mut *SAID.lock().unwrap_or_else(PoisonError::into_inner) {
        said.signs.met += 1;
    }
}

fn say(change: impl FnOnce(&mut Signs)) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Said { place, file, signs }) = &mut *said else { return };
    change(signs);
    signs.beats += 1;
    if file.write_all_at(signs.to_line().as_bytes(), 0).is_err() {
        // Who cannot say how far it is shall not be taken for one that hangs.
        let _ = fs::remove_file(place);
        *said = None;
    }
}
