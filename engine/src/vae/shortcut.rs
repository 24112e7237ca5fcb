//! Moving pixels into channels and back: the shortcuts around the resolutions of Wan2.2's VAE, and its patches of pixels.
//!
//! Follows `AvgDown3D`, `DupUp3D`, `patchify` and `unpatchify` in diffusers 0.42.x
//! `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`. In all four, of what lies side by side in channels, the channel that there was
//! before changes slowest.

use tch::Tensor;

use super::feature_cache::FeatureCache;
use crate::error::Result;

/// The way around the residual blocks and the downsampler of one resolution.
#[derive(Debug)]
pub(super) struct AverageShortcut {
    outputs: i64,
    /// Frames, and pixels a side, that become channels.
    frames: i64,
    side: i64,
}

impl AverageShortcut {
    /// The way to `outputs` channels and a resolution that is halved in space where `spatial` and in time where `temporal`.
    pub(super) fn new(outputs: i64, spatial: bool, temporal: bool) -> Self {
        Self { outputs, frames: 1 + i64::from(temporal), side: 1 + i64::from(spatial) }
    }

    /// The frames and pixels that become one are channels first, then so many neighbouring channels are averaged as leaves the right number.
    /// The video's first frame has a black one before it.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames', height', width', outputs]`.
    pub(super) fn forward(&self, x: &Tensor, cache: &FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;
        let (n, side) = (self.frames, self.side);
        if n * side == 1 && channels == self.outputs {
            // Not the same tensor: the blocks that it goes around add to theirs.
            return Ok(x.f_alias_copy()?);
        }
        let (steps, height, width) = ((frames + n - 1) / n, height / side, width / side);

        // 1. Frames and pixels into channels.
        let packed = cache.in_buffer(&[batch, steps, height, width, channels, n, side, side])?;
        let spread = packed.f_permute([0, 1, 5, 2, 6, 3, 7, 4])?;
        let missing = steps * n - frames;
        if missing > 0 {
            let first = spread.f_narrow(1, 0, 1)?;
            let _ = first.f_narrow(2, 0, missing)?.f_zero_()?;
            let there = x.f_narrow(1, 0, n - missing)?.f_view([batch, 1, n - missing, height, side, width, side, channels].as_slice())?;
            first.f_narrow(2, missing, n - missing)?.f_copy_(&there)?;
        }
        let whole = frames / n;
        if whole > 0 {
            let there = x.f_narrow(1, frames - whole * n, whole * n)?;
            let there = there.f_view([batch, whole, n, height, side, width, side, channels].as_slice())?;
            spread.f_narrow(1, steps - whole, whole)?.f_copy_(&there)?;
        }

        // 2. Fewer channels.
        let groups = packed.f_view([batch, steps, height, width, self.outputs, -1])?;
        Ok(groups.f_mean_dim([-1].as_slice(), false, x.kind())?)
    }
}

/// Adds each position of `x` to the positions of `y` that it became in an upsampler. Where `y` has fewer channels than `x`, a channel's neighbours
/// go to different positions: as many of the frames, rows and columns as there are neighbours, in this order.
///
/// `y` may be a part of what became of `x`: its first frame is frame `first` of that. `temporal` says whether frames were doubled, and `starts` that `x` has
/// the video's first frame, which did not become two.
///
/// # Shapes
/// `x`: `[batch, frames, height, width, inputs]`; `y`: `[batch, frames', 2 height, 2 width, outputs]`.
pub(super) fn add_repeated(y: &Tensor, first: i64, x: &Tensor, temporal: bool, starts: bool) -> Result<()> {
    let (batch, _, height, width, inputs) = x.size5()?;
    let (frames, outputs) = (y.size()[1], y.size()[4]);
    let n = 1 + i64::from(temporal);

    // 1. Neighbouring channels as frames, rows and columns.
    let neighbours = inputs / outputs;
    let of_frames = neighbours.min(n);
    let of_rows = (neighbours / of_frames).min(2);
    let of_columns = neighbours / (of_frames * of_rows);

    for frame in 0..frames {
        // 2. The frame that it came from, and which of those that that one became it is. One alone is the last of those that it would have become.
        let place = first + frame + if starts { n - 1 } else { 0 };
        let (from, which) = (place / n, (place % n).min(of_frames - 1));
        let from = x.f_narrow(1, from, 1)?.f_view([batch, height, width, outputs, of_frames, of_rows, of_columns].as_slice())?;
        let from = from.f_select(4, which)?.f_permute([0, 1, 4, 2, 5, 3])?;
        let _ = y.f_narrow(1, frame, 1)?.f_view([batch, height, 2, width, 2, outputs].as_slice())?.f_add_(&from)?;
    }
    Ok(())
}

/// A video with patches of `patch` x `patch` pixels as channels, of which rows change fastest.
///
/// # Shapes
/// `video`: `[batch, colours, frames, height, width]`; result: `[batch, frames, height / patch, width / patch, colours x patch x patch]`.
pub(super) fn patchify(video: &Tensor, patch: i64) -> Result<Tensor> {
    let (batch, colours, frames, height, width) = video.size5()?;
    let (height, width) = (height / patch, width / patch);
    let patches = video.f_view([batch, colours, frames, height, patch, width, patch].as_slice())?.f_permute([0, 2, 3, 5, 1, 6, 4])?;
    Ok(patches.f_reshape([batch, frames, height, width, colours * patch * patch])?.f_contiguous()?)
}

/// The video from what [`patchify`] makes of it, channels last.
///
/// # Shapes
/// `x`: `[batch, frames, height, width, colours x patch x patch]`; result: `[batch, frames, patch x height, patch x width, colours]`.
pub(super) fn unpatchify(x: Tensor, patch: i64) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x);
    }
    let (batch, frames, height, width, channels) = x.size5()?;
    let colours = channels / (patch * patch);
    let pixels = x.f_reshape([batch, frames, height, width, colours, patch, patch])?.f_permute([0, 1, 2, 6, 3, 5, 4])?;
    Ok(pixels.f_reshape([batch, frames, height * patch, width * patch, colours])?)
}
