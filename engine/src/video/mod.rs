//! Finished frames: dropped, kept on the host, or written to a file as they come.

mod canvas;
mod file;
mod gif;
mod mp4;
mod pngs;
mod shape;
mod tensors;

pub use canvas::{Discard, VideoCanvas};
pub use file::VideoFile;
pub use shape::VideoShape;

use crate::error::Result;

/// Takes whole frames in order and writes them in one format.
trait FrameEncoder {
    /// Takes the next frame: rows of RGB in 8 bits.
    fn frame(&mut self, rgb: &[u8]) -> Result<()>;

    /// Writes what is still to be written after the last frame.
    fn finish(self: Box<Self>) -> Result<()>;
}
