//! Where the workers of a run keep weights that are made from a seed, so that they are made once: a folder in shared memory where there is room for it, else
//! in the cache folder. It goes away with the run; what a run that was killed left behind goes when the next one begins.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Device, gib};
use rustix::process::geteuid;

use crate::error::Error;
use crate::model::{Models, weight_bytes};
use crate::pytorch;

/// Names another folder for it, or says `off`.
const FOLDER: &str = "LOWMEM_WEIGHTS";
const OFF: &str = "off";
/// Memory that is a file system.
const SHARED_MEMORY: &str = "/dev/shm";
/// What a run's own folder is called, before what makes it one of a kind.
const RUN: &str = "run-";
/// In a run's folder, the file that its process has locked as long as it lives.
const OWNER: &str = "owner";
/// Files hold the VAE too, norms in fp32, and the types that two cases ask for.
const ROOM: f64 = 1.1;

/// What makes the weights of two cases the same: the model, the type of arithmetic and the seed.
pub(crate) fn weights_of(config: &Config) -> (&str, &'static str, i64) {
    (&config.model, config.dtype.name(), config.seed)
}

/// A run's folder of weights, until it is dropped.
#[derive(Debug)]
pub(crate) struct SharedWeights {
    folder: PathBuf,
    base: PathBuf,
    _owner: File,
    /// What is expected in it.
    pub(crate) bytes: u64,
    /// Whether that takes memory, and not a disk's room.
    pub(crate) is_in_memory: bool,
}

