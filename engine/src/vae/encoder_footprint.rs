//! What encoding holds beside the weights, computed by going through the encoder with shapes alone.
//!
//! Note: what exists at once.
//! What [`super::walk`] says; beside it a chunk of the video in colours all the way, around the blocks of a resolution its shortcut, and of a downsampler input and result.

use super::COLOURS;
use super::encoder::{DownBlock, VaeEncoder};
use super::feature_cache::Place;
use super::pieces::Pieces;
use super::resample::Downsampler;
use super::slots::Chunk;
use super::tiling::even_spans;
use super::walk::{self, Activation, FP32, LINE, Numbers, SQUARE, Walk};

impl VaeEncoder {
    /// The most bytes that encoding a whole video, as [`super::encode_video`] does it, holds at once beside weights: its latents included.
    ///
    /// # Shapes
    /// `latents`, those of the video, is `[C, T, H, W]`.
    pub fn activation_bytes(&self, latents: [i64; 4], pieces: Pieces, numbers: Numbers<'_>) -> i64 {
        let peak = walk::peak(&self.slots, latents, pieces, numbers, |walk, chunk, place| walk.encode(self, chunk, place));
        peak + (numbers.allocated)(latents.iter().product::<i64>() * FP32)
    }

    /// Bytes of the host that are page-locked for what is remembered between chunks, where that waits there.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn remembered_on_host_bytes(&self, latents: [i64; 4], pieces: Pieces, bytes: i64) -> u64 {
        walk::remembered_on_host_bytes(&self.slots, latents, pieces, bytes)
    }
}

impl Walk<'_> {
    fn encode(&mut self, encoder: &VaeEncoder, chunk: Chunk, place: Place) {
        // 1. Colours, as they came, and with patches as channels.
        // A latent frame stands for as many as lie between the first ones of two.
        let of_one = encoder.frames_of(2) - encoder.frames_of(1);
        let frames = if place.starts { encoder.frames_of(chunk.latent_frames) } else { of_one * chunk.latent_frames };
        let [height, width] =
            [chunk.latent_height, chunk.latent_width].map(|side| side * encoder.spatial_compression() / encoder.patch_size);
        let video = Activation { place, frames, height, width, channels: COLOURS * encoder.patch_size * encoder.patch_size };
        self.holding(self.compute(video), |walk| {
            walk.see(walk.compute(video));
            walk.recall(place);
            let mut x = video.with(encoder.conv_in.outputs());
            walk.see(walk.fp32(x) + walk.cast(x));

            // 2. Down, and the middle.
            for block in &encoder.down_blocks {
                x = walk.go_down(block, x);
            }
            walk.middle(&encoder.mid_block, x);

            // 3. The distribution, twice as wide as the latents.
            let distribution = walk.convolution(x, FP32, 2 * encoder.z_dim());
            walk.see(2 * distribution);
        });
    }

    fn go_down(&mut self, block: &DownBlock, x: Activation) -> Activation {
        let outputs = block.resnets.last().map_or(x.channels, |resnet| resnet.outputs);
        let small = block.downsampler.as_ref().map_or(x.with(outputs), |downsampler| x.with(outputs).halved(downsampler));
        let around = if block.shortcut.is_some() { self.fp32(small) } else { 0 };
        self.holding(around, |walk| {
            let mut y = x;
            for resnet in &block.resnets {
                y = walk.residual(resnet, y);
            }
            if let Some(downsampler) = &block.downsampler {
                walk.halve(downsampler, y);
            }
        });
        self.see(self.fp32(small) + around);
        small
    }

    /// Half the height and width, then half the frames where the downsampler halves them.
    fn halve(&mut self, downsampler: &Downsampler, x: Activation) {
        // Some frames at a time where the buffer does not hold them all.
        let at_most = (self.buffer / ((x.height + 1) * (x.width + 1) * x.channels * self.bytes)).max(1);
        let at_once = even_spans(x.frames, at_most)[0].len();
        let small = Activation { height: x.height / 2, width: x.width / 2, ..x };
        let slice = Activation { frames: at_once, ..small };
        let result = if at_once < x.frames { self.compute(slice) } else { self.cast(small) };
        self.holding(self.fp32(x), |walk| {
            walk.see(walk.fp32(small) + result);
            walk.kernel(Activation { frames: at_once, ..x }, slice, SQUARE, at_once);
        });
        if !downsampler.halves_frames() {
            return;
        }
        let all = x.halved(downsampler);
        if x.place.starts {
            self.recall(x.place);
            let rest = Activation { frames: all.frames - 1, ..all };
            self.holding(self.fp32(small), |walk| {
                walk.see(walk.cast(rest) + walk.fp32(rest));
                walk.see(walk.fp32(rest) + walk.fp32(all));
            });
        } else {
            self.kernel(all, all, LINE, 1);
            self.recall(x.place);
            self.see(self.cast(all) + self.fp32(all));
        }
    }
}

impl Activation {
    /// What the downsampler makes of it.
    fn halved(self, downsampler: &Downsampler) -> Self {
        let frames = if downsampler.halves_frames() { (self.frames + 1) / 2 } else { self.frames };
        Self { frames, height: self.height / 2, width: self.width / 2, ..self }
    }
}
