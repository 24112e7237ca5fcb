//! Streams and events: the order between arithmetic and copies.

use std::ffi::c_void;

use engine_protocol::Secs;
use tch::Tensor;

use super::ffi;
use crate::error::Result;

/// A queue of work on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    id: ffi::StreamId,
}

impl Stream {
    /// The one that libtorch computes on.
    ///
    /// # Errors
    /// libtorch's.
    pub fn current() -> Result<Self> {
        Ok(Self { id: ffi::StreamId::current()? })
    }

    /// Another one, from libtorch's pool.
    ///
    /// # Errors
    /// libtorch's.
    pub fn from_pool() -> Result<Self> {
        Ok(Self { id: ffi::StreamId::from_pool()? })
    }

    /// The stream as the driver has it: alive as long as the program.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn driver(self) -> Result<*mut c_void> {
        self.id.driver()
    }

    /// Work put into this stream from now on waits for what `event` marks.
    ///
    /// # Errors
    /// libtorch's.
    pub fn wait(self, event: &Event) -> Result<()> {
        event.0.wait(self.id)
    }
}

/// Copies to the GPU in a stream. When this goes, it first waits for the device: a copy may still be on its way.
#[derive(Debug)]
pub struct CopyStream {
    stream: Stream,
    copies: ffi::Copies,
}

impl CopyStream {
    /// Copies in `stream`.
    pub fn new(stream: Stream) -> Self {
        Self { stream, copies: ffi::Copies::new(stream.id) }
    }

    /// The stream that they are put into.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Keeps `tensor` until the stream has done all that it was given.
    pub(crate) fn keep(&mut self, tensor: &Tensor) {
        self.copies.keep(tensor);
    }

    /// Puts a copy of the first `bytes` bytes of the slab `from`, on the host or on the GPU, to the GPU slab `to` into the stream.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Panics
    /// What are no slabs of bytes that are large enough, or not there.
    pub fn copy(&mut self, to: &Tensor, from: &Tensor, bytes: i64) -> Result<()> {
        self.copies.put(to, from, bytes)
    }
}

/// A mark in a stream that another stream can wait for. One that was never recorded is passed at once.
#[derive(Debug)]
pub struct Event(ffi::OwnedEvent);

impl Event {
    /// An event that was never recorded.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new() -> Result<Self> {
        Ok(Self(ffi::OwnedEvent::new(false)?))
    }

    /// An event that was never recorded and knows when it is passed.
    ///
    /// # Errors
    /// libtorch's.
    pub fn timed() -> Result<Self> {
        Ok(Self(ffi::OwnedEvent::new(true)?))
    }

    /// The device's time from this event to `ended`, both timed and passed.
    ///
    /// # Errors
    /// libtorch's: one of them was not recorded, or is not passed yet.
    pub fn until(&self, ended: &Self) -> Result<Secs> {
        let [low, expected, high] = self.0.elapsed(&ended.0)?;
        Ok(Secs { low, expected, high })
    }

    /// Has the host wait until what was marked is done.
    ///
    /// # Errors
    /// libtorch's, and whatever went wrong on the device until then.
    pub fn synchronize(&self) -> Result<()> {
        self.0.synchronize()
    }

    /// Whether what was marked is done. That it is orders nothing of what comes after it.
    ///
    /// # Errors
    /// libtorch's, and whatever went wrong on the device until then.
    pub fn has_passed(&self) -> Result<bool> {
        self.0.has_passed()
    }

    /// Marks what `stream` has been given until now.
    ///
    /// # Errors
    /// libtorch's.
    pub fn record(&self, stream: Stream) -> Result<()> {
        self.0.record(stream.id)
    }
}
