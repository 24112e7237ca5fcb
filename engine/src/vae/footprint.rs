//! What decoding holds beside the weights, computed by going through the decoder with shapes alone.
//!
//! Note: what exists at once.
//! What [`super::walk`] says. An upsampler has its input, which waits while the slices of its result go all the way up, and such a slice.

use super::COLOURS;
use super::decoder::{UpBlock, VaeDecoder};
use super::feature_cache::Place;
use super::pieces::Pieces;
use super::resample::Upsampler;
use super::slots::{Chunk, slices};
use super::tiling::{Span, even_spans};
use super::walk::{self, Activation, FP32, LINE, Numbers, SQUARE, Walk};

impl VaeDecoder {
    /// The most bytes that decoding a whole video, as [`super::decode_video`] does it, holds at once beside weights and latents.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn activation_bytes(&self, latents: [i64; 4], pieces: Pieces, numbers: Numbers<'_>) -> i64 {
        let [_, _, _, width] = latents;
        // The canvas that tiles are put together in is as high as one of them.
        let canvas = if pieces.tiling.is_some() { self.pixel_bytes(latents, pieces, width, numbers) } else { 0 };
        canvas + self.peak(latents, pieces, numbers)
    }

    /// The same of a rank that is not the first: it has a tile's pixels until the first one has them.
    pub(crate) fn activation_bytes_for_first(&self, latents: [i64; 4], pieces: Pieces, numbers: Numbers<'_>) -> i64 {
        let [_, _, _, width] = latents;
        self.pixel_bytes(latents, pieces, pieces.side(width), numbers) + self.peak(latents, pieces, numbers)
    }

    fn peak(&self, latents: [i64; 4], pieces: Pieces, numbers: Numbers<'_>) -> i64 {
        walk::peak(&self.slots, latents, pieces, numbers, |walk, chunk, place| walk.decode(self, chunk, place))
    }

    /// Bytes of the pixels of all frames, as high as a tile and as wide as so many latent pixels.
    fn pixel_bytes(&self, [_, frames, height, _]: [i64; 4], pieces: Pieces, width: i64, numbers: Numbers<'_>) -> i64 {
        let pixels = self.frames_of(frames) * pieces.side(height) * width * self.spatial_compression().pow(2);
        (numbers.allocated)(pixels * COLOURS * numbers.bytes)
    }

    /// Bytes of the host that are page-locked for what is remembered between chunks, where that waits there. libtorch locks a power of two for each frame.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn remembered_on_host_bytes(&self, latents: [i64; 4], pieces: Pieces, bytes: i64) -> u64 {
        walk::remembered_on_host_bytes(&self.slots, latents, pieces, bytes)
    }
}

impl Walk<'_> {
    fn decode(&mut self, decoder: &VaeDecoder, chunk: Chunk, place: Place) {
        // 1. In, and the middle.
        let Chunk { latent_frames: frames, latent_height: height, latent_width: width, .. } = chunk;
        let x = Activation { place, frames, height, width, channels: decoder.head_size() };
        self.recall(place);
        self.see(self.fp32(x) + self.cast(x));
        self.middle(&decoder.mid_block, x);

        // 2. Up, and colours.
        self.go_up(decoder, &decoder.up_blocks, x);
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
        let read = Activation { frames: doubled.frames / 2, ..x };
        self.kernel(read, read.with(2 * x.channels), LINE, 1);
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
            let made = of_frames(at_once);
            self.holding(self.fp32(large), |walk| walk.kernel(made.with(small.channels), made, SQUARE, at_once));
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
