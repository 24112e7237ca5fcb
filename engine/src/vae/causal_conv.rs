//! Convolutions that look back in time only, and the frames that they remember from chunk to chunk.
//!
//! Follows `WanCausalConv3d` and its `feat_cache` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::{Device, Kind, Tensor};

use super::norm::Norm;
use crate::attribution::{Component, operation, within};
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Frames that a convolution sees at once.
const KERNEL: i64 = 3;

/// What one convolution reads: so many channels, at so many times the frames, height and width of the latents.
#[derive(Debug, Clone, Copy)]
struct Slot {
    channels: i64,
    temporal_scale: i64,
    spatial_scale: i64,
    /// Pixels that height and width are padded by.
    edge: i64,
    /// Frames that it remembers.
    history: i64,
}

/// The causal convolutions of a model in execution order, each with its slot in the feature cache.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    temporal_scale: i64,
    spatial_scale: i64,
    /// Per resampler the least that its convolution over pixels reads: the frames that one frame becomes before it.
    resampled: Vec<Slot>,
}

impl Slots {
    /// No convolution yet, at so many times the frames, height and width of the latents.
    pub(super) fn new(temporal_scale: i64, spatial_scale: i64) -> Self {
        Self { slots: Vec::new(), temporal_scale, spatial_scale, resampled: Vec::new() }
    }

    /// Says that an upsampler of `channels` doubles height and width for the convolutions to come, and where `temporal` the frames.
    pub(super) fn double(&mut self, channels: i64, temporal: bool) {
        let frames = if temporal { 2 } else { 1 };
        self.spatial_scale *= 2;
        self.temporal_scale *= frames;
        self.resampled.push(Slot { channels, temporal_scale: frames, spatial_scale: self.spatial_scale, edge: 0, history: 0 });
    }

    /// Says that a downsampler of `channels` halves height and width for the convolutions to come.
    pub(super) fn halve(&mut self, channels: i64) {
        self.resampled.push(Slot { channels, temporal_scale: 1, spatial_scale: self.spatial_scale, edge: 1, history: 0 });
        self.spatial_scale /= 2;
    }

    /// Says that a downsampler halves the frames for the convolutions to come.
    pub(super) fn halve_frames(&mut self) {
        self.temporal_scale /= 2;
    }

    fn add(&mut self, channels: i64, history: i64) -> usize {
        let (temporal_scale, spatial_scale) = (self.temporal_scale, self.spatial_scale);
        self.slots.push(Slot { channels, temporal_scale, spatial_scale, edge: 0, history });
        self.slots.len() - 1
    }

    /// Elements that each convolution remembers between chunks as high and wide as `chunk`.
    pub(super) fn remembered(&self, chunk: Chunk) -> Vec<i64> {
        self.slots.iter().map(|slot| slot.sides(chunk, slot.history).iter().product()).collect()
    }

    /// Elements of the largest input, padded or enlarged, in `chunk`. `started` says that it is not the video's first.
    pub(super) fn largest_input(&self, chunk: Chunk, started: bool) -> i64 {
        let padded = |slot: &Slot| {
            let missing = if started { 0 } else { slot.temporal_scale - 1 };
            slot.sides(chunk, slot.history + chunk.latent_frames * slot.temporal_scale - missing).iter().product::<i64>()
        };
        let resampled = |slot: &Slot| slot.sides(chunk, slot.temporal_scale).iter().product::<i64>();
        self.slots.iter().map(padded).chain(self.resampled.iter().map(resampled)).max().unwrap_or(0)
    }
}

impl Slot {
    /// What it reads of so many frames: `[batch, frames, height, width, channels]`.
    fn sides(&self, chunk: Chunk, frames: i64) -> [i64; 5] {
        let side = |latent: i64| latent * self.spatial_scale + self.edge;
        [chunk.batch, frames, side(chunk.latent_height), side(chunk.latent_width), self.channels]
    }
}

/// The size of one chunk of a video, as latents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) batch: i64,
    pub(super) latent_frames: i64,
    pub(super) latent_height: i64,
    pub(super) latent_width: i64,
}

/// What the causal convolutions remember between the chunks of one video (of one tile): the last frames of each one's input.
#[derive(Debug, Default)]
pub struct FeatureCache {
    /// Per convolution `[batch, history, height, width, channels]`, in storage of its own, so that the activation it came from is freed.
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

