//! GIF, with the `gif` crate: a palette of 256 colours a frame.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use gif::{Encoder, Frame, Repeat};

use super::{FrameEncoder, VideoShape};
use crate::error::{Error, Result};

/// How hard the encoder looks for the best palette, from 1 (most) to 30.
const SPEED: i32 = 10;

/// A GIF that repeats.
pub(super) struct Gif {
    encoder: Encoder<BufWriter<File>>,
    sides: (u16, u16),
    /// Hundredths of a second a frame lasts: the frame rate as near as GIF can say it.
    delay: u16,
    path: String,
}

impl Gif {
    /// Creates the file.
    pub(super) fn create(path: &Path, shape: VideoShape) -> Result<Self> {
        let shown = path.display().to_string();
        let side = |pixels: u32| {
            u16::try_from(pixels).map_err(|_| Error::Input(format!("{shown}: a GIF has at most 65535 pixels a side, not {pixels}")))
        };
        let sides = (side(shape.width)?, side(shape.height)?);
        let file = File::create(path).map_err(|source| Error::File { path: shown.clone(), source })?;
        let mut encoder = Encoder::new(BufWriter::new(file), sides.0, sides.1, &[]).map_err(|error| failed(&shown, &error))?;
        encoder.set_repeat(Repeat::Infinite).map_err(|error| failed(&shown, &error))?;
        let fps = shape.fps.clamp(1, 100);
        Ok(Self { encoder, sides, delay: ((100 + fps / 2) / fps) as u16, path: shown })
    }
}

impl FrameEncoder for Gif {
    fn frame(&mut self, rgb: &[u8]) -> Result<()> {
        let mut frame = Frame::from_rgb_speed(self.sides.0, self.sides.1, rgb, SPEED);
        frame.delay = self.delay;
        self.encoder.write_frame(&frame).map_err(|error| failed(&self.path, &error))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { encoder, path, .. } = *self;
        // Writes the end mark; what the buffer holds is then still to be written.
        let mut file = encoder.into_inner().map_err(|error| failed(&path, &error))?;
        file.flush().map_err(|source| Error::File { path, source })
    }
}

fn failed(path: &str, error: &gif::EncodingError) -> Error {
    Error::Input(format!("{path}: cannot be written: {error}"))
}
