//! Residency: a model's groups where the plan puts them, given to the model one after the other.

use tch::{Device, Kind, Tensor};

use super::plan::{Place, staging_buffers};
use super::staging::Staging;
use crate::attribution::{Component, within};
use crate::cuda::PinnedSlab;
use crate::error::Result;
use crate::weights::{Group, GroupLayout, Groups, Source, Weights};

/// A model's weights where they live.
#[derive(Debug)]
pub struct Residency {
    device: Device,
    groups: Vec<Placed>,
    /// Indices of the streamed groups, in execution order.
    streamed: Vec<usize>,
    /// Groups that may be on their way while one computes.
    prefetch: usize,
    /// Made when the first streamed group is asked for, so that a stage before that does not pay for it.
    staging: Option<Staging>,
    poisoned: bool,
    traffic: Traffic,
}

/// Bytes that a residency moved and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Copied to the device, at load and since.
    pub h2d_bytes: u64,
    /// Held in page-locked memory.
    pub pinned_bytes: u64,
}

#[derive(Debug)]
struct Placed {
    group: Group,
    layout: GroupLayout,
    home: Home,
}

#[derive(Debug)]
enum Home {
    /// Where its stage computes.
    Bound(Weights),
    /// On the host, to be copied.
    Waiting(HostSlab),
}

#[derive(Debug)]
enum HostSlab {
    Pageable(Tensor),
    Pinned(PinnedSlab),
}

impl HostSlab {
    fn new(bytes: i64, pinned: bool) -> Result<Self> {
        if pinned {
            return Ok(Self::Pinned(PinnedSlab::new(bytes)?));
        }
        Ok(Self::Pageable(Tensor::f_empty([bytes], (Kind::Uint8, Device::Cpu))?))
    }

    fn bytes(&self) -> &Tensor {
        match self {
            HostSlab::Pageable(bytes) => bytes,
            HostSlab::Pinned(slab) => slab.bytes(),
        }
    }
}

impl Residency {
    /// Puts each group where `places` says, with values from `source`. `compute` is the configuration's type.
    ///
    /// # Errors
    /// Memory that runs out, on the device or the host, and what `source` cannot give.
    pub fn new(groups: Vec<Group>, places: &[Place], compute: Kind, device: Device, source: &Source) -> Result<Self> {
        assert_eq!(groups.len(), places.len(), "a place for each group");
        let (traffic, poisoned) = (Traffic::default(), false);
        let mut residency = Self { device, groups: Vec::new(), streamed: Vec::new(), prefetch: 0, staging: None, poisoned, traffic };
        let layouts: Vec<_> = groups.iter().map(|group| GroupLayout::new(group, compute)).collect();
        let mut free = residency.slab_of_residents(&layouts, places)?;
        for (index, ((group, layout), &place)) in groups.into_iter().zip(layouts).zip(places).enumerate() {
            let home = match place {
                Place::Resident => {
                    let [slab, rest] = split(&free, layout.bytes)?;
                    free = rest;
                    residency.traffic.h2d_bytes += if device.is_cuda() { layout.bytes as u64 } else { 0 };
                    Home::Bound(filled(&group, &layout, &slab, source)?)
                }
                Place::Host => {
                    let slab = Tensor::f_empty([layout.bytes], (Kind::Uint8, Device::Cpu))?;
                    Home::Bound(filled(&group, &layout, &slab, source)?)
                }
                Place::Streamed { prefetch, pinned } => {
                    residency.streamed.push(index);
                    residency.prefetch = prefetch as usize;
                    residency.on_host(&group, &layout, pinned && device.is_cuda(), source)?
                }
            };
            residency.groups.push(Placed { group, layout, home });
        }
        Ok(residency)
    }

    /// Room for all resident groups. They are one allocation, since the caching allocator rounds each one up.
    fn slab_of_residents(&self, layouts: &[GroupLayout], places: &[Place]) -> Result<Tensor> {
        let resident = layouts.iter().zip(places).filter(|(_, place)| **place == Place::Resident);
        let bytes: i64 = resident.map(|(layout, _)| layout.bytes).sum();
        Ok(within(Component::Weights, || Tensor::f_empty([bytes], (Kind::Uint8, self.device)))?)
    }

    /// A group whose weights wait on the host.
    fn on_host(&mut self, group: &Group, layout: &GroupLayout, pinned: bool, source: &Source) -> Result<Home> {
        let slab = HostSlab::new(layout.bytes, pinned)?;
        filled(group, layout, slab.bytes(), source)?;
        if pinned {
            self.traffic.pinned_bytes += layout.bytes as u64;
        }
        Ok(Home::Waiting(slab))
    }

    /// Has each staging buffer written over with NaN whenever a group lets go of it, so that whoever reads what was not copied there for it is found out. For
    /// tests: each group is then copied anew each time.
    #[must_use]
    pub fn with_poisoned_buffers(self) -> Self {
        Self { poisoned: true, staging: None, ..self }
    }

    /// Gives the staging buffers back: the stage that used them is over.
    pub fn release_staging(&mut self) {
        self.staging = None;
    }

    /// Bytes moved and held so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Starts the copies of `index` and of the groups after it, as far ahead as there are buffers.
    fn fetch_ahead(&mut self, index: usize) -> Result<()> {
        let place = self.streamed.iter().position(|&streamed| streamed == index).expect("a streamed group");
        let bytes: Vec<i64> = self.streamed.iter().map(|&streamed| self.groups[streamed].layout.bytes).collect();
        let (count, largest) = staging_buffers(self.prefetch, &bytes);
        if self.staging.is_none() {
            self.staging = Some(Staging::new(count, largest, self.device, self.poisoned)?);
        }
        let staging = self.staging.as_mut().expect("just made");
        for step in 0..count {
            // After the last group comes the first one: the next pass begins there.
            let next = self.streamed[(place + step) % self.streamed.len()];
            let Placed { group, layout, home: Home::Waiting(slab) } = &self.groups[next] else {
                unreachable!("streamed groups live on the host")
            };
            if !staging.holds(next) {
                staging.fetch(next, group, layout, slab.bytes(), index)?;
                self.traffic.h2d_bytes += if self.device.is_cuda() { layout.bytes as u64 } else { 0 };
            }
        }
        Ok(())
    }
}

/// The first `bytes` of a slab, and the rest of it.
fn split(slab: &Tensor, bytes: i64) -> Result<[Tensor; 2]> {
    Ok([slab.f_narrow(0, 0, bytes)?, slab.f_narrow(0, bytes, slab.size()[0] - bytes)?])
}

/// The group's tensors in `slab`, each with its values.
fn filled(group: &Group, layout: &GroupLayout, slab: &Tensor, source: &Source) -> Result<Weights> {
    let weights = Weights::bind(group, layout, slab)?;
    for param in &group.params {
        source.fill(group, param, &mut weights.get(&param.name).shallow_clone())?;
    }
    Ok(weights)
}

impl Groups for Residency {
    fn with<R>(&mut self, index: usize, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R> {
        if let Home::Bound(weights) = &self.groups[index].home {
            return run(weights);
        }
        self.fetch_ahead(index)?;
        self.staging.as_mut().expect("made by the fetch").with(index, run)
    }
}
