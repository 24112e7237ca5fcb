//! A ring of small page-locked buffers, by way of which ordinary memory is copied to the GPU.
//!
//! Left to the driver, such a copy is made by one thread, and the host waits for it: 8 to 9 GB/s were measured on an H100 whose link carries 55. Here all cores
//! fill one buffer while the link carries those before it.

use engine_protocol::{HOST_COPY_BYTES_PER_SEC, Secs};
use tch::Tensor;

use crate::cuda::{self, CopyStream, Event, host_slab};
use crate::error::{Error, Result};

/// Whether memory of the host is page-locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageLocking {
    /// It is not.
    Never,
    /// It is where the machine lets it be.
    IfAllowed,
    /// It is, or nothing runs.
    Required,
}

impl PageLocking {
    /// Whether it is asked for.
    pub(super) fn is_wanted(self) -> bool {
        self != Self::Never
    }
}

/// How many buffers there are: one that is filled, and others on their way.
const BUFFERS: i64 = 4;
/// Bytes of each: at 50 GB/s a third of a millisecond, in which what a copy costs besides is nothing.
const BUFFER_BYTES: i64 = 16 << 20;
/// What a ring page-locks.
pub(super) const RING_BYTES: i64 = BUFFERS * BUFFER_BYTES;

/// Bytes a second that all cores of a host copy within its memory: at best, most likely, at least. A rule: two channels of DDR4-3200 carry 51 GB/s, and each byte is
/// read and written.
const HOST_COPIES: [f64; 3] = [30e9, HOST_COPY_BYTES_PER_SEC, 8e9];

/// The buffers, which take turns.
#[derive(Debug)]
pub(super) struct PinnedRing {
    buffers: Vec<RingBuffer>,
    next: usize,
}

/// A buffer of a ring: of this one, and of that for weights from their files.
#[derive(Debug)]
pub(super) struct RingBuffer {
    pub(super) memory: Tensor,
    /// The last copy from it is done.
    pub(super) copied: Event,
}

impl PinnedRing {
    /// Page-locks the buffers. None where the host does not let them be, and they need not.
    pub(super) fn new(locking: PageLocking) -> Result<Option<Self>> {
        let buffer = |_| Ok(RingBuffer { memory: host_slab(BUFFER_BYTES, true)?, copied: Event::new()? });
        match (0..BUFFERS).map(buffer).collect::<Result<_>>() {
            Ok(buffers) => Ok(Some(Self { buffers, next: 0 })),
            Err(Error::HostMemory(_)) if locking != PageLocking::Required => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts copies of the first `bytes` of `from`, on the host, to `to`, on the GPU, into the stream. What was never `written` is not read either.
    pub(super) fn copy(&mut self, from: &Tensor, to: &Tensor, bytes: i64, written: bool, copies: &mut CopyStream) -> Result<()> {
        for offset in (0..bytes).step_by(BUFFER_BYTES as usize) {
            let part = BUFFER_BYTES.min(bytes - offset);
            let buffer = &self.buffers[self.next];
            self.next = (self.next + 1) % self.buffers.len();
            // An event that was never recorded is passed at once.
            buffer.copied.synchronize()?;
            if written {
                buffer.memory.f_narrow(0, 0, part)?.f_copy_(&from.f_narrow(0, offset, part)?)?;
            }
            let [low, expected, high] = HOST_COPIES.map(|rate| part as f64 / rate);
            cuda::host_work(Secs { low, expected, high });
            copies.copy(&to.f_narrow(0, offset, part)?, &buffer.memory, part)?;
            buffer.copied.record(copies.stream())?;
        }
        Ok(())
    }
}
