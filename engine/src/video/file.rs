//! A video on its way into a file, in the format that its path says.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{OutputFormat, unfinished};
use tch::Tensor;

use super::canvas::copy_frame;
use super::gif::Gif;
use super::mp4::Mp4;
use super::pngs::Pngs;
use super::tensors::TensorFile;
use super::{FrameEncoder, VideoCanvas, VideoShape};
use crate::error::{Error, Result};
use crate::vae::FrameSink;

/// A video that is being written beside its place, and put there when it is complete. One that is dropped before that leaves nothing.
pub struct VideoFile {
    output: PathBuf,
    // Before the place: what is written is closed before it is removed.
    content: Content,
    place: Unfinished,
}

enum Content {
    Frames(Frames),
    Tensors(TensorFile),
}

impl VideoFile {
    /// Begins a video at `output`. `latents` are those that are decoded, `[1, channels, frames, height, width]`; only `.safetensors` holds them.
    ///
    /// # Errors
    /// A path that says no known format, and a file that cannot be created.
    pub fn create(output: &Path, shape: VideoShape, latents: &Tensor) -> Result<Self> {
        let refused = |error: engine_protocol::ConfigError| Error::Input(error.to_string());
        let format = OutputFormat::of(output).map_err(refused)?;
        format.check_size(shape.width, shape.height).map_err(refused)?;
        let path = unfinished(output);
        let frames = |encoder: Box<dyn FrameEncoder>| Content::Frames(Frames { encoder, shape, done: 0, canvas: None });
        let content = match format {
            OutputFormat::Mp4 => frames(Box::new(Mp4::create(&path, shape)?)),
            OutputFormat::Gif => frames(Box::new(Gif::create(&path, shape)?)),
            OutputFormat::Pngs => frames(Box::new(Pngs::create(&path, shape)?)),
            OutputFormat::Safetensors => Content::Tensors(TensorFile::create(&path, shape, latents)?),
        };
        Ok(Self { output: output.to_owned(), content, place: Unfinished { path, is_placed: false } })
    }

    /// Completes the video and puts it in its place.
    ///
    /// # Errors
    /// Frames that are missing, and a file that cannot be written.
    pub fn finish(self) -> Result<()> {
        match self.content {
            Content::Frames(frames) => frames.finish()?,
            Content::Tensors(tensors) => tensors.finish()?,
        }
        self.place.become_complete(&self.output)
    }
}

impl FrameSink for VideoFile {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()> {
        match &mut self.content {
            Content::Frames(frames) => frames.accept(first_frame, first_row, pixels),
            Content::Tensors(tensors) => tensors.accept(first_frame, first_row, pixels),
        }
    }

    fn takes_colours(&self) -> bool {
        matches!(self.content, Content::Tensors(_))
    }
}

/// Frames for an encoder. Whole frames go to it as they come; rows of all frames, which a tiled decode gives, are gathered first.
struct Frames {
    encoder: Box<dyn FrameEncoder>,
    shape: VideoShape,
    done: u32,
    canvas: Option<VideoCanvas>,
}

impl Frames {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()> {
        let (frames, rows, _, _) = pixels.size4()?;
        let is_next = first_frame == i64::from(self.done) && first_row == 0 && rows == i64::from(self.shape.height);
        if !is_next || self.canvas.is_some() {
            let VideoShape { frames, height, width, .. } = self.shape;
            return self.canvas.get_or_insert_with(|| VideoCanvas::new(frames, height, width)).accept(first_frame, first_row, pixels);
        }
        let mut rgb = vec![0; self.shape.frame_bytes()];
        for frame in 0..frames {
            copy_frame(pixels, frame, &mut rgb)?;
            self.encoder.frame(&rgb)?;
            self.done += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let gathered = self.canvas.take();
        for rgb in gathered.iter().flat_map(VideoCanvas::frames).skip(self.done as usize) {
            self.encoder.frame(rgb)?;
            self.done += 1;
        }
        if self.done != self.shape.frames {
            return Err(Error::Input(format!("the video has {} frames of {}: decode all of its latents", self.done, self.shape.frames)));
        }
        self.encoder.finish()
    }
}

/// A file or folder that is not complete; removed when dropped.
struct Unfinished {
    path: PathBuf,
    is_placed: bool,
}

impl Unfinished {
    fn become_complete(mut self, output: &Path) -> Result<()> {
        fs::rename(&self.path, output).map_err(|source| Error::File { path: output.display().to_string(), source })?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_placed {
            // What cannot be removed stays under a name that says what it is.
            let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const SHAPE: VideoShape = VideoShape { frames: 5, height: 32, width: 48, fps: 16 };

    /// A colourful video in bytes, and the same in colours between -1 and 1.
    fn pixels(takes_colours: bool) -> Tensor {
        let at = Tensor::arange(5 * 32 * 48 * 3, (Kind::Float, Device::Cpu)).view([5, 32, 48, 3]);
        let bytes = ((at * 0.002).sin() * 127.5 + 127.5).round();
        if takes_colours { bytes / 127.5 - 1.0 } else { bytes.to_kind(Kind::Uint8) }
    }

    fn latents() -> Tensor {
        Tensor::zeros([1, 16, 2, 4, 6], (Kind::Float, Device::Cpu))
    }

    /// The bytes of all files of an output, in order of their names.
    fn bytes(output: &Path) -> Vec<Vec<u8>> {
        if output.is_file() {
            return vec![fs::read(output).expect("a file")];
        }
        let mut paths: Vec<_> = fs::read_dir(output).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).expect("a file")).collect()
    }

    #[test]
    fn frames_and_rows_make_the_same_video_and_leave_nothing_else() {
        for name in ["cat.mp4", "cat.gif", "cat.safetensors", "cat/"] {
            let folder = tempfile::tempdir().expect("a folder");
            let write = |at: &str, parts: &[(i64, i64, i64, i64)]| {
                let output = folder.path().join(at).join(name);
                fs::create_dir(folder.path().join(at)).expect("a folder");
                let mut video = VideoFile::create(&output, SHAPE, &latents()).expect("begins");
                let pixels = pixels(video.takes_colours());
                for &(frame, frames, row, rows) in parts {
                    let part = pixels.narrow(0, frame, frames).narrow(1, row, rows).contiguous();
                    video.accept(frame, row, &part).expect("takes");
                }
                video.finish().expect("finishes");
                assert_eq!(fs::read_dir(folder.path().join(at)).expect("a folder").count(), 1, "{name}");
                bytes(&output)
            };
            let frames = write("frames", &[(0, 1, 0, 32), (1, 4, 0, 32)]);
            let rows = write("rows", &[(0, 5, 0, 24), (0, 5, 24, 8)]);
            assert!(frames == rows, "{name}: frames and rows differ");
            assert_eq!(frames.len(), if name == "cat/" { 5 } else { 1 });
        }
    }

    #[test]
    fn a_video_that_is_not_complete_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["cat.mp4", "cat.gif", "cat.safetensors", "cat/"] {
            let mut video = VideoFile::create(&folder.path().join(name), SHAPE, &latents()).expect("begins");
            let part = pixels(video.takes_colours()).narrow(0, 0, 2);
            video.accept(0, 0, &part).expect("takes");
            if !video.takes_colours() {
                let error = video.finish().expect_err("incomplete").to_string();
                assert!(error.contains("2 frames of 5"), "{error}");
            }
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "{name}");
        }
    }
}
