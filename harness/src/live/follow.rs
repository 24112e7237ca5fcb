//! A run directory that another process writes: a look now and then at whether its files have changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use reports::{MANIFEST, RECORDS, Run};

use super::board::Board;
use crate::error::Error;
use crate::progress::Reached;

/// How often it is looked. The kernel's own word of a change does not come from other machines, whose runs are followed too.
const POLL: Duration = Duration::from_millis(500);

/// The length and the time of the files that change.
type Seen = [Option<(u64, SystemTime)>; 2];

/// How far the run in `dir` is, and which files say so.
pub(super) fn look(dir: &Path) -> Result<(Seen, Reached), Error> {
    // Before they are read: what comes in meanwhile is seen the next time.
    let seen = seen(dir);
    Ok((seen, reached(&reports::load(dir)?)))
}

/// Tells of what changes in `dir` after it was seen, in a thread of its own.
pub(super) fn start(board: Arc<Board>, dir: PathBuf, mut known: Seen) -> Result<(), Error> {
    let follow = move || {
        loop {
            thread::sleep(POLL);
            // One that cannot be read now may be, later; who asks for the page is told why.
            if seen(&dir) != known
                && let Ok((seen, reached)) = look(&dir)
            {
                known = seen;
                board.reach(reached);
            }
        }
    };
    thread::Builder::new()
        .name("follower".into())
        .spawn(follow)
        .map_err(|error| Error::Fault(format!("no thread to follow the run: {error}")))?;
    Ok(())
}

fn reached(run: &Run) -> Reached {
    let failed = run.records.iter().filter(|record| !record.outcome.is_answer()).count();
    Reached { done: run.records.len() as u64, total: run.manifest.cases.len() as u64, failed: failed as u64, left: None }
}

fn seen(dir: &Path) -> Seen {
    [MANIFEST, RECORDS].map(|name| fs::metadata(dir.join(name)).ok().and_then(|file| Some((file.len(), file.modified().ok()?))))
}
