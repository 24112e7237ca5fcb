//! What the causal convolutions of a model read and remember, from shapes alone, and how many frames go through a resolution at a time.

use super::tiling::{Span, even_spans};

/// The most that the activation of one resolution has, in the compute type, unless a single frame has more. Beyond it the frames of a chunk go up to that
/// resolution in several slices, each up to the pixels before the next. A convolution there then holds a fraction of the chunk; what it costs is that
/// remembered frames are copied once for each slice. A frame at 480p is more than this where pixels are, so frames go there one by one; of tiles it is some
/// thirty frames, enough to fill a GPU.
const SLICE_BYTES: i64 = 24 << 20;

/// How so many frames of `frame_bytes` go up to a resolution.
pub(super) fn slices(frames: i64, frame_bytes: i64) -> Vec<Span> {
    even_spans(frames, (SLICE_BYTES / frame_bytes).max(1))
}

/// What one convolution reads: so many channels, at one of the resolutions.
#[derive(Debug, Clone, Copy)]
struct Slot {
    channels: i64,
    resolution: usize,
    /// Pixels that height and width are padded by.
    edge: i64,
    /// Frames that it remembers.
    history: i64,
}

/// One of the resolutions that activations go through: so many times the frames, height and width of the latents.
#[derive(Debug, Clone, Copy)]
struct Resolution {
    temporal_scale: i64,
    spatial_scale: i64,
    /// Channels of what comes up to it; empty where nothing does.
    enlarged: Option<i64>,
}

/// How a chunk goes through a resolution.
#[derive(Debug, Clone, Copy, Default)]
struct Passage {
    /// Slices that it goes in.
    times: i64,
    /// The most frames of one.
    frames: i64,
}

/// The size of one chunk of a video, as latents, and of its numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) batch: i64,
    pub(super) latent_frames: i64,
    pub(super) latent_height: i64,
    pub(super) latent_width: i64,
    /// Bytes of one number in the compute type.
    pub(super) bytes: i64,
}

/// The causal convolutions of a model in execution order, each with its slot in the feature cache.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    resolutions: Vec<Resolution>,
    /// What the convolutions of resamplers read of one frame.
    resampled: Vec<Slot>,
}

impl Slots {
    /// No convolution yet, at so many times the frames, height and width of the latents.
    pub(super) fn new(temporal_scale: i64, spatial_scale: i64) -> Self {
        let first = Resolution { temporal_scale, spatial_scale, enlarged: None };
        Self { slots: Vec::new(), resolutions: vec![first], resampled: Vec::new() }
    }

    /// Says that an upsampler doubles height and width for the convolutions to come, and where `temporal` the frames.
    pub(super) fn double(&mut self, inputs: i64, outputs: i64, temporal: bool) {
        let Resolution { temporal_scale, spatial_scale, .. } = self.current();
        let frames = if temporal { 2 } else { 1 };
        let next = Resolution { temporal_scale: frames * temporal_scale, spatial_scale: 2 * spatial_scale, enlarged: Some(outputs) };
        self.resolutions.push(next);
        self.resampled.push(Slot { channels: inputs, resolution: self.resolutions.len() - 1, edge: 0, history: 0 });
    }

    /// Says that a downsampler of `channels` halves height and width for the convolutions to come.
    pub(super) fn halve(&mut self, channels: i64) {
        self.resampled.push(Slot { channels, resolution: self.resolutions.len() - 1, edge: 1, history: 0 });
        let Resolution { temporal_scale, spatial_scale, .. } = self.current();
        self.resolutions.push(Resolution { temporal_scale, spatial_scale: spatial_scale / 2, enlarged: None });
    }

    /// Says that a downsampler halves the frames for the convolutions to come.
    pub(super) fn halve_frames(&mut self) {
        let current = self.current();
        self.resolutions.push(Resolution { temporal_scale: current.temporal_scale / 2, ..current });
    }

    /// The slot of the next convolution, of so many channels, which remembers so many frames.
    pub(super) fn add(&mut self, channels: i64, history: i64) -> usize {
        self.slots.push(Slot { channels, resolution: self.resolutions.len() - 1, edge: 0, history });
        self.slots.len() - 1
    }

    fn current(&self) -> Resolution {
        *self.resolutions.last().expect("there is a first one")
    }

    /// What each convolution remembers from slice to slice and from chunk to chunk: how many frames, and the sides of one,
    /// `[batch, 1, height, width, channels]`. `alone` says that `chunk` is a whole video.
    pub(super) fn remembered(&self, chunk: Chunk, alone: bool) -> Vec<(i64, [i64; 5])> {
        let passages = self.passages(chunk, false);
        let once = |slot: &Slot| alone && passages[slot.resolution].times == 1;
        self.slots.iter().map(|slot| (if once(slot) { 0 } else { slot.history }, self.sides(slot, chunk, 1))).collect()
    }

    /// Elements of the largest input, padded or enlarged, in `chunk`. `started` says that it is not the video's first.
    pub(super) fn largest_input(&self, chunk: Chunk, started: bool) -> i64 {
        let passages = self.passages(chunk, started);
        let padded = self.slots.iter().map(|slot| (slot, slot.history + passages[slot.resolution].frames));
        let resampled = self.resampled.iter().map(|slot| (slot, 1));
        padded.chain(resampled).map(|(slot, frames)| self.sides(slot, chunk, frames).iter().product()).max().unwrap_or(0)
    }

    /// How `chunk` goes through each resolution.
    fn passages(&self, chunk: Chunk, started: bool) -> Vec<Passage> {
        let mut passages = vec![Passage::default(); self.resolutions.len()];
        let scale = self.resolutions[0].temporal_scale;
        let frames = chunk.latent_frames * scale - if started { 0 } else { scale - 1 };
        self.visit(0, frames, started, chunk, &mut passages);
        passages
    }

    /// Counts so many frames at resolution `index`, and what they become at those after it.
    fn visit(&self, index: usize, frames: i64, started: bool, chunk: Chunk, passages: &mut [Passage]) {
        passages[index].frames = passages[index].frames.max(frames);
        passages[index].times += 1;
        let Some(next) = self.resolutions.get(index + 1) else { return };
        let now = self.resolutions[index].temporal_scale;
        let frames = match next.temporal_scale {
            // The video's first frame stays one.
            then if then > now => 2 * frames - i64::from(!started),
            then if then < now => (frames + 1) / 2,
            _ => frames,
        };
        let Some(channels) = next.enlarged else { return self.visit(index + 1, frames, started, chunk, passages) };
        let frame = Slot { channels, resolution: index + 1, edge: 0, history: 0 };
        let frame_bytes = self.sides(&frame, chunk, 1).iter().product::<i64>() * chunk.bytes;
        for slice in slices(frames, frame_bytes) {
            self.visit(index + 1, slice.len(), started || slice.start > 0, chunk, passages);
        }
    }

    /// What `slot` reads of so many frames: `[batch, frames, height, width, channels]`.
    fn sides(&self, slot: &Slot, chunk: Chunk, frames: i64) -> [i64; 5] {
        let scale = self.resolutions[slot.resolution].spatial_scale;
        [chunk.batch, frames, chunk.latent_height * scale + slot.edge, chunk.latent_width * scale + slot.edge, slot.channels]
    }
}
