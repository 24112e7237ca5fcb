//! Memory of the host that the ranks of one machine share: weights that wait or compute there are the same for all, so that one copy is enough. The first rank fills it, the
//! others map it, and each page-locks it for its own GPU.
//!
//! Note: how they find it.
//! It is a file without a name (`memfd_create(2)`), which no limit of `/dev/shm` holds down and which goes with the last process that maps it, however that ends. The first rank
//! leaves a link to it in the folder in which ranks meet, once everything is written, and keeps it until all others have opened it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use engine_protocol::RankRequest;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tch::Tensor;

use crate::cuda::shared_slab;
use crate::error::{Error, Result};
use crate::signs;

/// What pages of memory begin at a multiple of.
const PAGE_BYTES: u64 = 4096;
/// From one look for what another rank does to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The ranks of one machine, as one of them sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedHost {
    rank: u32,
    count: u32,
    folder: PathBuf,
}

/// Of `bytes` that so many ranks share, what each counts as its own: all of them together then count as much as there is.
pub(crate) fn part_of(bytes: u64, ranks: u32) -> u64 {
    bytes / u64::from(ranks)
}

impl SharedHost {
    /// Those that meet as `request` says.
    pub fn among(request: &RankRequest) -> Self {
        Self { rank: request.rank, count: request.count, folder: request.meeting.clone() }
    }

    /// Memory for the component `key`, whose groups need so many bytes each. A rank that is not the first waits here until it is filled.
    pub(crate) fn slabs(&self, key: &str, each: impl Iterator<Item = i64>) -> Result<Slabs> {
        let place = self.folder.join(key);
        let mut end = 0;
        let begin = |bytes: i64| {
            let begin = end;
            end += (bytes as u64).next_multiple_of(PAGE_BYTES);
            begin
        };
        let begins: Vec<u64> = each.map(begin).collect();
        let (file, written) = if self.rank == 0 {
            let made = memfd_create(key, MemfdFlags::CLOEXEC).and_then(|file| ftruncate(&file, end).map(|()| file));
            (File::from(made.map_err(|error| Error::file(&place, error.into()))?), BTreeSet::new())
        } else {
            self.opened(&place).map_err(|error| Error::file(&place, error))?
        };
        Ok(Slabs { of: self.clone(), place, file, begins, written })
    }

    /// The memory that the first rank has left at `place`, and which groups it has written there.
    fn opened(&self, place: &Path) -> std::io::Result<(File, BTreeSet<usize>)> {
        wait_for(place);
        let file = File::options().read(true).write(true).open(place)?;
        let written = serde_json::from_slice(&fs::read(list(place))?)?;
        File::create(mark(place, self.rank))?;
        Ok((file, written))
    }
}

/// The memory of one component.
#[derive(Debug)]
pub(crate) struct Slabs {
    of: SharedHost,
    place: PathBuf,
    file: File,
    /// Where each group begins, the start of a page: what is locked are pages.
    begins: Vec<u64>,
    /// Which groups are there. The first rank writes those that it has on its host; another one whose GPU holds less has more there, by itself.
    written: BTreeSet<usize>,
}

impl Slabs {
    /// Whether group `index` is there, or will be.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.of.rank == 0 || self.written.contains(&index)
    }

    /// Whether somebody else has written it.
    pub(crate) fn is_filled(&self, index: usize) -> bool {
        self.of.rank > 0 && self.written.contains(&index)
    }

    /// The slab of group `index`, which is there, page-locked where `pinned`.
    ///
    /// # Errors
    /// When the host has, or can lock, no such amount.
    pub(crate) fn slab(&mut self, index: usize, bytes: i64, pinned: bool) -> Result<Tensor> {
        let slab = shared_slab(&self.file, self.begins[index], bytes, pinned, part_of(bytes as u64, self.of.count))?;
        self.written.insert(index);
        Ok(slab)
    }

    /// Everything is written: the first rank lets the others have it, and waits until they do.
    pub(crate) fn publish(self) -> Result<()> {
        if self.of.rank > 0 {
            return Ok(());
        }
        self.leave().map_err(|error| Error::file(&self.place, error))?;
        (1..self.of.count).for_each(|rank| wait_for(&mark(&self.place, rank)));
        Ok(())
    }

    fn leave(&self) -> std::io::Result<()> {
        fs::write(list(&self.place), serde_json::to_vec(&self.written)?)?;
        let draft = self.place.with_extension("draft");
        symlink(format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()), &draft)?;
        fs::rename(&draft, &self.place)
    }
}

