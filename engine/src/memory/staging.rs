//! Staging buffers: device memory that streamed groups take turns in.
//!
//! Note: order of copies and arithmetic.
//! Each buffer has two events. `arrived` is recorded in the copy stream after the copy into the buffer; arithmetic waits for it. `released` is
//! recorded in the compute stream after the last arithmetic that reads the buffer; the next copy into it waits for that. So a copy never
//! overwrites weights in use, and with n buffers n - 1 copies can be under way while one group computes. On the CPU a copy is done when the
//! call returns, and there is nothing to wait for.
//!
//! Both halves are tested: the order on the virtual GPU, whose trace of operations shows what is ordered, and on the CPU that nothing is read that was not copied, with
//! buffers that are poisoned as a group lets go of them.

use tch::{Device, Kind, Tensor};

use super::file_ring::{FileRing, FromFiles, PART_BYTES};
use super::pinned_ring::{PageLocking, PinnedRing};
use super::readers::{Readers, Reading};
use super::shards::Shards;
use crate::attribution::{Purpose, within};
use crate::cuda::{CopyStream, Event, Stream};
use crate::error::Result;
use crate::weights::{Group, GroupLayout, Weights};
use crate::{operation_times, timing};

/// The buffers, allocated once, and the streams between which they pass.
#[derive(Debug)]
pub(super) struct Staging {
    // Goes first, and waits for the copies that are on their way into the buffers.
    streams: Option<Streams>,
    buffers: Vec<Buffer>,
    ring: Ring,
    files: Option<Files>,
    next: usize,
    poisoned: bool,
}

/// The ring of page-locked buffers.
#[derive(Debug)]
enum Ring {
    /// No group has come by way of it yet.
    Unmade,
    Made(PinnedRing),
    /// The host did not page-lock it: what would pass by way of it is copied as it lies.
    Refused,
}

impl Ring {
    /// Makes it the first time.
    fn make(&mut self, locking: PageLocking) -> Result<()> {
        if matches!(self, Self::Unmade) {
            *self = PinnedRing::new(locking)?.map_or(Self::Refused, Self::Made);
        }
        Ok(())
    }
}

/// How groups come from their files.
#[derive(Debug)]
enum Files {
    /// Straight into the buffers, which are on the host.
    ToHost(Readers),
    /// By way of a ring, to the GPU.
    ByRing { ring: FileRing, coming: Option<Coming>, begun: Event },
}

/// A group of which parts are still to be copied.
#[derive(Debug, Clone, Copy)]
struct Coming {
    index: usize,
    /// The first byte that was not copied yet.
    first: i64,
}

/// The byte of a poisoned buffer: of it any floating-point number is NaN, whatever its type.
const POISON: i64 = 0xFF;

#[derive(Debug)]
struct Streams {
    copy: CopyStream,
    compute: Stream,
}

#[derive(Debug)]
struct Buffer {
    slab: Tensor,
    /// The group that is in the buffer or on its way there, and its tensors.
    holds: Option<(usize, Weights)>,
    /// Ranks gather it, each of which holds a part.
    is_gathered: bool,
    /// It is being read into the buffer.
    reading: Option<Reading>,
    events: Option<BufferEvents>,
}

