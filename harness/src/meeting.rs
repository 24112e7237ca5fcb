//! Where ranks meet that a launcher started, each with a process of its own: a temporary folder of the first one's, in which each says how it ended. Who dies without a word
//! is found out by the lock that the system takes from it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::launched::Launched;
use crate::scratch::{self, Scratch};

/// So long ranks wait for one that has not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// From one look at what others do to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// A meeting, as one of its ranks sees it.
pub(crate) struct Meeting {
    pub(crate) launched: Launched,
    folder: PathBuf,
    /// Of the first rank, until it has told how all ended.
    _made: Option<Scratch>,
    /// Locked as long as this rank is there.
    _own: File,
    begun: Instant,
}

/// How another rank is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Other<T> {
    /// Nothing is known of it yet.
    NotThere,
    Working,
    /// It has ended, and said how.
    Ended(T),
    /// It is gone without a word.
    Dead,
}

impl Meeting {
    /// Comes to it, and waits for the first rank.
    pub(crate) fn join(launched: Launched, interrupt: Interrupt) -> Result<Self, Error> {
        let mut hasher = DefaultHasher::new();
        launched.job.hash(&mut hasher);
        let name = format!("ranks-{:016x}", hasher.finish());
        let made = if launched.is_first() { Some(Scratch::new()?) } else { None };
        let folder = match &made {
            Some(scratch) => {
                scratch
                    .known_as(&name)
                    .map_err(|error| Error::Fault(format!("ranks cannot meet in {}: {error}", scratch.path().display())))?;
                scratch.path().to_owned()
            }
            None => find(&name, interrupt)?,
        };
        // Locked before others see it.
        let (draft, place) = (folder.join(format!("draft-{}", launched.rank)), rank_file(&folder, launched.rank));
        let failed = |error| Error::io(&place, error);
        let own = File::create(&draft).map_err(failed)?;
        own.lock().and_then(|()| fs::rename(&draft, &place)).map_err(failed)?;
        Ok(Self { launched, folder, _made: made, _own: own, begun: Instant::now() })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says how this rank ended.
    pub(crate) fn tell(&self, ending: &impl Serialize) -> Result<(), Error> {
        let (draft, place) = (self.folder.join(format!("draft-{}", self.launched.rank)), ending_file(&self.folder, self.launched.rank));
        let text = serde_json::to_vec(ending).map_err(|error| Error::Fault(format!("an ending is no JSON: {error}")))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &place)).map_err(|error| Error::io(&place, error))
    }

    /// How another rank is.
    pub(crate) fn see<T: DeserializeOwned>(&self, rank: u32) -> Other<T> {
        let said = || serde_json::from_slice(&fs::read(ending_file(&self.folder, rank)).ok()?).ok();
        let place = rank_file(&self.folder, rank);
        match said() {
            Some(ending) => Other::Ended(ending),
            None if !place.exists() => Other::NotThere,
            None if !scratch::is_let_go(&place) => Other::Working,
            // It may have said it since.
            None => said().map_or(Other::Dead, Other::Ended),
        }
    }

    /// Whether a rank that is not there now has had its time.
    pub(crate) fn is_late(&self) -> bool {
        self.begun.elapsed() > PATIENCE
    }

    /// Whether the first rank is gone: all was told, or it died.
    pub(crate) fn is_over(&self) -> bool {
        scratch::is_dead(&self.folder)
    }
}

/// Waits a little before others are looked at again; whether the user wants to end.
pub(crate) fn rest(interrupt: Interrupt) -> bool {
    interrupt.wait_for(BETWEEN_LOOKS)
}

/// Waits for the first rank's folder.
fn find(name: &str, interrupt: Interrupt) -> Result<PathBuf, Error> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(folder) = scratch::known(name) {
            return Ok(folder);
        }
        if rest(interrupt) {
            return Err(Error::Interrupted);
        }
    }
    Err(Error::Fault(format!("the first rank has not come in {} s", PATIENCE.as_secs())))
}

fn rank_file(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("rank-{rank}"))
}

fn ending_file(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("rank-{rank}.json"))
}
