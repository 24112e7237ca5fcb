//! What this rank lets others see of itself (see [`Signs`]): that it goes on, how long that takes it, and whether it waits for them. The thread that works says so, as it works.
//!
//! Of ranks that are threads, and of one rank alone, nothing is said.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine_protocol::{RankRequest, Signs};

use crate::error::{Error, Result};

/// What is said, and where.
#[derive(Debug)]
struct Said {
    place: PathBuf,
    file: File,
    signs: Signs,
    /// When it last went on.
    last: Instant,
    /// The longest that it took to go on in the step under way; nothing where that is not a whole one, or does what others do not.
    longest: Option<Duration>,
}

static SAID: Mutex<Option<Said>> = Mutex::new(None);

/// From now on others see how far this rank is.
///
/// # Errors
/// A folder that cannot be written to.
pub(crate) fn begin(ranks: &RankRequest) -> Result<()> {
    let said = Said::new(ranks)?;
    *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    Ok(())
}

/// This rank goes on.
pub(crate) fn beat() {
    say(|_| {});
}

/// Runs what waits until other ranks are there, or have done something.
pub(crate) fn wait_for_ranks<R>(wait: impl FnOnce() -> R) -> R {
    say(|said| said.signs.waits = true);
    let result = wait();
    say(|said| {
        said.signs.waits = false;
        said.signs.met += 1;
    });
    result
}

/// Other ranks were there already. Others see that with the next sign, which costs a write: a step may have a hundred thousand exchanges.
pub(crate) fn met_without_waiting() {
    if let Some(said) = &mut *SAID.lock().unwrap_or_else(PoisonError::into_inner) {
        said.signs.met += 1;
    }
}

/// A stage begins: how long it takes to go on there is not known yet.
pub(crate) fn begin_stage() {
    say(Said::begin_stage);
}

/// The step under way did what others do not, such as load weights.
pub(crate) fn interrupt_step() {
    say(Said::interrupt_step);
}

/// A step of the stage is done.
pub(crate) fn end_step() {
    say(Said::end_step);
}

fn say(change: impl FnOnce(&mut Said)) {
    let mut open = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(said) = &mut *open else { return };
    if said.go_on(change).is_err() {
        // Who cannot say how far it is shall not be taken for one that hangs.
        let _ = fs::remove_file(&said.place);
        *open = None;
    }
}

impl Said {
    fn new(ranks: &RankRequest) -> Result<Self> {
        let place = Signs::place(&ranks.meeting, ranks.rank);
        let failed = |error| Error::file(&place, error);
        let began = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Signs::began(&stat)).unwrap_or_default();
        let signs = Signs { process: process::id(), began, ..Signs::default() };
        // In one step, so that nobody reads half of it.
        let draft = place.with_extension("draft");
        fs::write(&draft, signs.to_line()).and_then(|()| fs::rename(&draft, &place)).map_err(failed)?;
        let file = File::options().write(true).open(&place).map_err(failed)?;
        Ok(Self { place, file, signs, last: Instant::now(), longest: None })
    }

    fn begin_stage(&mut self) {
        (self.signs.pace, self.longest) = (0, Some(Duration::ZERO));
    }

    /// What comes after it may be of other weights, and take longer.
    fn interrupt_step(&mut self) {
        (self.signs.pace, self.longest) = (0, None);
    }

    fn end_step(&mut self) {
        let longest = self.longest.replace(Duration::ZERO).map_or(0, |longest| longest.as_millis() as u64 + 1);
        self.signs.pace = self.signs.pace.max(longest);
    }

    fn go_on(&mut self, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let took = self.last.elapsed();
        self.last += took;
        self.longest = self.longest.map(|longest| longest.max(took));
        change(self);
        self.signs.beats += 1;
        self.file.write_all_at(self.signs.to_line().as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_whole_steps() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut said = Said::new(&RankRequest { rank: 1, count: 2, meeting: folder.path().into() }).expect("a file");
        let mut pace_after = |change: fn(&mut Said)| {
            said.go_on(change).expect("written");
            let line = fs::read_to_string(Signs::place(folder.path(), 1)).expect("what it says");
            Signs::from_line(&line).expect("a line of signs").pace
        };
        assert_eq!(pace_after(Said::end_step), 0, "it did not begin with a stage");
        assert_eq!([pace_after(Said::begin_stage), pace_after(|_| {})], [0, 0], "no step is done");
        assert!(pace_after(Said::end_step) > 0);
        assert_eq!([pace_after(Said::interrupt_step), pace_after(Said::end_step)], [0, 0], "that step did something else too");
        assert!(pace_after(Said::end_step) > 0);
        assert_eq!(pace_after(Said::begin_stage), 0, "another stage");
    }

    #[test]
    fn the_pace_is_the_longest_that_it_took() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut said = Said::new(&RankRequest { rank: 0, count: 2, meeting: folder.path().into() }).expect("a file");
        said.begin_stage();
        for longest in [300, 500, 200] {
            said.longest = Some(Duration::from_millis(longest));
            said.end_step();
        }
        assert_eq!(said.signs.pace, 501);
    }
}
