//! What decoding holds beside the weights, computed by going through the decoder with shapes alone.
//!
//! Note: what exists at once.
//! From its first layer to its last a chunk has the feature cache and the buffer of padded inputs. Beside them a residual block has its input, a
//! convolution's result, and what goes into or comes out of the next step: some frames of a norm, or the shortcut. An upsampler has its input with
//! its frames doubled, and its result. In the last chunk each convolution's remembered frames go as it reads them. Left out are tensors of one row
//! and what convolutions ask for as workspace: channels lie innermost, so that is little.

use super::COLOURS;
use super::blocks::ResidualBlock;
use super::causal_conv::Chunk;
use super::decoder::{UpBlock, VaeDecoder};
use super::norm::SLICE_BYTES;
use super::resample::Upsampler;
use super::tiling::{Tiling, even_spans};

impl VaeDecoder {
    /// The most bytes that decoding a whole video, as [`super::decode_video`] does it, holds at once beside weights and latents. `bytes` are those of
    /// one number in the compute type.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub fn activation_bytes(&self, latents: [i64; 4], tiling: Option<Tiling>, temporal_chunk: i64, bytes: i64) -> i64 {
        let [_, frames, height, width] = latents;
        // All tiles of a frame have one size.
        let side = |extent| tiling.and_then(|tiling| Some(tiling.spans(extent).first()?.len())).unwrap_or(extent);
        let (latent_height, latent_width) = (side(height), side(width));
        let chunks = even_spans(frames, temporal_chunk);
        let peaks = chunks.iter().enumerate().map(|(index, span)| {
            let chunk = Chunk { batch: 1, latent_frames: span.len(), latent_height, latent_width };
            let mut walk = Walk::new(self, chunk, index == 0, index + 1 == chunks.len(), bytes);
            walk.decode(self);
            walk.peak
        });
        // The canvas that tiles are put together in is as high as one of them.
        let pixels = self.frames_of(frames) * latent_height * width * self.spatial_compression().pow(2);
        let canvas = if tiling.is_some() { pixels * COLOURS * bytes } else { 0 };
        canvas + peaks.max().unwrap_or(0)
    }
}

/// A way through the decoder with one chunk.
struct Walk {
    bytes: i64,
    is_first: bool,
    is_last: bool,
    /// Bytes that the convolutions to come remember, the next one's last.
    remembered: Vec<i64>,
    buffer: i64,
    /// Bytes that the current layer's caller holds.
    held: i64,
    frames: i64,
    height: i64,
    width: i64,
    channels: i64,
    peak: i64,
}

impl Walk {
    fn new(decoder: &VaeDecoder, chunk: Chunk, is_first: bool, is_last: bool, bytes: i64) -> Self {
        let mut remembered: Vec<i64> = decoder.slots.remembered(chunk).iter().rev().map(|elements| elements * bytes).collect();
        if is_first && is_last {
            // There is nothing before it and nothing after it.
            remembered.clear();
        }
        let buffer = decoder.slots.largest_input(chunk, !is_first) * bytes;
        let Chunk { latent_frames: frames, latent_height: height, latent_width: width, .. } = chunk;
        Self { bytes, is_first, is_last, remembered, buffer, held: 0, frames, height, width, channels: 0, peak: 0 }
    }

    /// Bytes of an activation with so many channels.
    fn with(&self, channels: i64) -> i64 {
        self.frames * self.height * self.width * channels * self.bytes
    }

    /// Bytes of the current activation.
    fn activation(&self) -> i64 {
        self.with(self.channels)
    }

    /// Says that these bytes exist at once, beside cache, buffer and what the caller holds.
    fn see(&mut self, bytes: i64) {
        self.peak = self.peak.max(self.buffer + self.remembered.iter().sum::<i64>() + self.held + bytes);
    }

    /// A causal convolution reads its input. In the last chunk its remembered frames go then.
    fn recall(&mut self) {
        if self.is_last {
            self.remembered.pop();
        }
    }

    fn decode(&mut self, decoder: &VaeDecoder) {
        // 1. In, and the middle.
        let [before, after] = &decoder.mid_block.resnets;
        self.recall();
        self.channels = before.inputs;
        self.see(self.activation());
        self.residual(before);
        // Attention: its input, the norm of that, and queries, keys and values.
        self.see(5 * self.activation());
        self.residual(after);

        // 2. Up.
        for block in &decoder.up_blocks {
            self.up_block(block);
        }

        // 3. Colours, and once more where patches become pixels.
        self.see(self.activation() + self.norm_slice());
        self.recall();
        self.see(2 * self.with(COLOURS * decoder.patch_size * decoder.patch_size));
    }

    /// The frames that a norm has made and SiLU has not taken yet.
    fn norm_slice(&self) -> i64 {
        let frame = self.activation() / self.frames;
        self.frames.min((SLICE_BYTES / frame).max(1)) * frame
    }

    fn residual(&mut self, block: &ResidualBlock) {
        // 1. The input and its norm, then input and result.
        let input = self.activation();
        self.see(input + self.norm_slice());
        self.recall();
        self.channels = block.outputs;
        let output = self.activation();
        // 2. The same of that result.
        self.see(input + output + self.norm_slice());
        self.recall();
        // 3. The way around.
        let shortcut = if block.inputs == block.outputs { 0 } else { output };
        self.see(input + output + shortcut);
    }

    fn up_block(&mut self, block: &UpBlock) {
        let input = if block.shortcut { self.activation() } else { 0 };
        for (index, resnet) in block.resnets.iter().enumerate() {
            // The first one's own input is the block's.
            self.held = if index > 0 { input } else { 0 };
            self.residual(resnet);
        }
        self.held = input;
        if let Some(upsampler) = &block.upsampler {
            self.upsample(upsampler);
        }
        self.held = 0;
    }

    fn upsample(&mut self, upsampler: &Upsampler) {
        // 1. In time, which the video's first frame goes by.
        let is_temporal = upsampler.time_conv.is_some();
        if is_temporal && self.is_first && self.frames > 1 {
            // Old frames, new ones as the convolution makes them, those in order, and all of them.
            let frame = self.activation() / self.frames;
            let made = 2 * (self.frames - 1);
            self.see((self.frames + made + made + made + 1) * frame);
            self.frames = made + 1;
        } else if is_temporal && !self.is_first {
            self.recall();
            self.frames *= 2;
        }
        // 2. In space, some frames at a time where the buffer does not hold them all.
        let small = self.activation();
        (self.height, self.width) = (2 * self.height, 2 * self.width);
        let frames_at_once = (self.buffer * self.frames / self.activation()).max(1);
        self.channels = upsampler.conv.outputs;
        let large = self.activation();
        let slices = (self.frames + frames_at_once - 1) / frames_at_once;
        self.see(small + large + if slices > 1 { large / slices } else { 0 });
    }
}
