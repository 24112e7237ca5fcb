//! Residency: a model's groups where the plan puts them, given to the model one after the other. It decides nothing of where they are to be.

use std::sync::Arc;

use engine_protocol::{DiskRate, NotPageLocked};
use tch::{Device, Kind, Tensor};

use super::file_ring::FromFiles;
use super::pinned_ring::{PageLocking, RING_BYTES};
use super::plan::{Place, Waits, staging_buffers};
use super::shards::{Shards, part_bytes};
use super::staging::{Origin, Staging};
use crate::attribution::{Purpose, in_group, within};
use crate::collectives;
use crate::cuda::{host_slab, pinned_if_may};
use crate::error::{Error, Result};
use crate::signs;
use crate::weights::{
    Group, GroupName, GroupParts, Groups, LeftOut, SharedHost, Slabs, Source, WaitingGroup, WeightTypes, Weights, packing,
};

/// A model's weights where they live.
#[derive(Debug)]
pub struct Residency {
    device: Device,
    types: WeightTypes,
    groups: Vec<Placed>,
    /// Indices of the streamed groups, in execution order.
    streamed: Vec<usize>,
    /// Groups that may be on their way while one computes.
    prefetch: usize,
    /// Made when the first streamed group is asked for, so that a stage before that does not pay for it.
    staging: Option<Staging>,
    /// Room for one group of those that wait packed, in the type of arithmetic. Made when the first one is asked for.
    unpacked: Option<Tensor>,
    poisoned: bool,
    /// Groups that the passes to come do without.
    left_out: LeftOut,
    /// Those that come from their files.
    from_files: FromFiles,
    /// Those that gather the groups of which each holds a part.
    shards: Option<Shards>,
    /// Whether not even a ring could be page-locked.
    lacks_ring: bool,
    /// Bytes of the ring for groups from their files that were to be page-locked, and were not.
    not_locked_bytes: u64,
    /// Whether what waits was ever written: on the virtual GPU it was not.
    is_written: bool,
    traffic: Traffic,
}

/// Bytes that a residency moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Copied to the device, at load and since.
    pub h2d_bytes: u64,
    /// What was to be page-locked, and was not.
    pub not_page_locked: Option<NotPageLocked>,
}

impl Traffic {
    /// That of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let both = |a: NotPageLocked, b: NotPageLocked| NotPageLocked { bytes: a.bytes + b.bytes, by_ring: a.by_ring && b.by_ring };
        Self {
            h2d_bytes: self.h2d_bytes + other.h2d_bytes,
            not_page_locked: match (self.not_page_locked, other.not_page_locked) {
                (Some(a), Some(b)) => Some(both(a, b)),
                (one, other) => one.or(other),
            },
        }
    }
}

#[derive(Debug)]
struct Placed {
    /// As the model lists it.
    group: Group,
    stored: WaitingGroup,
    home: Home,
}

#[derive(Debug)]
enum Home {
    /// Where its stage computes.
    Bound(Weights),
    /// On the host, to be copied.
    Waiting(Tensor),
    /// On the host, to be copied by way of page-locked buffers.
    ByRing(Tensor, PageLocking),
    /// In its file, to be read each time.
    InFile,
    /// On the devices of ranks, of which this one has this part.
    OnRanks(Tensor),
}

/// The ranks with which a rank has weights of a model in common.
#[derive(Debug, Clone, Copy, Default)]
pub struct WithRanks<'a> {
    /// Those that share what is on the host, and by what name they know the model.
    pub host: Option<(&'a SharedHost, &'a str)>,
    /// Those that have the parts of one token sequence, for groups of which each holds a part.
    pub parts: Option<&'a collectives::Group>,
}

impl Residency {
    /// Puts each group where `places` says, with values from `source`.
    ///
    /// # Errors
    /// Memory that runs out, on the device or the host, and what `source` cannot give.
    pub fn new(groups: Vec<Group>, places: &[Place], types: WeightTypes, device: Device, source: &Source) -> Result<Self> {
        Self::among(WithRanks::default(), groups, places, types, device, source)
    }

