//! Where the workers of a run keep weights that are made from a seed, so that they are made once: a folder in shared memory where there is room for it, else
//! in the cache folder. It goes away with the run; what a run that was killed left goes when the next command begins.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use engine_protocol::{Config, Device, gib};

use crate::error::Error;
use crate::model::{Models, weight_bytes};
use crate::pytorch;
use crate::scratch::{self, Scratch};

/// Names another folder for it, or says `off`.
const FOLDER: &str = "LOWMEM_WEIGHTS";
const OFF: &str = "off";
/// Memory that is a file system.
const SHARED_MEMORY: &str = "/dev/shm";
/// Files hold the VAE too, norms in fp32, and the types that two cases ask for.
const ROOM: f64 = 1.1;

/// What makes the weights of two cases the same: the model, the type of arithmetic and the seed.
pub(crate) fn weights_of(config: &Config) -> (&str, &'static str, i64) {
    (&config.model, config.dtype.name(), config.seed)
}

/// A run's folder of weights, until it is dropped.
#[derive(Debug)]
pub(crate) struct SharedWeights {
    folder: Scratch,
    /// What is expected in it.
    pub(crate) bytes: u64,
    /// Whether that takes memory, and not a disk's room.
    pub(crate) is_in_memory: bool,
}

impl SharedWeights {
    /// A folder for the weights of `cases`, and a sentence about it; no folder where no two cases share any, where nothing is computed, and where there is no
    /// room.
    pub(crate) fn for_cases<'a>(
        device: Device,
        models: &Models,
        cases: impl Iterator<Item = &'a Config>,
    ) -> Result<(Option<Self>, Option<String>), Error> {
        // What is in files is made by nobody.
        if device == Device::Virtual || models.iter().any(|model| model.files.is_some()) {
            return Ok((None, None));
        }
        let places = places();
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
            if let Ok(folder) = Scratch::new_in(&place.base) {
                let made = Self { folder, bytes, is_in_memory: place.is_memory };
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

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what dead runs left: it takes memory.
pub(crate) fn clear_left() {
    places().iter().for_each(|place| scratch::clear(&place.base));
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
    let place = |parent: PathBuf, is_memory| Place { base: parent.join(scratch::of_user("lowmem-weights")), parent, is_memory };
    if let Some(named) = env::var_os(FOLDER).filter(|named| !named.is_empty() && named != OFF) {
        return vec![place(named.into(), false)];
    }
    let in_cache = pytorch::cache().ok().filter(|cache| cache.is_dir()).map(|cache| place(cache, false));
    let in_memory = Some(PathBuf::from(SHARED_MEMORY)).filter(|memory| memory.is_dir()).map(|memory| place(memory, true));
    in_memory.into_iter().chain(in_cache).collect()
}

/// What may still be written to the file system at `path`.
fn free_bytes(path: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(system.f_bavail * system.f_frsize)
}
