//! In which pieces a video goes through the VAE.

use engine_protocol::Config;

use super::tiling::{Span, Tiling};
use crate::error::Result;

/// The least side of a tile that is encoded, in latent pixels: 256 pixels, as in diffusers' `tiled_encode`. In a smaller one attention sees too little of the picture.
const LEAST_ENCODED_TILE: u32 = 32;

/// In which pieces a video is decoded or encoded, and where what is remembered between them waits.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// How frames are cut into tiles; empty for the whole frame at once.
    pub tiling: Option<Tiling>,
    /// The most latent frames at a time.
    pub temporal_chunk: i64,
    /// What is remembered between chunks waits on the host: see [`super::FeatureCache::on_host`].
    pub activation_offload: bool,
}

impl Pieces {
    /// Whole frames, at most so many latent ones at a time.
    pub fn in_chunks(temporal_chunk: i64) -> Self {
        Self { tiling: None, temporal_chunk, activation_offload: false }
    }

    /// Those that are decoded, as the flags of `config` say.
    ///
    /// # Errors
    /// Tiles that cannot be.
    pub fn of(config: &Config) -> Result<Self> {
        let pieces = Self::in_tiles(config, |size, overlap, chunk| (size, overlap, chunk))?;
        Ok(Self { tiling: pieces.tiling.map(Tiling::tight), ..pieces })
    }

    /// Those that are encoded: tiles are no smaller and share no less than is good for the picture, and of larger ones fewer frames go at a time.
    ///
    /// # Errors
    /// Tiles that cannot be.
    pub fn encoded(config: &Config) -> Result<Self> {
        Self::in_tiles(config, |size, overlap, chunk| {
            let side = size.max(LEAST_ENCODED_TILE);
            let positions = i64::from(chunk) * i64::from(size) * i64::from(size);
            let fewer = (positions / (i64::from(side) * i64::from(side))).clamp(1, chunk.into());
            (side, overlap.max(side / 4), fewer as u32)
        })
    }

    /// Those of `config`, where a tile's side, its overlap and the frames of a chunk become what `change` makes of them.
    fn in_tiles(config: &Config, change: impl Fn(u32, u32, u32) -> (u32, u32, u32)) -> Result<Self> {
        let (tiling, temporal_chunk) = match config.vae_tile_size.zip(config.vae_tile_overlap) {
            None => (None, config.vae_temporal_chunk),
            Some((size, overlap)) => {
                let (size, overlap, chunk) = change(size, overlap, config.vae_temporal_chunk);
                (Some(Tiling::new(size.into(), overlap.into())?), chunk)
            }
        };
        Ok(Self { tiling, temporal_chunk: temporal_chunk.into(), activation_offload: config.activation_offload })
    }

    /// How many latent positions go through, those that tiles share counted for each of them.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub(crate) fn positions(self, latents: [i64; 4]) -> u64 {
        let [_, frames, height, width] = latents;
        let all = |extent| self.tiling.map_or(extent, |tiling| tiling.spans(extent).iter().map(Span::len).sum());
        (frames * all(height) * all(width)) as u64
    }

    /// How many tiles a frame has.
    ///
    /// # Shapes
    /// `latents` is `[C, T, H, W]`.
    pub(crate) fn tiles(self, latents: [i64; 4]) -> usize {
        let [_, _, height, width] = latents;
        self.spans(height).len() * self.spans(width).len()
    }

    /// The tiles along a side of so many latent pixels.
    pub(super) fn spans(self, extent: i64) -> Vec<Span> {
        self.tiling.map_or_else(|| vec![Span { start: 0, end: extent }], |tiling| tiling.spans(extent))
    }

    /// A side of what goes through at once of a frame with sides of so many latent pixels: all tiles of a frame have one size.
    pub(super) fn side(self, extent: i64) -> i64 {
        self.spans(extent).first().map_or(extent, Span::len)
    }
}
