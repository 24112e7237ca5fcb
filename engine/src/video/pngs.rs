//! A folder with a PNG a frame, with the `png` crate: nothing is lost.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Encoder};

use super::{FrameEncoder, VideoShape};
use crate::error::{Error, Result};

/// A folder of numbered PNGs.
pub(super) struct Pngs {
    folder: PathBuf,
    shape: VideoShape,
    written: usize,
}

impl Pngs {
    /// Makes the folder, or takes one that is empty.
    pub(super) fn create(folder: &Path, shape: VideoShape) -> Result<Self> {
        if !fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
            fs::create_dir(folder).map_err(|source| Error::File { path: folder.display().to_string(), source })?;
        }
        Ok(Self { folder: folder.to_owned(), shape, written: 0 })
    }
}

impl FrameEncoder for Pngs {
    fn frame(&mut self, rgb: &[u8]) -> Result<()> {
        let path = self.folder.join(format!("frame-{:04}.png", self.written));
        let shown = path.display().to_string();
        let failed = |error: png::EncodingError| match error {
            png::EncodingError::IoError(source) => Error::File { path: shown.clone(), source },
            other => Error::Input(format!("{shown}: cannot be written: {other}")),
        };
        let file = File::create(&path).map_err(|source| Error::File { path: shown.clone(), source })?;
        let mut file = BufWriter::new(file);
        let mut encoder = Encoder::new(&mut file, self.shape.width, self.shape.height);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(rgb).map_err(failed)?;
        writer.finish().map_err(failed)?;
        file.flush().map_err(|source| Error::File { path: shown, source })?;
        self.written += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
