//! A ring of buffers on the host, by way of which groups come from their files to the GPU: readers fill those whose turn is next while the link carries others and
//! the GPU computes.
//!
//! Note: order and reuse.
//! A buffer is asked to be filled when the host has waited for the last copy from it (its event), and copied from when its reader has answered. The groups' order is
//! that of a pass, so the buffers are filled with what comes next, in this group and in those after it. The host itself waits for both. So it does that part by part,
//! and only while the GPU has work that it was given before: see `Staging::fill_in_spare_time`.

use std::collections::VecDeque;
use std::sync::Arc;

use engine_protocol::Secs;
use tch::Tensor;

use super::pinned_ring::{PageLocking, RING_BYTES, RingBuffer};
use super::readers::{Readers, Reading};
use crate::cuda::{self, CopyStream, Event, host_slab, host_slab_pinned_if_may};
use crate::error::Result;
use crate::weights::GroupParts;

/// Bytes of a buffer.
pub(crate) const PART_BYTES: i64 = 4 << 20;
const BUFFERS: usize = (RING_BYTES / PART_BYTES) as usize;
/// So many of them are not waited for: their copies are on the way.
const COPYING: usize = 4;

/// All groups that come from their files.
#[derive(Debug)]
pub(super) struct FromFiles {
    /// The number of each and how it is read, in execution order.
    pub(super) groups: Vec<(usize, Arc<GroupParts>)>,
    /// How the ring by way of which they come to a GPU is page-locked.
    pub(super) locking: PageLocking,
    /// Where nothing is read, and the clock is told how long it would take: bytes that a disk gives in a second, at best, most likely, at least.
    pub(super) modelled: Option<[f64; 3]>,
}

impl FromFiles {
    /// Bytes of group `index`.
    pub(super) fn bytes(&self, index: usize) -> i64 {
        self.groups[self.place(index)].1.bytes()
    }

    /// The place of group `index` among them.
    pub(super) fn place(&self, index: usize) -> usize {
        self.groups.iter().position(|(other, _)| *other == index).expect("one of the groups that come from their files")
    }
}

/// The buffers, which take turns.
#[derive(Debug)]
pub(super) struct FileRing {
    // Goes first, and ends the threads that write to the buffers.
    reader: Reader,
    /// Read or being read, in the order in which they are needed.
    asked: VecDeque<Asked>,
    /// Free, or copied from, those that were copied from first in front.
    free: VecDeque<RingBuffer>,
    /// Which part is to be asked for next: whose, and its first byte.
    next: (usize, i64),
    /// Bytes that were to be page-locked, and were not.
    pub(super) not_locked_bytes: u64,
}

#[derive(Debug)]
struct Asked {
    buffer: RingBuffer,
    /// Which group of the order, and its first byte.
    part: (usize, i64),
    read: Read,
}

/// When a part has been read.
#[derive(Debug)]
enum Read {
    ByThreads(Reading),
    /// By the virtual GPU's clock.
    At(Secs),
}

/// Who reads.
#[derive(Debug)]
enum Reader {
    Threads(Readers),
    /// Nobody: weights are empty. The disk would have read so far, one part after the other, at so many bytes a second: at best, most likely, at least.
    Modelled {
        free: Secs,
        rates: [f64; 3],
    },
}

impl FileRing {
    /// For those groups.
    pub(super) fn new(from: &FromFiles) -> Result<Self> {
        let mut not_locked_bytes = 0;
        let mut is_asked_for = from.locking.is_wanted();
        let buffer = |_| {
            let (memory, is_locked) = match from.locking {
                PageLocking::Required => (host_slab(PART_BYTES, true)?, true),
                // A machine that has refused once is not asked again.
                _ => host_slab_pinned_if_may(PART_BYTES, is_asked_for)?,
            };
            is_asked_for = is_locked;
            not_locked_bytes += if from.locking.is_wanted() && !is_locked { PART_BYTES as u64 } else { 0 };
            Ok(RingBuffer { memory, copied: Event::new()? })
        };
        let free = (0..BUFFERS).map(buffer).collect::<Result<_>>()?;
        let reader = match from.modelled {
            Some(rates) => Reader::Modelled { free: Secs::default(), rates },
            None => Reader::Threads(Readers::start()?),
        };
        Ok(Self { reader, asked: VecDeque::new(), free, next: (0, 0), not_locked_bytes })
    }

