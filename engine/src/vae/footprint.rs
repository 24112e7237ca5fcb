//! What decoding holds beside the weights, computed by going through the decoder with shapes alone.
//!
//! Note: what exists at once.
//! From its first layer to its last a chunk has the feature cache and the buffer of padded inputs. Beside them a residual block has its input in fp32 and
//! a convolution's result, and what goes into or comes out of the next step: a slice of a norm, or the shortcut. An upsampler has its input, which waits
//! while the slices of its result go all the way up, and such a slice. In the last chunk each convolution's remembered frames go as it reads them. Left
//! out are tensors of one row and what convolutions ask for as workspace: channels lie innermost, so that is little.

use super::COLOURS;
use super::blocks::ResidualBlock;
use super::decoder::{UpBlock, VaeDecoder};
use super::feature_cache::Place;
use super::frames::Decoding;
use super::norm::position_slices;
use super::resample::Upsampler;
use super::slots::{Chunk, slices};
use super::tiling::{Span, even_spans};
use crate::attention::AttentionShape;

/// Bytes of one number in fp32.
const FP32: i64 = 4;
/// Numbers of one channel that go into one of a convolution's results: in time and space, in time alone, in space alone.
const CUBE: i64 = 27;
const LINE: i64 = 3;
const SQUARE: i64 = 9;
/// Frames that a convolution in time sees before those that are its own.
const HISTORY: i64 = 2;

impl VaeDecoder {
    /// The most bytes that decoding a whole video, as [`super::decode_video`] does it, holds at once beside weights and latents. `bytes` are those of
    /// one number in the compute type, `has_plain_kernels` says whether attention holds its score matrix and convolutions unfold their inputs, and `allocated` what the
    /// allocator counts for a tensor of so many.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn activation_bytes(
        &self,
        latents: [i64; 4],
        decoding: Decoding,
        bytes: i64,
        has_plain_kernels: bool,
        allocated: &dyn Fn(i64) -> i64,
    ) -> i64 {
        let Decoding { tiling, temporal_chunk, activation_offload } = decoding;
        let [_, frames, height, width] = latents;
        let [latent_height, latent_width] = [height, width].map(|extent| decoding.side(extent));
        let chunks = even_spans(frames, temporal_chunk);
        let mut buffer = 0;
        let mut peak = 0;
        for span in &chunks {
            let chunk = Chunk { batch: 1, latent_frames: span.len(), latent_height, latent_width, bytes };
            let place = Place { starts: true, ends: true }.part(span.start, span.end, frames);
            buffer = buffer.max(self.slots.largest_input(chunk, !place.starts) * bytes);
            let mut walk = Walk::new(self, chunk, place, buffer, allocated);
            walk.has_plain_kernels = has_plain_kernels;
            if activation_offload && chunks.len() > 1 {
                walk.remembered.fill(0);
            }
            walk.decode(self, chunk, place);
            peak = peak.max(walk.peak);
        }
        // The canvas that tiles are put together in is as high as one of them.
        let pixels = self.frames_of(frames) * latent_height * width * self.spatial_compression().pow(2);
        let canvas = if tiling.is_some() { allocated(pixels * COLOURS * bytes) } else { 0 };
        canvas + peak
    }

    /// Bytes of the host that are page-locked for what is remembered between chunks, where that waits there. libtorch locks a power of two for each frame.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn remembered_on_host_bytes(&self, latents: [i64; 4], decoding: Decoding, bytes: i64) -> u64 {
        let [_, frames, height, width] = latents;
        let chunks = even_spans(frames, decoding.temporal_chunk);
        let Some(first) = chunks.first().filter(|_| decoding.activation_offload && chunks.len() > 1) else { return 0 };
        let [latent_height, latent_width] = [height, width].map(|extent| decoding.side(extent));
        let chunk = Chunk { batch: 1, latent_frames: first.len(), latent_height, latent_width, bytes };
        let locked =
            |(history, sides): (i64, [i64; 5])| history as u64 * ((sides.iter().product::<i64>() * bytes) as u64).next_power_of_two();
        self.slots.remembered(chunk, false).into_iter().map(locked).sum()
    }
}

impl Decoding {
    /// How many latent positions are decoded, those that tiles share counted for each of them.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub(crate) fn positions(self, latents: [i64; 4]) -> u64 {
        let [_, frames, height, width] = latents;
        let decoded = |extent| self.tiling.map_or(extent, |tiling| tiling.spans(extent).iter().map(Span::len).sum());
        (frames * decoded(height) * decoded(width)) as u64
    }

    /// A side of what is decoded at once of a frame with sides of so many latent pixels: all tiles of a frame have one size.
    fn side(self, extent: i64) -> i64 {
        self.tiling.and_then(|tiling| Some(tiling.spans(extent).first()?.len())).unwrap_or(extent)
    }
}

