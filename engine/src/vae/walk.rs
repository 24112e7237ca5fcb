//! A way through encoder or decoder with shapes alone: what both have in common of what exists at once.
//!
//! From its first layer to its last a chunk has the feature cache and the buffer of padded inputs. Beside them a residual block has its input in fp32 and
//! a convolution's result, and what goes into or comes out of the next step: a slice of a norm, or the shortcut. In the last chunk each convolution's remembered frames
//! go as it reads them. Left out are tensors of one row and what convolutions in 16 bits ask for as workspace: channels lie innermost, so that is little.

use super::blocks::{MidBlock, ResidualBlock};
use super::feature_cache::Place;
use super::norm::position_slices;
use super::pieces::Pieces;
use super::slots::{Chunk, Slots};
use super::tiling::even_spans;
use crate::attention::AttentionShape;

/// Bytes of one number in fp32.
pub(super) const FP32: i64 = 4;
/// Numbers of one channel that go into one of a convolution's results: in time and space, in time alone, in space alone.
pub(super) const CUBE: i64 = 27;
pub(super) const LINE: i64 = 3;
pub(super) const SQUARE: i64 = 9;
/// Frames that a convolution in time sees before those that are its own.
const HISTORY: i64 = 2;

/// What of a GPU and a configuration decides what tensors take.
#[derive(Clone, Copy)]
pub struct Numbers<'a> {
    /// Bytes of one number in the compute type.
    pub bytes: i64,
    /// Whether attention holds its score matrix and convolutions unfold their inputs.
    pub has_plain_kernels: bool,
    /// Whether convolutions round what they read, into copies: fp32 on tensor cores that multiply it as TF32.
    pub rounds: bool,
    /// What the allocator counts for a tensor of so many bytes.
    pub allocated: &'a dyn Fn(i64) -> i64,
}

/// The most bytes that a video of latents `[C, T, H, W]` holds at once on its way through convolutions of `slots` in such pieces, where `go` is that way for one chunk.
pub(super) fn peak(
    slots: &Slots,
    latents: [i64; 4],
    pieces: Pieces,
    numbers: Numbers<'_>,
    go: impl Fn(&mut Walk<'_>, Chunk, Place),
) -> i64 {
    let [_, frames, height, width] = latents;
    let [latent_height, latent_width] = [height, width].map(|extent| pieces.side(extent));
    let chunks = even_spans(frames, pieces.temporal_chunk);
    let (mut buffer, mut peak) = (0, 0);
    for span in &chunks {
        let chunk = Chunk { batch: 1, latent_frames: span.len(), latent_height, latent_width, bytes: numbers.bytes };
        let place = Place { starts: true, ends: true }.part(span.start, span.end, frames);
        buffer = buffer.max(slots.largest_input(chunk, !place.starts) * numbers.bytes);
        let mut walk = Walk::new(slots, chunk, place, buffer, numbers.allocated);
        (walk.has_plain_kernels, walk.rounds) = (numbers.has_plain_kernels, numbers.rounds);
        if pieces.activation_offload && chunks.len() > 1 {
            walk.remembered.fill(0);
        }
        go(&mut walk, chunk, place);
        peak = peak.max(walk.peak);
    }
    peak
}

/// Bytes of the host that are page-locked for what convolutions of `slots` remember between chunks of latents `[C, T, H, W]`, where that waits there. libtorch locks a power of
/// two for each frame.
pub(super) fn remembered_on_host_bytes(slots: &Slots, latents: [i64; 4], pieces: Pieces, bytes: i64) -> u64 {
    let [_, frames, height, width] = latents;
    let chunks = even_spans(frames, pieces.temporal_chunk);
    let Some(first) = chunks.first().filter(|_| pieces.activation_offload && chunks.len() > 1) else { return 0 };
    let [latent_height, latent_width] = [height, width].map(|extent| pieces.side(extent));
    let chunk = Chunk { batch: 1, latent_frames: first.len(), latent_height, latent_width, bytes };
    let locked = |(history, sides): (i64, [i64; 5])| history as u64 * ((sides.iter().product::<i64>() * bytes) as u64).next_power_of_two();
    slots.remembered(chunk, false).into_iter().map(locked).sum()
}

/// What the allocator counts for a tensor of so many bytes.
pub(super) type Allocated<'a> = &'a dyn Fn(i64) -> i64;

/// A way through the decoder with one chunk.
pub(super) struct Walk<'a> {
    allocated: Allocated<'a>,
    /// Bytes of one number in the compute type.
    pub(super) bytes: i64,
    /// Bytes that the convolutions to come remember, the next one's last.
    remembered: Vec<i64>,
    /// Whether attention holds its score matrix, and convolutions unfold their inputs.
    has_plain_kernels: bool,
    /// Whether convolutions round what they read.
    rounds: bool,
    pub(super) buffer: i64,
    /// Bytes that those who wait for the current layer hold.
    held: i64,
    peak: i64,
}

/// An activation on its way.
#[derive(Clone, Copy)]
pub(super) struct Activation {
    pub(super) place: Place,
    pub(super) frames: i64,
    pub(super) height: i64,
    pub(super) width: i64,
    pub(super) channels: i64,
}

impl Activation {
    fn positions(self) -> i64 {
        self.frames * self.height * self.width
    }

    pub(super) fn with(self, channels: i64) -> Self {
        Self { channels, ..self }
    }