    /// As [`Residency::new`] of one of several ranks.
    ///
    /// # Errors
    /// Those of [`Residency::new`].
    pub fn among(
        ranks: WithRanks<'_>,
        groups: Vec<Group>,
        places: &[Place],
        types: WeightTypes,
        device: Device,
        source: &Source,
    ) -> Result<Self> {
        assert_eq!(groups.len(), places.len(), "a place for each group");
        let mut residency = Self {
            device,
            types,
            groups: Vec::new(),
            streamed: Vec::new(),
            prefetch: 0,
            left_out: LeftOut::default(),
            staging: None,
            unpacked: None,
            poisoned: false,
            from_files: FromFiles {
                groups: Vec::new(),
                locking: PageLocking::Never,
                modelled: matches!(source, Source::Empty).then(|| DiskRate::ASSUMED.bytes_per_sec()),
            },
            shards: ranks.parts.map(Shards::among),
            lacks_ring: false,
            not_locked_bytes: 0,
            is_written: !matches!(source, Source::Empty),
            traffic: Traffic::default(),
        };
        let stored: Vec<_> = groups.iter().map(|group| WaitingGroup::new(group, types)).collect();
        let mut free = residency.slab_of_residents(&stored, places)?;
        let room = residency.room_for_wholes(&stored, places)?;
        let each = stored.iter().map(|stored| stored.layout.bytes);
        let mut slabs = HostSlabs(ranks.host.map(|(shared, key)| shared.slabs(key, each)).transpose()?);
        for (index, ((group, stored), &place)) in groups.into_iter().zip(stored).zip(places).enumerate() {
            signs::beat();
            let bytes = stored.layout.bytes;
            let home = match place {
                Place::Resident => {
                    let [slab, rest] = split(&free, bytes)?;
                    free = rest;
                    residency.traffic.h2d_bytes += if device.is_cuda() { bytes as u64 } else { 0 };
                    Home::Bound(stored.filled(&group, types, &slab, source)?)
                }
                Place::Host => {
                    let slab = slabs.slab(index, bytes, false)?;
                    Home::Bound(slabs.filled(index, &stored, &group, types, &slab, source)?)
                }
                Place::Streamed { prefetch, waits: Waits::OnRanks { ranks } } => {
                    residency.streamed.push(index);
                    residency.prefetch = prefetch as usize;
                    let [slab, rest] = split(&free, part_bytes(bytes, ranks))?;
                    free = rest;
                    residency.traffic.h2d_bytes += if device.is_cuda() { bytes as u64 } else { 0 };
                    let whole = room.as_ref().expect("made for such groups").f_narrow(0, 0, bytes)?;
                    drop(stored.filled(&group, types, &whole, source)?);
                    Home::OnRanks(residency.own_part(&whole, ranks, &slab)?)
                }
                Place::Streamed { prefetch, waits } => {
                    residency.streamed.push(index);
                    residency.prefetch = prefetch as usize;
                    residency.waiting(index, &group, &stored, waits, source, &mut slabs)?
                }
            };
            residency.groups.push(Placed { group, stored, home });
        }
        slabs.0.map_or(Ok(()), Slabs::publish)?;
        Ok(residency)
    }

