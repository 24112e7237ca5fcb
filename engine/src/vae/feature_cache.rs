//! The frames that causal convolutions remember from chunk to chunk, and the buffer in which they find their inputs.
//!
//! Follows `feat_cache` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

use super::slots::{Chunk, Slots};
use crate::attribution::{Purpose, within};
use crate::error::Result;
use crate::weights::bytes_of;

/// What crossed between device and host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheTraffic {
    /// Bytes from host to device.
    pub h2d_bytes: u64,
    /// Bytes from device to host.
    pub d2h_bytes: u64,
}

impl CacheTraffic {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { h2d_bytes: self.h2d_bytes + other.h2d_bytes, d2h_bytes: self.d2h_bytes + other.d2h_bytes }
    }
}

/// What the causal convolutions remember between the chunks of one video (of one tile): the last frames of each one's input.
#[derive(Debug, Default)]
pub struct FeatureCache {
    waits_on_host: bool,
    traffic: CacheTraffic,
    /// Per convolution the frames that it remembers, oldest first, `[batch, 1, height, width, channels]` each.
    frames: Vec<VecDeque<Tensor>>,
    /// Elements in one row, where each convolution in turn finds its padded or enlarged input.
    buffer: Option<Tensor>,
    started: bool,
    last: bool,
    /// Where what goes through the layers now lies in the video.
    place: Place,
}

/// Where some frames lie in a video.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// The first of them is the video's first.
    pub(super) starts: bool,
    /// The last of them is the video's last, as far as it is known which that is.
    pub(super) ends: bool,
}

impl Place {
    /// The place of the frames from `start` to `end` among `of` frames that lie here.
    pub(super) fn part(self, start: i64, end: i64, of: i64) -> Self {
        Self { starts: self.starts && start == 0, ends: self.ends && end == of }
    }
}

impl FeatureCache {
    /// Nothing remembered: the next chunk holds the video's first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`FeatureCache::new`], with the remembered frames on the host from one use to the next, so that the device has them only as a convolution reads
    /// them. A video in one chunk leaves them where they are. On the CPU that is the same place.
    pub fn on_host() -> Self {
        Self { waits_on_host: true, ..Self::default() }
    }

    /// What crossed between device and host until now.
    pub fn traffic(&self) -> CacheTraffic {
        self.traffic
    }

    /// Says that the next chunk is the last one. Each convolution then lets go of its frames as it reads them, and keeps no new ones.
    pub fn expect_last(&mut self) {
        self.last = true;
    }

    /// Whether a chunk has been through.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Where what goes through the layers now lies in the video.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Says where what goes through the layers from now on lies in the video: a slice of a chunk.
    pub(super) fn go_to(&mut self, place: Place) {
        self.place = place;
    }

    /// Makes room for the inputs of `slots` in the chunk that `chunk` says, and for what is remembered.
    ///
    /// All of it before the first activation. Made as they are needed, the remembered frames would settle in gaps that activations leave, and
    /// each padded input, larger than its activation by two frames, would want a gap of its own: libtorch's allocator then reserves half as
    /// much again. With one buffer for them all, what is left are activations of equal size, which take each other's places.
    pub(super) fn begin_chunk(&mut self, slots: &Slots, chunk: Chunk, options: (Kind, Device)) -> Result<()> {
        self.place = Place { starts: !self.started, ends: self.last };
        if !self.started {
            self.frames.clear();
            for (history, sides) in slots.remembered(chunk, self.last) {
                let frames = (0..history).map(|_| self.room_for_frame(&sides, options)).collect::<Result<VecDeque<_>>>()?;
                self.frames.push(frames);
            }
        }
        let largest = slots.largest_input(chunk, self.started);
        if self.buffer.as_ref().is_none_or(|buffer| (buffer.numel() as i64) < largest) {
            self.buffer = None;
            self.buffer = Some(within(Purpose::FeatureCache, || Tensor::f_empty([largest], options))?);
        }
        Ok(())
    }

    /// Where a frame is kept, with nothing in it: in page-locked memory where it waits on the host and the device is another one.
    fn room_for_frame(&self, sides: &[i64], (kind, device): (Kind, Device)) -> Result<Tensor> {
        // Known at the first chunk: one that is the last too leaves nothing waiting between chunks.
        if !self.waits_on_host || self.last {
            return Ok(within(Purpose::FeatureCache, || Tensor::f_zeros(sides, (kind, device)))?);
        }
        let room = Tensor::f_zeros(sides, (kind, Device::Cpu))?;
        Ok(if device.is_cuda() { room.f_pin_memory(device)? } else { room })
    }

    /// Says that a chunk has been through.
    pub(super) fn end_chunk(&mut self) {
        self.started = true;
    }

    /// How many elements the buffer has.
    pub(super) fn buffer_len(&self) -> i64 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.numel() as i64)
    }

    /// A tensor with these sides in the buffer. What was there before is lost.
    pub(super) fn in_buffer(&self, sides: &[i64]) -> Result<Tensor> {
        let buffer = self.buffer.as_ref().expect("a chunk has begun");
        Ok(buffer.f_narrow(0, 0, sides.iter().product())?.f_view(sides)?)
    }

    /// Writes the frames that convolution `slot` remembers over `history`.
    pub(super) fn recall(&mut self, slot: usize, history: &Tensor) -> Result<()> {
        let Some(kept) = self.frames.get_mut(slot).filter(|kept| !kept.is_empty()) else {
            let _ = history.shallow_clone().f_zero_()?;
            return Ok(());
        };
        for (index, frame) in (0..).zip(kept.iter()) {
            history.f_narrow(1, index, 1)?.f_copy_(frame)?;
            self.traffic.h2d_bytes += crossed_bytes(frame, history);
        }
        if self.place.ends {
            kept.clear();
        }
        Ok(())
    }

    /// Keeps the last frames of `input` for convolution `slot`, of which the last `new` ones are not remembered yet.
    pub(super) fn remember(&mut self, slot: usize, input: &Tensor, new: i64) -> Result<()> {
        let Some(kept) = self.frames.get_mut(slot) else { return Ok(()) };
        let frames = input.size()[1];
        for index in frames - new.min(kept.len() as i64)..frames {
            let Some(mut oldest) = kept.pop_front() else { break };
            oldest.f_copy_(&input.f_narrow(1, index, 1)?)?;
            self.traffic.d2h_bytes += crossed_bytes(&oldest, input);
            kept.push_back(oldest);
        }
        Ok(())
    }
}

/// Bytes that cross when `frame` is copied to or from where `other` is.
fn crossed_bytes(frame: &Tensor, other: &Tensor) -> u64 {
    if frame.device() == other.device() { 0 } else { bytes_of(frame) }
}