    /// A slice of it, of those in which so many channels are computed.
    fn slice(self, channels: i64) -> Self {
        let positions = position_slices(self.positions(), channels).next().map_or(0, |slice| slice.len());
        Self { frames: 1, height: 1, width: positions, ..self }
    }
}

impl<'a> Walk<'a> {
    fn new(slots: &Slots, chunk: Chunk, place: Place, buffer: i64, allocated: Allocated<'a>) -> Self {
        let bytes = chunk.bytes;
        let frames = |(history, sides): &(i64, [i64; 5])| history * allocated(sides.iter().product::<i64>() * bytes);
        let remembered = slots.remembered(chunk, place.starts && place.ends).iter().rev().map(frames).collect();
        Self { allocated, bytes, remembered, has_plain_kernels: false, rounds: false, buffer, held: 0, peak: 0 }
    }

    /// Says that these bytes exist at once, beside cache, buffer and what is held.
    pub(super) fn see(&mut self, bytes: i64) {
        self.peak = self.peak.max((self.allocated)(self.buffer) + self.remembered.iter().sum::<i64>() + self.held + bytes);
    }

    /// Goes on while somebody holds so many bytes more.
    pub(super) fn holding<R>(&mut self, bytes: i64, go_on: impl FnOnce(&mut Self) -> R) -> R {
        self.held += bytes;
        let result = go_on(self);
        self.held -= bytes;
        result
    }

    /// A causal convolution reads its input. Where the video ends its remembered frames go then.
    pub(super) fn recall(&mut self, place: Place) {
        if place.ends {
            self.remembered.pop();
        }
    }

    /// A convolution makes `made` of `read`, so many numbers of each channel to one, and its kernel holds more than the two.
    /// PyTorch's own, where cuDNN has none, has the input, the remembered frames before it, and the weight with channels outside, and for each number of a result all
    /// that it is made of, `images` of them after one another. One that rounds has input and weight once more, the input with its borders.
    pub(super) fn kernel(&mut self, read: Activation, made: Activation, taps: i64, images: i64) {
        let history = if taps == SQUARE { 0 } else { HISTORY };
        let bytes = |numbers: i64| (self.allocated)(numbers * self.bytes);
        let numbers = |x: Activation| x.positions() * x.channels;
        let input = Activation { frames: read.frames + history, ..read };
        let weight = read.channels * made.channels * taps;
        if self.has_plain_kernels {
            let unfolded = bytes(numbers(made.with(read.channels)) * taps / images);
            self.see(self.compute(made) + bytes(numbers(input)) + bytes(weight) + unfolded);
        } else if self.rounds {
            let border = if taps == CUBE { 2 } else { 0 };
            let input = Activation { height: input.height + border, width: input.width + border, ..input };
            self.see(self.compute(made) + bytes(numbers(input) + weight));
        }
    }

    /// What a tensor of `x` with so many bytes a number is allocated.
    fn of(&self, x: Activation, of_one: i64) -> i64 {
        (self.allocated)(x.positions() * x.channels * of_one)
    }

    pub(super) fn fp32(&self, x: Activation) -> i64 {
        self.of(x, FP32)
    }

    pub(super) fn compute(&self, x: Activation) -> i64 {
        self.of(x, self.bytes)
    }

    /// Bytes of `x` in the compute type beside `x` in fp32: none where it is the same.
    pub(super) fn cast(&self, x: Activation) -> i64 {
        if self.bytes == FP32 { 0 } else { self.compute(x) }
    }

    /// Norm, SiLU and convolution of `x`, which has these bytes and `of_one` for a number. Gives the result's bytes.
    pub(super) fn convolution(&mut self, x: Activation, of_one: i64, outputs: i64) -> i64 {
        let slices = if of_one == FP32 { 1 } else { 2 };
        self.see(self.of(x, of_one) + slices * self.fp32(x.slice(x.channels)));
        self.kernel(x, x.with(outputs), CUBE, 1);
        self.recall(x.place);
        self.compute(x.with(outputs))
    }

    pub(super) fn residual(&mut self, block: &ResidualBlock, x: Activation) -> Activation {
        let y = x.with(block.outputs);
        self.holding(self.fp32(x), |walk| {
            // 1. The input is held anyway.
            walk.see(walk.fp32(x.slice(x.channels)));
            walk.kernel(x, y, CUBE, 1);
            walk.recall(x.place);
            let h = walk.compute(y);
            walk.see(h);
            // 2. The same of that result, and 3. the way around.
            let h = walk.convolution(y, walk.bytes, block.outputs);
            walk.see(h);
            if !block.adds_to_its_input() {
                let widest = x.channels.max(y.channels);
                walk.see(h + walk.fp32(y) + walk.cast(x.slice(widest)) + walk.compute(y.slice(widest)));
            }
        });
        y
    }

    /// What lies between the latents and the other resolutions.
    pub(super) fn middle(&mut self, block: &MidBlock, x: Activation) {
        let [before, after] = &block.resnets;
        self.residual(before, x);
        // Attention: its input, the norm of that in both types, and queries, keys and values.
        self.see(2 * self.fp32(x) + self.cast(x) + 3 * self.compute(x));
        if self.has_plain_kernels {
            let (batch, positions) = (x.frames, x.height * x.width);
            let shape = AttentionShape { batch, heads: 1, queries: positions, keys: positions, width: x.channels };
            self.see(self.fp32(x) + 3 * self.compute(x) + shape.score_bytes(self.bytes));
        }
        self.residual(after, x);
    }
}