/// What the allocator counts for a tensor of so many bytes.
type Allocated<'a> = &'a dyn Fn(i64) -> i64;

/// A way through the decoder with one chunk.
struct Walk<'a> {
    allocated: Allocated<'a>,
    /// Bytes of one number in the compute type.
    bytes: i64,
    /// Bytes that the convolutions to come remember, the next one's last.
    remembered: Vec<i64>,
    /// Whether attention holds its score matrix, and convolutions unfold their inputs.
    has_plain_kernels: bool,
    buffer: i64,
    /// Bytes that those who wait for the current layer hold.
    held: i64,
    peak: i64,
}

/// An activation on its way.
#[derive(Clone, Copy)]
struct Activation {
    place: Place,
    frames: i64,
    height: i64,
    width: i64,
    channels: i64,
}

impl Activation {
    fn positions(self) -> i64 {
        self.frames * self.height * self.width
    }

    fn with(self, channels: i64) -> Self {
        Self { channels, ..self }
    }

    /// A slice of it, of those in which so many channels are computed.
    fn slice(self, channels: i64) -> Self {
        let positions = position_slices(self.positions(), channels).next().map_or(0, |slice| slice.len());
        Self { frames: 1, height: 1, width: positions, ..self }
    }
}

impl<'a> Walk<'a> {
    fn new(decoder: &VaeDecoder, chunk: Chunk, place: Place, buffer: i64, allocated: Allocated<'a>) -> Self {
        let bytes = chunk.bytes;
        let frames = |(history, sides): &(i64, [i64; 5])| history * allocated(sides.iter().product::<i64>() * bytes);
        let remembered = decoder.slots.remembered(chunk, place.starts && place.ends).iter().rev().map(frames).collect();
        Self { allocated, bytes, remembered, has_plain_kernels: false, buffer, held: 0, peak: 0 }
    }

    /// Says that these bytes exist at once, beside cache, buffer and what is held.
    fn see(&mut self, bytes: i64) {
        self.peak = self.peak.max((self.allocated)(self.buffer) + self.remembered.iter().sum::<i64>() + self.held + bytes);
    }

    /// Goes on while somebody holds so many bytes more.
    fn holding<R>(&mut self, bytes: i64, go_on: impl FnOnce(&mut Self) -> R) -> R {
        self.held += bytes;
        let result = go_on(self);
        self.held -= bytes;
        result
    }

    /// A causal convolution reads its input. Where the video ends its remembered frames go then.
    fn recall(&mut self, place: Place) {
        if place.ends {
            self.remembered.pop();
        }
    }

    /// A convolution of `x`, with so many numbers of each channel in a result, goes by PyTorch's own kernel where cuDNN has none: beside the result there are the input,
    /// the remembered frames before it, and the weight with channels outside, and for each number of a result all that it is made of, `images` of them after one another.
    fn unfold(&mut self, x: Activation, outputs: i64, taps: i64, images: i64) {
        if self.has_plain_kernels {
            let history = if taps == SQUARE { 0 } else { HISTORY };
            let bytes = |numbers: i64| (self.allocated)(numbers * self.bytes);
            let numbers = |x: Activation| x.positions() * x.channels;
            let input = bytes(numbers(Activation { frames: x.frames + history, ..x }));
            let unfolded = bytes(numbers(x) * taps / images);
            self.see(self.compute(x.with(outputs)) + input + bytes(x.channels * outputs * taps) + unfolded);
        }
    }

    /// What a tensor of `x` with so many bytes a number is allocated.
    fn of(&self, x: Activation, of_one: i64) -> i64 {
        (self.allocated)(x.positions() * x.channels * of_one)
    }

    fn fp32(&self, x: Activation) -> i64 {
        self.of(x, FP32)
    }

    fn compute(&self, x: Activation) -> i64 {
        self.of(x, self.bytes)
    }

    /// Bytes of `x` in the compute type beside `x` in fp32: none where it is the same.
    fn cast(&self, x: Activation) -> i64 {
        if self.bytes == FP32 { 0 } else { self.compute(x) }
    }