    /// Makes room for the inputs of `slots` in the chunk that `chunk` says, and for what is remembered.
    ///
    /// All of it before the first activation. Made as they are needed, the remembered frames would settle in gaps that activations leave, and
    /// each padded input, larger than its activation by two frames, would want a gap of its own: libtorch's allocator then reserves half as
    /// much again. With one buffer for them all, what is left are activations of equal size, which take each other's places.
    pub(super) fn begin_chunk(&mut self, slots: &Slots, chunk: Chunk, options: (Kind, Device)) -> Result<()> {
        if !self.started && !self.last {
            self.frames.clear();
            for slot in &slots.slots {
                let kept = within(Component::FeatureCache, || Tensor::f_zeros(slot.sides(chunk, slot.history), options))?;
                self.frames.push(Some(kept));
            }
        }
        let largest = slots.largest_input(chunk, self.started);
        if self.buffer.as_ref().is_none_or(|buffer| (buffer.numel() as i64) < largest) {
            self.buffer = None;
            self.buffer = Some(within(Component::FeatureCache, || Tensor::f_empty([largest], options))?);
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

    /// Keeps the last frames of `input` for convolution `slot`.
    fn remember(&mut self, slot: usize, input: &Tensor) -> Result<()> {
        if let Some(Some(kept)) = self.frames.get_mut(slot) {
            let (frames, history) = (input.size()[1], kept.size()[1]);
            kept.f_copy_(&input.f_narrow(1, frames - history, history)?)?;
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
    /// Frames that it remembers from the chunk before.
    history: i64,
    /// Frames from one result to the next.
    stride: i64,
    /// Its place in the feature cache.
    slot: usize,
}

impl CausalConv {
    /// The convolution `name`, the next one of `slots`.
    pub(super) fn new(name: String, inputs: i64, outputs: i64, side: i64, slots: &mut Slots) -> Self {
        Self::with_stride(name, inputs, outputs, side, 1, slots)
    }

    /// The convolution `name` over frames alone, the next one of `slots`, with one result for every two frames.
    pub(super) fn halving(name: String, channels: i64, slots: &mut Slots) -> Self {
        Self::with_stride(name, channels, channels, 1, 2, slots)
    }

    fn with_stride(name: String, inputs: i64, outputs: i64, side: i64, stride: i64, slots: &mut Slots) -> Self {
        // The frames that a result sees before those that are its own.
        let history = KERNEL - stride;
        let slot = slots.add(inputs, history);
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), name, inputs, outputs, side, history, stride, slot }
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        group.conv(&self.name, self.inputs, self.outputs, &[KERNEL, self.side, self.side])
    }

    /// The convolution of `x`, or where there is a `norm` of the SiLU of its norm. `x` comes by value, to be freed before the convolution runs.
    ///
    /// Height and width are padded by the convolution itself. Time is not, as it would be padded at the end too and computed for nothing.
    /// The floor is thus one copy of the input with the remembered frames before it, in the cache's buffer. Where there is a SiLU, that is what writes the copy.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames / stride, height, width, outputs]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, norm: Option<&Norm>, cache: &mut FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. The remembered frames, and the input behind them.
        let padded = cache.in_buffer(&[batch, self.history + frames, height, width, channels])?;
        cache.recall(self.slot, padded.f_narrow(1, 0, self.history)?)?;
        let mut current = padded.f_narrow(1, self.history, frames)?;
        match norm {
            Some(norm) => norm.silu_into(w, &x, &current)?,
            None => current.f_copy_(&x)?,
        }
        drop((x, current));

        // 2. The convolution.
        self.forward_padded(w, &padded, cache)
    }

    /// Keeps the last frames of `x` for the next chunk, where nothing is to be computed yet.
    pub(super) fn remember(&self, x: &Tensor, cache: &mut FeatureCache) -> Result<()> {
        cache.remember(self.slot, x)
    }

    /// The convolution of frames that lie behind those that it would remember.
    ///
    /// # Shapes
    /// `padded`: `[batch, history + frames, height, width, inputs]`; result: `[batch, frames / stride, height, width, outputs]`.
    pub(super) fn forward_padded(&self, w: &Weights, padded: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        cache.remember(self.slot, padded)?;
        // It counts sides as batch, channels, frames, height, width.
        let padded = padded.f_permute([0, 4, 1, 2, 3])?;
        let (stride, padding) = ([self.stride, 1, 1], [0, self.side / 2, self.side / 2]);
        let (weight, bias) = (w.get(&self.weight), Some(w.get(&self.bias)));
        let y = operation(|| Ok(padded.f_conv3d(weight, bias, stride, padding, [1, 1, 1], 1)?))?;
        Ok(y.f_permute([0, 2, 3, 4, 1])?)
    }
}
