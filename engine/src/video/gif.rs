//! GIF, with the `gif` crate: a palette of 256 colours a frame.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use gif::{Encoder, Frame, Repeat};

use crate::error::{Error, Result};

/// Hundredths of a second a frame lasts: Wan's 16 frames a second, as near as GIF can say it.
const DELAY: u16 = 6;

/// How hard the encoder looks for the best palette, from 1 (most) to 30.
const SPEED: i32 = 10;

/// Writes `frames`, each rows of RGB, as a GIF that repeats.
pub(super) fn write<'a>(path: &Path, width: usize, height: usize, frames: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Input(format!("{}: cannot be written: {error}", path.display()));
    let side = |pixels: usize| u16::try_from(pixels).map_err(|_| failed(&format!("a GIF has at most 65535 pixels a side, not {pixels}")));
    let (width, height) = (side(width)?, side(height)?);
    let file = BufWriter::new(File::create(path).map_err(|error| failed(&error))?);
    let mut encoder = Encoder::new(file, width, height, &[]).map_err(|error| failed(&error))?;
    encoder.set_repeat(Repeat::Infinite).map_err(|error| failed(&error))?;
    for rgb in frames {
        let mut frame = Frame::from_rgb_speed(width, height, rgb, SPEED);
        frame.delay = DELAY;
        encoder.write_frame(&frame).map_err(|error| failed(&error))?;
    }
    Ok(())
}
