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

use super::pinned_ring::PinnedRing;
use crate::attribution::{Purpose, within};
use crate::cuda::{CopyStream, Event, Stream, host_slab_pinned_if_may};
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
    fn make(&mut self) -> Result<()> {
        if matches!(self, Self::Unmade) {
            *self = PinnedRing::new_if_may()?.map_or(Self::Refused, Self::Made);
        }
        Ok(())
    }
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
    /// On the host, where a group is read that comes from its file. Made with the first one.
    way: Option<Tensor>,
    /// The group that is in the buffer or on its way there, and its tensors.
    holds: Option<(usize, Weights)>,
    events: Option<BufferEvents>,
}

/// Where a group is copied from.
pub(super) enum Origin<'a> {
    /// From a slab on the host.
    Host(&'a Tensor),
    /// From a slab on the host, by way of a ring of page-locked buffers. What was never `written` need not be read.
    ByRing { slab: &'a Tensor, written: bool },
    /// From its file: `read` writes the group into a slab.
    Read { into_pinned: bool, read: &'a dyn Fn(&Tensor) -> Result<()> },
}

impl Buffer {
    /// Starts the copy of the first `bytes` of `host`.
    fn copy(&self, host: &Tensor, bytes: i64, streams: Option<&mut Streams>) -> Result<()> {
        match streams {
            Some(streams) => self.put(bytes, streams, |copies| copies.copy(&self.slab, host, bytes)),
            None => Ok(self.slab.f_narrow(0, 0, bytes)?.f_copy_(&host.f_narrow(0, 0, bytes)?)?),
        }
    }

    /// Has `copy` put copies of so many bytes into the copy stream, between the buffer's two events.
    fn put(&self, bytes: i64, streams: &mut Streams, copy: impl FnOnce(&mut CopyStream) -> Result<()>) -> Result<()> {
        let events = self.events.as_ref().expect("a buffer on the GPU has events");
        let stream = streams.copy.stream();
        stream.wait(&events.released)?;
        operation_times::copied(stream, bytes, || copy(&mut streams.copy))?;
        events.arrived.record(stream)
    }

    /// Reads a group of `bytes` and starts its copy.
    fn read(&mut self, bytes: i64, pinned: bool, read: &dyn Fn(&Tensor) -> Result<()>, streams: Option<&mut Streams>) -> Result<()> {
        let way = match self.way.take() {
            Some(way) => way,
            // Where its pages cannot be locked, copies from it take longer.
            None => host_slab_pinned_if_may(self.slab.size()[0], pinned)?.0,
        };
        // The copy of what was read before may still be under way. An event that was never recorded is passed at once.
        if let Some(events) = &self.events {
            events.arrived.synchronize()?;
        }
        let done = read(&way).and_then(|()| self.copy(&way, bytes, streams));
        self.way = Some(way);
        done
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
            buffers.push(Buffer { slab, way: None, holds: None, events });
        }
        if let Some(streams) = &streams {
            // The allocator may hand out memory that arithmetic already queued still reads: the first copy must come after it.
            for events in buffers.iter().filter_map(|buffer| buffer.events.as_ref()) {
                events.released.record(streams.compute)?;
            }
        }
        Ok(Self { streams, buffers, ring: Ring::Unmade, next: 0, poisoned })
    }

    /// Whether the host did not page-lock a ring that was to be.
    pub(super) fn lacks_ring(&self) -> bool {
        matches!(self.ring, Ring::Refused)
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
        match origin {
            Origin::Host(host) => buffer.copy(host, layout.bytes, self.streams.as_mut()),
            Origin::ByRing { slab, written } => {
                let streams = self.streams.as_mut().expect("only a GPU has weights come by a ring");
                self.ring.make()?;
                match &mut self.ring {
                    Ring::Made(ring) => {
                        buffer.put(layout.bytes, streams, |copies| ring.copy(slab, &buffer.slab, layout.bytes, written, copies))
                    }
                    Ring::Unmade | Ring::Refused => buffer.copy(slab, layout.bytes, Some(streams)),
                }
            }
            Origin::Read { into_pinned, read } => buffer.read(layout.bytes, into_pinned, read, self.streams.as_mut()),
        }?;
        buffer.holds = Some((index, Weights::bind(group, layout, &buffer.slab)?));
        Ok(())
    }

    /// Runs `run` with the weights of group `index`, which was fetched, once they have arrived.
    pub(super) fn with<R>(&mut self, index: usize, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R> {
        let buffer = self.buffers.iter_mut().find(|buffer| buffer.group() == Some(index)).expect("fetched before it is used");
        let (_, weights) = buffer.holds.as_ref().expect("it holds the group");
        if let (Some(streams), Some(events)) = (&self.streams, &buffer.events) {
            timing::wait_for_copy(streams.compute, &events.arrived)?;
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