/// Where a group is copied from.
pub(super) enum Origin<'a> {
    /// From a slab on the host.
    Host(&'a Tensor),
    /// From a slab on the host, by way of a ring of page-locked buffers. What was never `written` need not be read.
    ByRing { slab: &'a Tensor, locking: PageLocking, written: bool },
    /// From its file, as one of these.
    InFile(&'a FromFiles),
    /// From the devices of these ranks, of which this one has a part.
    OnRanks { own: &'a Tensor, shards: &'a Shards },
}

impl Buffer {
    /// Starts the copy of the first `bytes` of `host`.
    fn copy(&self, host: &Tensor, bytes: i64, streams: Option<&mut Streams>) -> Result<()> {
        match streams {
            Some(streams) => self.put(bytes, streams, |copies| copies.copy(&self.slab, host, bytes)),
            None => Ok(self.slab.f_narrow(0, 0, bytes)?.f_copy_(&host.f_narrow(0, 0, bytes)?)?),
        }
    }

    /// Starts gathering the first `bytes`, of which this rank's part is `own`.
    fn gather(&self, own: &Tensor, bytes: i64, shards: &Shards, streams: Option<&mut Streams>) -> Result<()> {
        let whole = self.slab.f_narrow(0, 0, bytes)?;
        let mut place = shards.own(&whole)?;
        let Some(streams) = streams else {
            place.f_copy_(own)?;
            return shards.gather(&whole, None);
        };
        let (events, stream) = (self.events(), streams.copy.stream());
        stream.wait(&events.released)?;
        streams.copy.copy(&place, own, own.size()[0])?;
        shards.gather(&whole, Some(&mut streams.copy))?;
        events.arrived.record(stream)
    }

    /// Has `copy` put copies of so many bytes into the copy stream, between the buffer's two events.
    fn put(&self, bytes: i64, streams: &mut Streams, copy: impl FnOnce(&mut CopyStream) -> Result<()>) -> Result<()> {
        let (events, stream) = (self.events(), streams.copy.stream());
        stream.wait(&events.released)?;
        operation_times::copied(stream, bytes, || copy(&mut streams.copy))?;
        events.arrived.record(stream)
    }

    fn events(&self) -> &BufferEvents {
        self.events.as_ref().expect("a buffer on the GPU has events")
    }

    fn group(&self) -> Option<usize> {
        self.holds.as_ref().map(|(index, _)| *index)
    }
}

#[derive(Debug)]
struct BufferEvents {
    arrived: Event,
    released: Event,
}

impl Staging {
    /// `count` buffers on `device`, each for groups of at most `bytes`. `poisoned` ones hold a group once: as it lets go, they are written over.
    pub(super) fn new(count: usize, bytes: i64, device: Device, poisoned: bool) -> Result<Self> {
        let on_gpu = device.is_cuda();
        let streams =
            if on_gpu { Some(Streams { copy: CopyStream::new(Stream::from_pool()?), compute: Stream::current()? }) } else { None };
        let mut buffers = Vec::with_capacity(count);
        for _ in 0..count {
            let mut slab = within(Purpose::Staging, || Tensor::f_empty([bytes], (Kind::Uint8, device)))?;
            if poisoned {
                let _ = slab.f_fill_(POISON)?;
            }
            let events = if on_gpu { Some(BufferEvents { arrived: Event::new()?, released: Event::new()? }) } else { None };
            buffers.push(Buffer { slab, holds: None, is_gathered: false, reading: None, events });
        }
        if let Some(streams) = &streams {
            // The allocator may hand out memory that arithmetic already queued still reads: the first copy must come after it.
            for events in buffers.iter().filter_map(|buffer| buffer.events.as_ref()) {
                events.released.record(streams.compute)?;
            }
        }
        Ok(Self { streams, buffers, ring: Ring::Unmade, files: None, next: 0, poisoned })
    }

    /// Whether the host did not page-lock a ring that was to be.
    pub(super) fn lacks_ring(&self) -> bool {
        matches!(self.ring, Ring::Refused)
    }

    /// Bytes of the ring for groups from their files that were to be page-locked, and were not.
    pub(super) fn not_locked_bytes(&self) -> u64 {
        match &self.files {
            Some(Files::ByRing { ring, .. }) => ring.not_locked_bytes,
            _ => 0,
        }
    }

    /// How many buffers there are.
    pub(super) fn count(&self) -> usize {
        self.buffers.len()
    }

    /// Whether `index` is in a buffer or on its way.
    pub(super) fn holds(&self, index: usize) -> bool {
        self.buffers.iter().any(|buffer| buffer.group() == Some(index))
    }

    /// Starts the copy of group `index`, which `layout` describes, from `origin` into the buffer whose turn it is. The group `wanted`, which is to run
    /// now, stays where it is.
    pub(super) fn fetch(&mut self, index: usize, group: &Group, layout: &GroupLayout, origin: Origin<'_>, wanted: usize) -> Result<()> {
        let count = self.count();
        let mut turns = (self.next..self.next + count).map(|turn| turn % count);
        let turn =
            turns.find(|&turn| self.buffers[turn].group() != Some(wanted)).expect("with one buffer, only the wanted group is fetched");
        self.next = (turn + 1) % count;
        let buffer = &mut self.buffers[turn];
        buffer.holds = None;
        buffer.is_gathered = matches!(origin, Origin::OnRanks { .. });
        // Nobody came for what was read here. What may be wrong with it is of no interest any more.
        drop(buffer.reading.take().map(Reading::wait));
        match origin {
            Origin::Host(host) => buffer.copy(host, layout.bytes, self.streams.as_mut()),
            Origin::ByRing { slab, locking, written } => {
                let streams = self.streams.as_mut().expect("only a GPU has weights come by a ring");
                self.ring.make(locking)?;
                match &mut self.ring {
                    Ring::Made(ring) => {
                        buffer.put(layout.bytes, streams, |copies| ring.copy(slab, &buffer.slab, layout.bytes, written, copies))
                    }
                    Ring::Unmade | Ring::Refused => buffer.copy(slab, layout.bytes, Some(streams)),
                }
            }
            Origin::OnRanks { own, shards } => buffer.gather(own, layout.bytes, shards, self.streams.as_mut()),
            Origin::InFile(from) => self.begin_from_file(turn, index, from),
        }?;
        let buffer = &mut self.buffers[turn];
        buffer.holds = Some((index, Weights::bind(group, layout, &buffer.slab)?));
        Ok(())
    }

    /// Has group `index` come from its file into the buffer `turn`: on the host it is read there, to the GPU it comes as it is filled.
    fn begin_from_file(&mut self, turn: usize, index: usize, from: &FromFiles) -> Result<()> {
        let files = match (&mut self.files, &self.streams) {
            (Some(files), _) => files,
            (none, None) => none.insert(Files::ToHost(Readers::start()?)),
            (none, Some(_)) => none.insert(Files::ByRing { ring: FileRing::new(from)?, coming: None, begun: Event::new()? }),
        };
        match files {
            Files::ToHost(readers) => {
                let (buffer, group) = (&mut self.buffers[turn], &from.groups[from.place(index)].1);
                buffer.reading = Some(readers.read(group, 0, &buffer.slab.f_narrow(0, 0, group.bytes())?, PART_BYTES)?);
            }
            Files::ByRing { coming, .. } => {
                let other = coming.replace(Coming { index, first: 0 }).map(|other| other.index);
                // Another one was coming, and is not what is wanted next: the pass was left.
                self.buffers.iter_mut().filter(|buffer| buffer.group() == other && other.is_some()).for_each(|buffer| buffer.holds = None);
                if let Some(streams) = &self.streams {
                    streams.copy.stream().wait(&self.buffers[turn].events().released)?;
                }
            }
        }
        Ok(())
    }

    /// Has the host copy the rest of group `index`, where it is coming from its file, as it is read.
    pub(super) fn fill(&mut self, index: usize, from: &FromFiles) -> Result<()> {
        while matches!(&self.files, Some(Files::ByRing { coming: Some(coming), .. }) if coming.index == index) {
            self.copy_part(from)?;
        }
        Ok(())
    }

    /// Has the host copy what is coming from its file, as it is read, for as long as the GPU has something to do before the group that it was given last: the host
    /// must not be late with the next one. Gives whether it is all copied.
    pub(super) fn fill_in_spare_time(&mut self, from: &FromFiles) -> Result<bool> {
        while let Some(Files::ByRing { coming: Some(_), begun, .. }) = &self.files {
            if begun.has_passed()? {
                return Ok(false);
            }
            self.copy_part(from)?;
        }
        Ok(true)
    }

    /// Has the next part copied of the group that is coming from its file, once it is read.
    fn copy_part(&mut self, from: &FromFiles) -> Result<()> {
        let (Some(Files::ByRing { ring, coming, .. }), Some(streams)) = (&mut self.files, &mut self.streams) else { return Ok(()) };
        let Some(Coming { index, first }) = coming.take() else { return Ok(()) };
        let buffer = self.buffers.iter_mut().find(|buffer| buffer.group() == Some(index)).expect("it was given a buffer");
        let stream = streams.copy.stream();
        let mut next = None;
        let copied = operation_times::copied(stream, PART_BYTES.min(from.bytes(index) - first), || {
            next = ring.copy_part((index, first), from, &buffer.slab, &mut streams.copy)?;
            Ok(())
        });
        if let Err(error) = copied {
            buffer.holds = None;
            return Err(error);
        }
        *coming = next.map(|first| Coming { index, first });
        if coming.is_none() { buffer.events().arrived.record(stream) } else { Ok(()) }
    }

    /// Runs `run` with the weights of group `index`, which was fetched, once they have arrived.
    pub(super) fn with<R>(&mut self, index: usize, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R> {
        let buffer = self.buffers.iter_mut().find(|buffer| buffer.group() == Some(index)).expect("fetched before it is used");
        if let Some(Err(error)) = buffer.reading.take().map(Reading::wait) {
            buffer.holds = None;
            // What was read ahead may have failed for the same reason, and is read again where it is wanted.
            for buffer in &mut self.buffers {
                if buffer.reading.take().map(Reading::wait).is_some() {
                    buffer.holds = None;
                }
            }
            return Err(error);
        }
        let (_, weights) = buffer.holds.as_ref().expect("it holds the group");
        if let (Some(streams), Some(events)) = (&self.streams, &buffer.events) {
            if buffer.is_gathered {
                timing::exchange(|| streams.compute.wait(&events.arrived))?;
            } else {
                timing::wait_for_copy(streams.compute, &events.arrived)?;
            }
            if let Some(Files::ByRing { begun, .. }) = &self.files {
                begun.record(streams.compute)?;
            }
        }
        let result = run(weights);
        if self.poisoned {
            buffer.holds = None;
            let _ = buffer.slab.f_fill_(POISON)?;
        }
        // After an error too: what was put into the stream before it still reads the buffer.
        if let (Some(streams), Some(events)) = (&self.streams, &buffer.events) {
            events.released.record(streams.compute)?;
        }
        result
    }
}