    /// A streamed group where it waits.
    fn waiting(
        &mut self,
        index: usize,
        group: &Group,
        stored: &WaitingGroup,
        waits: Waits,
        source: &Source,
        slabs: &mut HostSlabs,
    ) -> Result<Home> {
        // Pages are locked for a GPU's copies.
        let on_gpu = self.device.is_cuda();
        if let Waits::InFile { ring } = waits {
            self.from_files.locking = ring;
            self.from_files.groups.push((index, Arc::new(GroupParts::new(group, self.types, source))));
            return Ok(Home::InFile);
        }
        let bytes = stored.layout.bytes;
        let (slab, pinned) = match waits {
            Waits::Pinned { required: true } => (slabs.slab(index, bytes, on_gpu)?, on_gpu),
            // A machine that has refused once is not asked again: what it has left it needs.
            Waits::Pinned { required: false } => {
                pinned_if_may(on_gpu && self.traffic.not_page_locked.is_none(), |pinned| slabs.slab(index, bytes, pinned))?
            }
            _ => (slabs.slab(index, bytes, false)?, false),
        };
        let is_refused = matches!(waits, Waits::Pinned { .. }) && on_gpu && !pinned;
        if is_refused && self.traffic.not_page_locked.is_none() {
            self.make_room_for_ring()?;
        }
        if is_refused {
            self.traffic.not_page_locked.get_or_insert(NotPageLocked { bytes: 0, by_ring: true }).bytes += bytes as u64;
        }
        slabs.filled(index, stored, group, self.types, &slab, source)?;
        let ring = match waits {
            Waits::Pageable { ring } if on_gpu => ring,
            _ if is_refused => PageLocking::IfAllowed,
            _ => PageLocking::Never,
        };
        Ok(if ring.is_wanted() { Home::ByRing(slab, ring) } else { Home::Waiting(slab) })
    }

    /// Has as many of the last page-locked groups wait in ordinary memory as a ring takes: the machine locks no more than it has.
    fn make_room_for_ring(&mut self) -> Result<()> {
        let mut freed = 0;
        for Placed { stored, home, .. } in self.groups.iter_mut().rev() {
            let Home::Waiting(pinned) = home else { continue };
            if freed >= RING_BYTES {
                break;
            }
            let bytes = stored.layout.bytes;
            let slab = host_slab(bytes, false)?;
            if self.is_written {
                slab.shallow_clone().f_copy_(pinned)?;
            }
            *home = Home::ByRing(slab, PageLocking::IfAllowed);
            freed += bytes;
        }
        self.traffic.not_page_locked = Some(NotPageLocked { bytes: freed as u64, by_ring: true });
        Ok(())
    }

    /// Room for all resident groups. They are one allocation, since the caching allocator rounds each one up.
    fn slab_of_residents(&self, stored: &[WaitingGroup], places: &[Place]) -> Result<Tensor> {
        let resident = stored.iter().zip(places).map(|(stored, place)| match place {
            Place::Resident => stored.layout.bytes,
            Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => part_bytes(stored.layout.bytes, *ranks),
            Place::Host | Place::Streamed { .. } => 0,
        });
        Ok(within(Purpose::Weights, || Tensor::f_empty([resident.sum::<i64>()], (Kind::Uint8, self.device)))?)
    }

    /// Room in which groups are whole while this rank's part is taken from them; nothing where there are no such groups.
    fn room_for_wholes(&self, stored: &[WaitingGroup], places: &[Place]) -> Result<Option<Tensor>> {
        let in_parts = stored.iter().zip(places).filter(|(_, place)| matches!(place, Place::Streamed { waits: Waits::OnRanks { .. }, .. }));
        let largest = in_parts.map(|(stored, _)| stored.layout.bytes).max();
        largest.map(|bytes| Ok(within(Purpose::Staging, || Tensor::f_empty([bytes], (Kind::Uint8, self.device)))?)).transpose()
    }

    /// This rank's part of a `whole` group that so many have in parts, in `slab`.
    fn own_part(&self, whole: &Tensor, ranks: u32, slab: &Tensor) -> Result<Tensor> {
        let Some(shards) = self.shards.as_ref().filter(|shards| shards.count() == ranks as usize) else {
            return Err(Error::Ranks(format!("weights are in {ranks} parts, and there are not as many ranks to have them")));
        };
        let part = shards.own(whole)?;
        let mut own = slab.f_narrow(0, 0, part.size()[0])?;
        own.f_copy_(&part)?;
        Ok(own)
    }

