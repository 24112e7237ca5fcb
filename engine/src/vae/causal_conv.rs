//! Convolutions that look back in time only, and the frames that they remember from chunk to chunk.
//!
//! Follows `WanCausalConv3d` and its `feat_cache` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::Tensor;

use super::norm::Norm;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Frames that a kernel of three sees besides the current one. Before the first frame they are zero.
const HISTORY: i64 = 2;

/// What one convolution reads: so many channels, at so many times the frames, height and width of the latents.
#[derive(Debug, Clone, Copy)]
struct Slot {
    channels: i64,
    temporal_scale: i64,
    spatial_scale: i64,
}

/// The causal convolutions of a model in execution order, each with its slot in the feature cache.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    temporal_scale: i64,
    spatial_scale: i64,
    /// Per upsampler the least that its convolution reads: the frames that one frame becomes, at their new size.
    enlarged: Vec<Slot>,
}

impl Slots {
    /// No convolution yet, at the resolution of the latents.
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), temporal_scale: 1, spatial_scale: 1, enlarged: Vec::new() }
    }

    /// Says that an upsampler of `channels` doubles height and width for the convolutions to come, and where `temporal` the frames.
    pub(super) fn double(&mut self, channels: i64, temporal: bool) {
        let frames = if temporal { 2 } else { 1 };
        self.spatial_scale *= 2;
        self.temporal_scale *= frames;
        self.enlarged.push(Slot { channels, temporal_scale: frames, spatial_scale: self.spatial_scale });
    }

    fn add(&mut self, channels: i64) -> usize {
        self.slots.push(Slot { channels, temporal_scale: self.temporal_scale, spatial_scale: self.spatial_scale });
        self.slots.len() - 1
    }
}

/// What the causal convolutions remember between the chunks of one video (of one tile): the last two frames of each one's input.
#[derive(Debug, Default)]
pub struct FeatureCache {
    /// Per convolution `[batch, 2, height, width, channels]`, in storage of its own, so that the activation it came from is freed.
    frames: Vec<Option<Tensor>>,
    /// Elements in one row, where each convolution in turn finds its padded or enlarged input.
    buffer: Option<Tensor>,
    started: bool,
    last: bool,
}

impl FeatureCache {
    /// Nothing remembered: the next chunk holds the video's first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the next chunk is the last one. Each convolution then lets go of its frames as it reads them, and keeps no new ones.
    pub fn expect_last(&mut self) {
        self.last = true;
    }

    /// Whether a chunk has been through.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Makes room for the inputs of `slots` when `latents`, `[batch, z_dim, frames, height, width]`, are decoded, and for what is remembered.
    ///
    /// All of it before the first activation. Made as they are needed, the remembered frames would settle in gaps that activations leave, and
    /// each padded input, larger than its activation by two frames, would want a gap of its own: libtorch's allocator then reserves half as
    /// much again. With one buffer for them all, what is left are activations of equal size, which take each other's places.
    pub(super) fn begin_chunk(&mut self, slots: &Slots, latents: &Tensor) -> Result<()> {
        let (batch, _, latent_frames, height, width) = latents.size5()?;
        let options = (latents.kind(), latents.device());
        let sides = |slot: &Slot, frames| [batch, frames, height * slot.spatial_scale, width * slot.spatial_scale, slot.channels];
        if !self.started && !self.last {
            self.frames.clear();
            for slot in &slots.slots {
                self.frames.push(Some(Tensor::f_zeros(sides(slot, HISTORY), options)?));
            }
        }
        let padded = |slot: &Slot| {
            let missing = if self.started { 0 } else { slot.temporal_scale - 1 };
            sides(slot, HISTORY + latent_frames * slot.temporal_scale - missing).iter().product::<i64>()
        };
        let enlarged = |slot: &Slot| sides(slot, slot.temporal_scale).iter().product::<i64>();
        let largest = slots.slots.iter().map(padded).chain(slots.enlarged.iter().map(enlarged)).max().unwrap_or(0);
        if self.buffer.as_ref().is_none_or(|buffer| (buffer.numel() as i64) < largest) {
            self.buffer = None;
            self.buffer = Some(Tensor::f_empty([largest], options)?);
        }
        Ok(())
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
    fn recall(&mut self, slot: usize, mut history: Tensor) -> Result<()> {
        match self.frames.get_mut(slot) {
            Some(Some(kept)) => history.f_copy_(kept)?,
            _ => drop(history.f_zero_()?),
        }
        if self.last && slot < self.frames.len() {
            self.frames[slot] = None;
        }
        Ok(())
    }

    /// Keeps the last frames of `input`, which has `frames`, for convolution `slot`.
    fn remember(&mut self, slot: usize, input: &Tensor, frames: i64) -> Result<()> {
        if let Some(Some(kept)) = self.frames.get_mut(slot) {
            kept.f_copy_(&input.f_narrow(1, frames - HISTORY, HISTORY)?)?;
        }
        Ok(())
    }
}

/// A convolution over three frames, the current one last, and over 1 or 3 pixels in height and width.
#[derive(Debug)]
pub(super) struct CausalConv {
    name: String,
    weight: String,
    bias: String,
    inputs: i64,
    outputs: i64,
    /// Pixels of the kernel in height and width.
    side: i64,
    /// Its place in the feature cache.
    slot: usize,
}

impl CausalConv {
    /// The convolution `name`, the next one of `slots`.
    pub(super) fn new(name: String, inputs: i64, outputs: i64, side: i64, slots: &mut Slots) -> Self {
        let slot = slots.add(inputs);
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), name, inputs, outputs, side, slot }
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        group.conv(&self.name, self.inputs, self.outputs, &[HISTORY + 1, self.side, self.side])
    }

    /// The convolution of `x`, or where there is a `norm` of the SiLU of its norm. `x` comes by value, to be freed before the convolution runs.
    ///
    /// Height and width are padded by the convolution itself. Time is not, as it would be padded at the end too and computed for nothing.
    /// The floor is thus one copy of the input with two frames more, in the cache's buffer. Where there is a SiLU, that is what writes the copy.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames, height, width, outputs]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, norm: Option<&Norm>, cache: &mut FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. The remembered frames, and the input behind them.
        let padded = cache.in_buffer(&[batch, HISTORY + frames, height, width, channels])?;
        cache.recall(self.slot, padded.f_narrow(1, 0, HISTORY)?)?;
        let mut current = padded.f_narrow(1, HISTORY, frames)?;
        match norm {
            Some(norm) => norm.silu_into(w, &x, &current)?,
            None => current.f_copy_(&x)?,
        }
        drop((x, current));
        cache.remember(self.slot, &padded, HISTORY + frames)?;

        // 2. The convolution, which counts sides as batch, channels, frames, height, width.
        let padding = [0, self.side / 2, self.side / 2];
        let y =
            padded.f_permute([0, 4, 1, 2, 3])?.f_conv3d(w.get(&self.weight), Some(w.get(&self.bias)), [1, 1, 1], padding, [1, 1, 1], 1)?;
        Ok(y.f_permute([0, 2, 3, 4, 1])?)
    }
}
