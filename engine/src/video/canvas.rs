//! Sinks that write no file: one drops all frames, one keeps them.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::vae::FrameSink;

/// Drops all frames: for runs that measure.
#[derive(Debug, Default)]
pub struct Discard;

impl FrameSink for Discard {
    fn accept(&mut self, _first_frame: i64, _first_row: i64, _pixels: &Tensor) -> Result<()> {
        Ok(())
    }

    fn keeps(&self) -> bool {
        false
    }
}

/// A whole video on the host, in RGB of 8 bits.
#[derive(Debug)]
pub struct VideoCanvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl VideoCanvas {
    /// A black video.
    pub fn new(frames: u32, height: u32, width: u32) -> Self {
        let (height, width) = (height as usize, width as usize);
        Self { width, height, pixels: vec![0; frames as usize * height * width * 3] }
    }

    /// The frames in order, each rows of RGB.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.height * self.width * 3)
    }
}

impl FrameSink for VideoCanvas {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()> {
        let (frames, rows, width, _) = pixels.size4()?;
        assert_eq!(width as usize, self.width, "rows are whole");
        let bytes = (rows * width * 3) as usize;
        for frame in 0..frames {
            let start = ((first_frame + frame) as usize * self.height + first_row as usize) * self.width * 3;
            copy_frame(pixels, frame, &mut self.pixels[start..start + bytes])?;
        }
        Ok(())
    }
}

/// Copies the rows of one frame of `pixels`, as a sink gets them, into `bytes`.
pub(super) fn copy_frame(pixels: &Tensor, frame: i64, bytes: &mut [u8]) -> Result<()> {
    let rows = pixels.f_select(0, frame)?.f_contiguous()?.f_to_kind(Kind::Uint8)?;
    let count = bytes.len();
    Ok(rows.f_copy_data_u8(bytes, count)?)
}