    /// Has each staging buffer written over with NaN whenever a group lets go of it, so that whoever reads what was not copied there for it is found out. For
    /// tests: each group is then copied anew each time.
    pub fn poison_buffers(&mut self) {
        self.poisoned = true;
        self.staging = None;
    }

    /// Says which groups the passes to come leave out: they are not copied ahead.
    pub fn leave_out(&mut self, left_out: LeftOut) {
        self.left_out = left_out;
    }

    /// Gives the staging buffers back, and the room in which groups are unpacked: the stage that used them is over.
    pub fn release_staging(&mut self) {
        self.staging = None;
        self.unpacked = None;
    }

    /// Bytes moved and held so far.
    pub fn traffic(&self) -> Traffic {
        let mut traffic = self.traffic;
        if let Some(not) = &mut traffic.not_page_locked {
            not.by_ring &= !self.lacks_ring;
        }
        if self.not_locked_bytes > 0 {
            let not = traffic.not_page_locked.get_or_insert(NotPageLocked { bytes: 0, by_ring: false });
            *not = NotPageLocked { bytes: not.bytes + self.not_locked_bytes, by_ring: false };
        }
        traffic
    }

    /// Has the virtual GPU's clock go by that rate of the disk where weights would be read.
    pub fn set_disk(&mut self, disk: DiskRate) {
        self.from_files.modelled = self.from_files.modelled.map(|_| disk.bytes_per_sec());
    }

    /// Starts the copies of the groups after `index`, which runs now, as far ahead as there are buffers: where `may_wait`, of those too for whose copies the host
    /// itself has to wait.
    fn fetch_ahead(&mut self, index: usize, may_wait: bool) -> Result<()> {
        let place = self.streamed.iter().position(|&streamed| streamed == index).expect("a streamed group");
        // After the last group comes the first one: the next pass begins there.
        let after = (1..self.streamed.len()).map(|step| self.streamed[(place + step) % self.streamed.len()]);
        let to_come: Vec<usize> =
            after.filter(|&next| !self.is_left_out(next)).take(self.staging.as_ref().map_or(0, Staging::count).saturating_sub(1)).collect();
        for next in to_come {
            let waits = self.device.is_cuda() && matches!(self.groups[next].home, Home::ByRing(..) | Home::InFile);
            if waits && !may_wait {
                break;
            }
            self.fetch(next, index)?;
            if waits && !self.staging.as_mut().expect("made before the first fetch").fill_in_spare_time(&self.from_files)? {
                break;
            }
        }
        Ok(())
    }

    fn is_left_out(&self, index: usize) -> bool {
        self.left_out.has(self.groups[index].group.name)
    }

    fn make_staging(&mut self) -> Result<()> {
        if self.staging.is_none() {
            let bytes: Vec<i64> = self.streamed.iter().map(|&streamed| self.groups[streamed].stored.layout.bytes).collect();
            let (count, largest) = staging_buffers(self.prefetch, &bytes);
            self.staging = Some(Staging::new(count, largest, self.device, self.poisoned)?);
        }
        Ok(())
    }

    /// Starts the copy of group `next`, unless it is there or on its way. Group `wanted` runs now.
    fn fetch(&mut self, next: usize, wanted: usize) -> Result<()> {
        let staging = self.staging.as_mut().expect("made before the first fetch");
        if staging.holds(next) {
            return Ok(());
        }
        let Placed { group, stored, home } = &self.groups[next];
        let (tensors, layout) = (stored.tensors(group), &stored.layout);
        match home {
            Home::Waiting(slab) => staging.fetch(next, tensors, layout, Origin::Host(slab), wanted)?,
            Home::ByRing(slab, locking) => {
                let origin = Origin::ByRing { slab, locking: *locking, written: self.is_written };
                staging.fetch(next, tensors, layout, origin, wanted)?
            }
            Home::InFile => staging.fetch(next, tensors, layout, Origin::InFile(&self.from_files), wanted)?,
            Home::OnRanks(own) => {
                let shards = self.shards.as_ref().expect("there are parts");
                staging.fetch(next, tensors, layout, Origin::OnRanks { own, shards }, wanted)?;
            }
            Home::Bound(_) => unreachable!("resident groups are not fetched"),
        };
        self.lacks_ring |= staging.lacks_ring();
        self.not_locked_bytes = self.not_locked_bytes.max(staging.not_locked_bytes());
        let is_from_host = self.device.is_cuda() && !matches!(home, Home::OnRanks(_));
        self.traffic.h2d_bytes += if is_from_host { stored.layout.bytes as u64 } else { 0 };
        Ok(())
    }

