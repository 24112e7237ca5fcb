//! Temporary folders. A process locks each of its own for as long as it lives; what a dead process left goes when the next one looks. The system takes the lock
//! away with the process, however that ends, so no process is mistaken for another one that has its number.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::error::Error;

/// What a folder is called, before what makes it one of a kind.
const RUN: &str = "run-";
/// What a link to one is called by which other processes find it, before the name that they look for.
const LINK: &str = "known-as-";
/// In such a folder, the file that its process has locked as long as it lives.
const OWNER: &str = "owner";

/// A folder of this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    base: PathBuf,
    _owner: File,
}

impl Scratch {
    /// One among the user's temporary files.
    pub(crate) fn new() -> Result<Self, Error> {
        let base = base();
        Self::new_in(&base)
            .map_err(|error| Error::Fault(format!("no temporary folder in {}: {error}: TMPDIR names another place", base.display())))
    }

    /// One in `base`, a folder for such folders alone, which is made where it is not there.
    pub(crate) fn new_in(base: &Path) -> io::Result<Self> {
        let _alone = cleared(base)?;
        let folder = tempfile::Builder::new().prefix(RUN).tempdir_in(base)?;
        let owner = File::create(folder.path().join(OWNER))?;
        owner.try_lock()?;
        Ok(Self { folder: folder.keep(), base: base.to_owned(), _owner: owner })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Lets other processes of this user find it by `name`, as long as it is there.
    pub(crate) fn known_as(&self, name: &str) -> io::Result<()> {
        let _alone = cleared(&self.base)?;
        symlink(&self.folder, link(&self.base, name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now goes when the next process looks.
        let _ = fs::remove_dir_all(&self.folder);
        clear(&self.base);
    }
}

/// The folder of a living process of this user that is known as `name`.
pub(crate) fn known(name: &str) -> Option<PathBuf> {
    let folder = fs::read_link(link(&base(), name)).ok()?;
    (!is_dead(&folder)).then_some(folder)
}

fn link(base: &Path, name: &str) -> PathBuf {
    base.join(format!("{LINK}{name}"))
}

/// Whether the process is gone that made `folder`.
pub(crate) fn is_dead(folder: &Path) -> bool {
    is_let_go(&folder.join(OWNER))
}

/// Whether no process has locked that file, or it is not there.
pub(crate) fn is_let_go(file: &Path) -> bool {
    File::open(file).map_or(true, |file| file.try_lock().is_ok())
}

/// Removes what dead processes left among the user's temporary files.
pub(crate) fn clear_temporary() {
    clear(&base());
}

/// Removes what dead processes left in `base`, and `base` itself where no living one has a folder in it.
pub(crate) fn clear(base: &Path) {
    if !base.is_dir() {
        return;
    }
    if let Ok(_alone) = cleared(base) {
        let _ = fs::remove_dir(base);
    }
}

/// This user's folder among temporary files.
fn base() -> PathBuf {
    env::temp_dir().join(of_user("lowmem"))
}

/// A folder's name that no other user's has.
pub(crate) fn of_user(name: &str) -> String {
    format!("{name}-{}", geteuid().as_raw())
}

/// The folder `base`, made where it is not there and locked, without what dead processes left in it.
fn cleared(base: &Path) -> io::Result<File> {
    let locked = loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(base) {
            // Something else is there, or it was the folder, and another process has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        // Temporary files are everybody's: a folder that somebody else made in our name is none of ours, nor is what a link leads to.
        let found = match fs::symlink_metadata(base) {
            // The process before may have removed it already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.uid() != geteuid().as_raw() || !found.is_dir() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let Ok(folder) = File::open(base) else { continue };
        folder.lock()?;
        // Or while this one waited.
        if fs::metadata(base).is_ok_and(|now| folder.metadata().is_ok_and(|locked| locked.ino() == now.ino())) {
            break folder;
        }
    };
    let entries: Vec<_> =
        fs::read_dir(base)?.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    for (_, path) in entries.iter().filter(|(name, path)| name.starts_with(RUN) && is_dead(path)) {
        // Its own process may be removing it now.
        let _ = fs::remove_dir_all(path);
    }
    for (_, path) in entries.iter().filter(|(name, path)| name.starts_with(LINK) && !path.exists()) {
        let _ = fs::remove_file(path);
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_process_and_leaves_others_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let base = parent.path().join("mine");
        let [one, other] = [1, 2].map(|_| Scratch::new_in(&base).expect("made"));
        let folders = [one.path().to_owned(), other.path().to_owned()];
        fs::write(folders[0].join("weights"), "many").expect("written");
        drop(one);
        assert!(!folders[0].exists() && folders[1].is_dir());
        drop(other);
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 0, "nothing is left");
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_a_living_ones_is_not() {
        let parent = tempfile::tempdir().expect("a folder");
        let base = parent.path().join("mine");
        let living = Scratch::new_in(&base).expect("made");
        // A process that was killed has unlocked its file, or never came to make it.
        for (name, has_owner) in [("run-locked-once", true), ("run-early", false)] {
            fs::create_dir(base.join(name)).expect("made");
            fs::write(base.join(name).join(if has_owner { OWNER } else { "weights" }), "").expect("written");
        }
        fs::write(base.join("a-persons-own"), "").expect("written");
        clear(&base);
        let mut left: Vec<_> = fs::read_dir(&base).expect("readable").map(|entry| entry.expect("readable").path()).collect();
        left.sort();
        assert_eq!(left, [base.join("a-persons-own"), living.path().to_owned()]);
    }

    #[test]
    fn a_name_leads_to_a_living_process_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let base = parent.path().join("mine");
        let first = Scratch::new_in(&base).expect("made");
        first.known_as("job").expect("known");
        let second = Scratch::new_in(&base).expect("made");
        assert!(second.known_as("job").is_err(), "one of two");
        drop(first);
        second.known_as("job").expect("it is free again");
        drop(second);
        assert!(!base.exists(), "the link went too");
    }

    #[test]
    fn many_come_and_go_at_once() {
        let parent = tempfile::tempdir().expect("a folder");
        let base = parent.path().join("mine");
        let come_and_go = || (0..200).for_each(|_| drop(Scratch::new_in(&base).expect("made")));
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(come_and_go))));
        assert!(!base.exists());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let parent = tempfile::tempdir().expect("a folder");
        let (base, other) = (parent.path().join("mine"), parent.path().join("other"));
        fs::create_dir_all(other.join("run-x")).expect("made");
        std::os::unix::fs::symlink(&other, &base).expect("linked");
        assert!(Scratch::new_in(&base).is_err() && other.join("run-x").is_dir());
    }
}