    /// Puts a copy of the part of group `index` that begins at `first` to its place in `to`, on the GPU, into the stream, once it has been read. Gives where the next
    /// part begins; nothing after the last.
    pub(super) fn copy_part(
        &mut self,
        (index, first): (usize, i64),
        from: &FromFiles,
        to: &Tensor,
        copies: &mut CopyStream,
    ) -> Result<Option<i64>> {
        let place = from.place(index);
        if self.asked.front().map_or(self.next, |asked| asked.part) != (place, first) {
            self.begin_at((place, first));
        }
        self.ask_ahead(from)?;
        let left = from.groups[place].1.bytes() - first;
        let part = PART_BYTES.min(left);
        let Asked { buffer, read, .. } = self.asked.pop_front().expect("just asked for");
        let done = read.wait().and_then(|()| {
            copies.copy(&to.f_narrow(0, first, part)?, &buffer.memory, part)?;
            buffer.copied.record(copies.stream())
        });
        self.free.push_back(buffer);
        done.map(|()| (left > part).then_some(first + part))
    }

    /// What was read ahead is not what is wanted: another pass has begun.
    fn begin_at(&mut self, part: (usize, i64)) {
        for Asked { buffer, read, .. } in self.asked.drain(..).rev() {
            // What cannot be read is told when it is wanted.
            if let Read::ByThreads(reading) = read {
                drop(reading.wait());
            }
            self.free.push_front(buffer);
        }
        self.next = part;
    }

    /// Has parts read, as far ahead as there are buffers.
    fn ask_ahead(&mut self, from: &FromFiles) -> Result<()> {
        while self.asked.len() < BUFFERS - COPYING {
            let buffer = self.free.pop_front().expect("those that are copied from at least");
            let asked = buffer.copied.synchronize().and_then(|()| self.ask(from, &buffer));
            match asked {
                Ok(read) => self.asked.push_back(Asked { buffer, part: self.next, read }),
                Err(error) => {
                    self.free.push_front(buffer);
                    return Err(error);
                }
            }
            let (place, first) = self.next;
            let more = first + PART_BYTES;
            // After the last group comes the first one: the next pass begins there.
            self.next = if more < from.groups[place].1.bytes() { (place, more) } else { ((place + 1) % from.groups.len(), 0) };
        }
        Ok(())
    }

    /// Has the next part read into `buffer`.
    fn ask(&mut self, from: &FromFiles, buffer: &RingBuffer) -> Result<Read> {
        let (place, first) = self.next;
        let group = &from.groups[place].1;
        let bytes = PART_BYTES.min(group.bytes() - first);
        match &mut self.reader {
            Reader::Threads(readers) => {
                Ok(Read::ByThreads(readers.read(group, first, &buffer.memory.f_narrow(0, 0, bytes)?, PART_BYTES)?))
            }
            Reader::Modelled { free, rates } => {
                let now = cuda::modelled_now().unwrap_or_default();
                let [low, expected, high] = rates.map(|rate| bytes as f64 / rate);
                *free = free.max(now) + Secs { low, expected, high };
                Ok(Read::At(*free))
            }
        }
    }
}

impl Read {
    fn wait(self) -> Result<()> {
        match self {
            Self::ByThreads(reading) => reading.wait(),
            Self::At(then) => {
                let now = cuda::modelled_now().unwrap_or_default();
                cuda::host_work((then - now).max(Secs::default()));
                Ok(())
            }
        }
    }
}