    /// Runs `run` with the group's tensors as they wait.
    fn with_stored<R>(&mut self, index: usize, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R> {
        if let Home::Bound(weights) = &self.groups[index].home {
            return run(weights);
        }
        self.make_staging()?;
        self.fetch(index, index)?;
        let staging = self.staging.as_mut().expect("just made");
        staging.fill(index, &self.from_files)?;
        self.fetch_ahead(index, false)?;
        let result = self.staging.as_mut().expect("just made").with(index, run)?;
        // The GPU has its work: now the host may wait for what comes next.
        self.fetch_ahead(index, true)?;
        Ok(result)
    }

    /// Room for the largest of the groups that wait packed.
    fn room_to_unpack(&mut self) -> Result<Tensor> {
        if let Some(slab) = &self.unpacked {
            return Ok(slab.shallow_clone());
        }
        let bytes = self.groups.iter().map(|placed| placed.stored.unpacked_bytes()).max().unwrap_or(0);
        let slab = within(Purpose::Staging, || Tensor::f_empty([bytes], (Kind::Uint8, self.device)))?;
        self.unpacked = Some(slab.shallow_clone());
        Ok(slab)
    }
}

/// Memory of the host for groups: this process's own, or that of all ranks.
struct HostSlabs(Option<Slabs>);

impl HostSlabs {
    /// The slab of group `index`.
    fn slab(&mut self, index: usize, bytes: i64, pinned: bool) -> Result<Tensor> {
        match &mut self.0 {
            Some(shared) if shared.has(index) => shared.slab(index, bytes, pinned),
            _ => host_slab(bytes, pinned),
        }
    }

    /// The tensors of group `index` in its slab, with their values: what is shared is written once.
    fn filled(
        &self,
        index: usize,
        stored: &WaitingGroup,
        group: &Group,
        types: WeightTypes,
        slab: &Tensor,
        source: &Source,
    ) -> Result<Weights> {
        match &self.0 {
            Some(shared) if shared.is_filled(index) => Weights::bind(stored.tensors(group), &stored.layout, slab),
            _ => stored.filled(group, types, slab, source),
        }
    }
}

/// The first `bytes` of a slab, and the rest of it.
fn split(slab: &Tensor, bytes: i64) -> Result<[Tensor; 2]> {
    Ok([slab.f_narrow(0, 0, bytes)?, slab.f_narrow(0, bytes, slab.size()[0] - bytes)?])
}

impl Groups for Residency {
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R> {
        signs::beat();
        let index = self.groups.iter().position(|placed| placed.group.name == name);
        let index = index.unwrap_or_else(|| panic!("the model lists no group `{name}`"));
        let run = |weights: &Weights| in_group(name, || run(weights));
        if !self.groups[index].stored.is_unpacked() {
            return self.with_stored(index, run);
        }
        // Whoever wants the same room next does so after this in the same stream.
        let slab = self.room_to_unpack()?;
        let Placed { group, stored, .. } = &self.groups[index];
        let (group, weights, types) = (group.clone(), stored.bind_unpacked(group, &slab)?, self.types);
        self.with_stored(index, |packed| packing::unpack(&group, types, packed, &weights))?;
        run(&weights)
    }
}
