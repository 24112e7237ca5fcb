//! How large a video is and how fast it plays.

use engine_protocol::{Config, ModelSpec};

/// How large a video is and how fast it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoShape {
    /// Frames.
    pub frames: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// Frames a second.
    pub fps: u32,
}

impl VideoShape {
    /// Of the video that a configuration of a model means.
    pub fn of(config: &Config, model: &ModelSpec) -> Self {
        Self { frames: config.frames, height: config.resolution.height, width: config.resolution.width, fps: model.sampling.fps }
    }

    /// Width and height as indices.
    pub(super) fn sides(self) -> (usize, usize) {
        (self.width as usize, self.height as usize)
    }

    /// Bytes of one frame in RGB of 8 bits.
    pub(super) fn frame_bytes(self) -> usize {
        self.width as usize * self.height as usize * 3
    }
}