    fn decode(&mut self, decoder: &VaeDecoder, chunk: Chunk, place: Place) {
        // 1. In, and the middle.
        let [before, after] = &decoder.mid_block.resnets;
        let Chunk { latent_frames: frames, latent_height: height, latent_width: width, .. } = chunk;
        let x = Activation { place, frames, height, width, channels: before.inputs };
        self.recall(place);
        self.see(self.fp32(x) + self.cast(x));
        self.residual(before, x);
        // Attention: its input, the norm of that in both types, and queries, keys and values.
        self.see(2 * self.fp32(x) + self.cast(x) + 3 * self.compute(x));
        if self.has_plain_kernels {
            let (batch, positions) = (x.frames, x.height * x.width);
            let shape = AttentionShape { batch, heads: 1, queries: positions, keys: positions, width: x.channels };
            self.see(self.fp32(x) + 3 * self.compute(x) + shape.score_bytes(self.bytes));
        }
        self.residual(after, x);

        // 2. Up, and colours.
        self.go_up(decoder, &decoder.up_blocks, x);
    }

    /// Norm, SiLU and convolution of `x`, which has these bytes and `of_one` for a number. Gives the result's bytes.
    fn convolution(&mut self, x: Activation, of_one: i64, outputs: i64) -> i64 {
        let slices = if of_one == FP32 { 1 } else { 2 };
        self.see(self.of(x, of_one) + slices * self.fp32(x.slice(x.channels)));
        self.unfold(x, outputs, CUBE, 1);
        self.recall(x.place);
        self.compute(x.with(outputs))
    }

    fn residual(&mut self, block: &ResidualBlock, x: Activation) -> Activation {
        let y = x.with(block.outputs);
        self.holding(self.fp32(x), |walk| {
            // 1. The input is held anyway.
            walk.see(walk.fp32(x.slice(x.channels)));
            walk.unfold(x, block.outputs, CUBE, 1);
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

    fn go_up(&mut self, decoder: &VaeDecoder, blocks: &[UpBlock], x: Activation) {
        let Some((block, above)) = blocks.split_first() else { return self.colours(decoder, x) };
        let input = if block.shortcut { self.fp32(x) } else { 0 };
        let mut y = x;
        for (index, resnet) in block.resnets.iter().enumerate() {
            // The first one may have the block's input for its own.
            let held = if index > 0 || resnet.adds_to_its_input() { input } else { 0 };
            y = self.holding(held, |walk| walk.residual(resnet, y));
        }
        let Some(upsampler) = &block.upsampler else { return self.go_up(decoder, above, y) };
        self.holding(input, |walk| {
            let small = walk.in_time(upsampler, y);
            walk.holding(walk.compute(small), |walk| walk.in_space(decoder, upsampler, above, small));
        });
    }

    /// Twice the frames, where the upsampler doubles them.
    fn in_time(&mut self, upsampler: &Upsampler, x: Activation) -> Activation {
        let starts = x.place.starts;
        if upsampler.time_conv.is_none() || starts && x.frames == 1 {
            self.see(self.fp32(x) + self.cast(x));
            return x;
        }
        let doubled = Activation { frames: 2 * (x.frames - i64::from(starts)), ..x };
        self.unfold(Activation { frames: doubled.frames / 2, ..x }, 2 * x.channels, LINE, 1);
        let made = self.compute(doubled);
        self.recall(x.place);
        let all = Activation { frames: doubled.frames + i64::from(starts), ..x };
        if starts {
            // The old frames wait for the new ones.
            self.see(self.fp32(x) + made + made.max(self.compute(all)));
        } else {
            self.see(2 * made);
        }
        all
    }

    /// Slices of twice the height and width, each all the way up. The input is held.
    fn in_space(&mut self, decoder: &VaeDecoder, upsampler: &Upsampler, above: &[UpBlock], small: Activation) {
        let pixels = 4 * small.height * small.width;
        let frame_bytes = pixels * upsampler.conv.outputs * self.bytes;
        for Span { start, end } in slices(small.frames, frame_bytes) {
            let of_frames = |frames| Activation {
                place: small.place.part(start, end, small.frames),
                frames,
                height: 2 * small.height,
                width: 2 * small.width,
                channels: upsampler.conv.outputs,
            };
            let large = of_frames(end - start);
            // Some frames at a time where the buffer does not hold them all.
            let at_most = (self.buffer / (pixels * small.channels * self.bytes)).max(1);
            let at_once = even_spans(large.frames, at_most)[0].len();
            let unfolded = of_frames(at_once).with(small.channels);
            self.holding(self.fp32(large), |walk| walk.unfold(unfolded, large.channels, SQUARE, at_once));
            let result = if at_once < large.frames { self.compute(of_frames(at_once)) } else { self.cast(large) };
            self.see(self.fp32(large) + result);
            self.go_up(decoder, above, large);
        }
    }

    /// The way from channels to pixels, once more where patches become those.
    fn colours(&mut self, decoder: &VaeDecoder, x: Activation) {
        let colours = COLOURS * decoder.patch_size * decoder.patch_size;
        let pixels = self.convolution(x, FP32, colours);
        self.see(2 * pixels);
    }
}