impl SharedWeights {
    /// A folder for the weights of `cases`, and a sentence about it; no folder where no two cases share any, where nothing is computed, and where there is no
    /// room. What dead runs left is removed either way.
    pub(crate) fn for_cases<'a>(
        device: Device,
        models: &Models,
        cases: impl Iterator<Item = &'a Config>,
    ) -> Result<(Option<Self>, Option<String>), Error> {
        if device == Device::Virtual {
            return Ok((None, None));
        }
        let places = places();
        places.iter().for_each(|place| tidy(&place.base));
        let mut uses = BTreeMap::new();
        for config in cases {
            let bytes = weight_bytes(models.get(&config.model)?, config.dtype);
            let uses = uses.entry(weights_of(config)).or_insert((bytes, 0));
            uses.1 += 1;
        }
        if uses.values().all(|&(_, cases)| cases < 2) || env::var_os(FOLDER).is_some_and(|value| value == OFF) {
            return Ok((None, None));
        }
        let bytes = (uses.values().map(|&(bytes, _)| bytes).sum::<u64>() as f64 * ROOM) as u64;
        // A case has its own copy of the weights beside the file.
        let of_a_case = uses.values().map(|&(bytes, _)| bytes).max().unwrap_or(0);
        let has_room = |place: &&Place| {
            let memory = host_memory::available_bytes().unwrap_or(u64::MAX);
            let in_memory = !place.is_memory || bytes.saturating_add(of_a_case) <= memory;
            in_memory && free_bytes(&place.parent).is_some_and(|free| bytes <= free)
        };
        for place in places.iter().filter(has_room) {
            if let Ok(made) = Self::make(place, bytes) {
                let said =
                    format!("Weights from the seed are made once and shared: about {:.1} GiB in {}.", gib(bytes), place.parent.display());
                return Ok((Some(made), Some(said)));
            }
        }
        let tried: Vec<_> = places.iter().map(|place| place.parent.display().to_string()).collect();
        let said = format!(
            "Weights from the seed are made anew for each case: there is no room for {:.1} GiB in {}. {FOLDER} names another folder.",
            gib(bytes),
            tried.join(" or ")
        );
        Ok((None, Some(said)))
    }

    /// A folder of this process's own.
    fn make(place: &Place, bytes: u64) -> io::Result<Self> {
        let _alone = cleaned(&place.base)?;
        let folder = tempfile::Builder::new().prefix(RUN).tempdir_in(&place.base)?;
        let owner = File::create(folder.path().join(OWNER))?;
        owner.try_lock()?;
        Ok(Self { folder: folder.keep(), base: place.base.clone(), _owner: owner, bytes, is_in_memory: place.is_memory })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SharedWeights {
    fn drop(&mut self) {
        // What cannot be removed now goes when the next run begins.
        let _ = fs::remove_dir_all(&self.folder);
        tidy(&self.base);
    }
}

/// Removes what dead runs left in `base`, and `base` itself where no run has a folder in it.
fn tidy(base: &Path) {
    if !base.is_dir() {
        return;
    }
    if let Ok(_alone) = cleaned(base) {
        let _ = fs::remove_dir(base);
    }
}

/// A place for folders of runs.
#[derive(Debug)]
struct Place {
    /// What is there anyway.
    parent: PathBuf,
    /// This user's folder in it.
    base: PathBuf,
    is_memory: bool,
}

/// The places, the best first.
fn places() -> Vec<Place> {
    let place =
        |parent: PathBuf, is_memory| Place { base: parent.join(format!("lowmem-weights-{}", geteuid().as_raw())), parent, is_memory };
    if let Some(named) = env::var_os(FOLDER).filter(|named| !named.is_empty() && named != OFF) {
        return vec![place(named.into(), false)];
    }
    let in_cache = pytorch::cache().ok().filter(|cache| cache.is_dir()).map(|cache| place(cache, false));
    let in_memory = Some(PathBuf::from(SHARED_MEMORY)).filter(|memory| memory.is_dir()).map(|memory| place(memory, true));
    in_memory.into_iter().chain(in_cache).collect()
}

/// The folder `base`, made where it is not there and locked, without what dead runs left in it.
fn cleaned(base: &Path) -> io::Result<File> {
    let locked = loop {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        // Shared memory is everybody's: a folder that somebody else made in our name is none of ours.
        if fs::symlink_metadata(base)?.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let Ok(folder) = File::open(base) else { continue };
        folder.lock()?;
        // The run before may have removed it while this one waited.
        if fs::metadata(base).is_ok_and(|now| folder.metadata().is_ok_and(|locked| locked.ino() == now.ino())) {
            break folder;
        }
    };
    for entry in fs::read_dir(base)?.flatten() {
        let is_run = entry.file_name().to_string_lossy().starts_with(RUN);
        // The system unlocks what a dead process had locked.
        let is_dead = || File::open(entry.path().join(OWNER)).map_or(true, |owner| owner.try_lock().is_ok());
        if is_run && is_dead() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(locked)
}

/// What may still be written to the file system at `path`.
fn free_bytes(path: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(system.f_bavail * system.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(parent: &Path) -> Place {
        Place { parent: parent.to_owned(), base: parent.join("mine"), is_memory: false }
    }

    #[test]
    fn a_folder_goes_with_its_run_and_leaves_others_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let place = place(parent.path());
        let [one, other] = [1, 2].map(|bytes| SharedWeights::make(&place, bytes).expect("made"));
        let folders = [one.folder().to_owned(), other.folder().to_owned()];
        fs::write(folders[0].join("weights"), "many").expect("written");
        drop(one);
        assert!(!folders[0].exists() && folders[1].is_dir());
        drop(other);
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 0, "nothing is left");
    }

    #[test]
    fn what_a_dead_run_left_is_removed_and_a_living_ones_is_not() {
        let parent = tempfile::tempdir().expect("a folder");
        let place = place(parent.path());
        let living = SharedWeights::make(&place, 1).expect("made");
        // A process that was killed has unlocked its file, or never came to make it.
        for (name, has_owner) in [("run-locked-once", true), ("run-early", false)] {
            fs::create_dir(place.base.join(name)).expect("made");
            fs::write(place.base.join(name).join(if has_owner { OWNER } else { "weights" }), "").expect("written");
        }
        fs::write(place.base.join("a-persons-own"), "").expect("written");
        drop(cleaned(&place.base).expect("cleaned"));
        let mut left: Vec<_> = fs::read_dir(&place.base).expect("readable").map(|entry| entry.expect("readable").path()).collect();
        left.sort();
        assert_eq!(left, [place.base.join("a-persons-own"), living.folder().to_owned()]);
    }
}