/// Where the first rank says which groups are there.
fn list(place: &Path) -> PathBuf {
    place.with_extension("groups")
}

/// Waits until a file is there. A rank that fails meanwhile ends all.
fn wait_for(file: &Path) {
    signs::wait_for_ranks(|| {
        while !file.exists() {
            thread::sleep(BETWEEN_LOOKS);
        }
    });
}

/// What a rank leaves that has opened the memory.
fn mark(place: &Path, rank: u32) -> PathBuf {
    place.with_extension(rank.to_string())
}

#[cfg(test)]
mod tests {
    use engine_protocol::ModelSpec;
    use tch::{Device, Kind};

    use super::*;
    use crate::components;
    use crate::memory::{Place, Residency, Waits, WithRanks};
    use crate::weights::{Group, Groups, Source, WeightTypes, Weights};

    /// The sums of all groups of a tiny transformer, by a rank whose weights come from `source`.
    fn sums(source: &Source, shared: Option<&SharedHost>, resident: usize) -> Vec<f64> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        let model: ModelSpec = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let components = components::of(&model);
        let component = components.iter().find(|component| component.key() == components::TRANSFORMER).unwrap();
        let groups = component.groups().to_vec();
        // By turns what computes there, and what waits there.
        let streamed = Place::Streamed { prefetch: 1, waits: Waits::Pinned { required: false } };
        let place = |index| match index {
            _ if index < resident => Place::Resident,
            _ if index % 3 == 0 => Place::Host,
            _ => streamed,
        };
        let places: Vec<Place> = (0..groups.len()).map(place).collect();
        let ranks = WithRanks { host: shared.map(|shared| (shared, component.key())), parts: None };
        let types = WeightTypes::plain(Kind::Float);
        let mut residency = Residency::among(ranks, groups.clone(), &places, types, Device::Cpu, source).unwrap();
        let sum = |group: &Group| {
            let of = |weights: &Weights| {
                Ok(group.params.iter().map(|param| weights.get(&param.name).abs().sum(Kind::Double).double_value(&[])).sum())
            };
            residency.with(group.name, of).unwrap()
        };
        groups.iter().map(sum).collect()
    }

    #[test]
    fn what_the_first_rank_writes_all_have() {
        let [wanted, others] = [5, 6].map(|seed| sums(&Source::Seeded(seed), None, 0));
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<Vec<f64>> = thread::scope(|scope| {
            let rank = |rank| {
                let shared = SharedHost { rank, count: 3, folder: folder.path().to_owned() };
                // What a rank would write itself are other values. The GPU of the first one holds two groups.
                let (seed, resident) = if rank == 0 { (5, 2) } else { (6, 0) };
                scope.spawn(move || sums(&Source::Seeded(seed), Some(&shared), resident))
            };
            let ranks = [2, 1, 0].map(rank);
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(all[2], wanted);
        for rank in [&all[0], &all[1]] {
            assert_eq!(rank[2..], wanted[2..]);
            assert_eq!(rank[..2], others[..2], "what the first one does not have there is its own");
        }
    }

    #[test]
    fn parts_of_what_is_shared_come_to_no_more_than_that() {
        assert_eq!([part_of(10, 1), part_of(10, 3), part_of(0, 2)], [10, 3, 0]);
    }
}
