//! What a video is written as: its path says it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::ConfigError;

/// What a video is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// H.264 in MP4.
    Mp4,
    /// An animation of 256 colours a frame.
    Gif,
    /// A folder with a PNG a frame, `frame-0000.png` the first.
    Pngs,
    /// The numbers: latents, and the video before it was rounded to bytes.
    Safetensors,
}

/// The longer and the shorter side that the H.264 encoder takes at most.
const MP4_SIDES: (u32, u32) = (3840, 2160);

impl OutputFormat {
    /// What the extension of `path` means. A path that ends in `/`, or has no extension, is a folder of PNGs.
    ///
    /// # Errors
    /// An extension that is not known.
    pub fn of(path: &Path) -> Result<Self, ConfigError> {
        if path.file_name().is_none() {
            return Err(ConfigError::new(format!("`{}` names no file", path.display()), "name the video, cat.mp4 for example"));
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Ok(Self::Pngs);
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("mp4") => Ok(Self::Mp4),
            Some("gif") => Ok(Self::Gif),
            Some("safetensors") => Ok(Self::Safetensors),
            None => Ok(Self::Pngs),
            Some(other) => Err(ConfigError::new(
                format!("{}: unknown kind of video `.{other}`", path.display()),
                "name it .mp4, .gif or .safetensors, or give a folder for PNGs (a path that ends in / or has no extension)",
            )),
        }
    }

    /// Refuses a frame of a size that the format cannot hold.
    ///
    /// # Errors
    /// A side that is too long, with what to use instead.
    pub fn check_size(self, width: u32, height: u32) -> Result<(), ConfigError> {
        let (longer, shorter) = MP4_SIDES;
        if self == Self::Mp4 && (width.max(height) > longer || width.min(height) > shorter) {
            return Err(ConfigError::new(
                format!("{width}x{height} is too large for the H.264 encoder, which takes {longer}x{shorter} at most"),
                "write a folder of PNGs, or use a smaller size",
            ));
        }
        Ok(())
    }
}

/// Where a video is written until it is complete: beside its place, so that a rename puts it there.
pub fn unfinished(output: &Path) -> PathBuf {
    // Without the slash that a folder may end in.
    let mut name: OsString = output.components().as_path().into();
    name.push(".unfinished");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_what_is_written() {
        for (path, format) in [
            ("cat.mp4", OutputFormat::Mp4),
            ("a/CAT.GIF", OutputFormat::Gif),
            ("cat.safetensors", OutputFormat::Safetensors),
            ("frames/", OutputFormat::Pngs),
            ("frames", OutputFormat::Pngs),
            ("cat.v2/", OutputFormat::Pngs),
        ] {
            assert_eq!(OutputFormat::of(Path::new(path)), Ok(format), "{path}");
        }
        let error = OutputFormat::of(Path::new("cat.webm")).expect_err("unknown").to_string();
        assert!(error.starts_with("cat.webm: unknown kind of video `.webm`: name it .mp4"), "{error}");
        assert!(OutputFormat::of(Path::new("/")).is_err() && OutputFormat::of(Path::new("..")).is_err());
    }

    #[test]
    fn unfinished_is_beside_the_output() {
        assert_eq!(unfinished(Path::new("a/cat.mp4")), Path::new("a/cat.mp4.unfinished"));
        assert_eq!(unfinished(Path::new("a/frames/")), Path::new("a/frames.unfinished"));
    }

    #[test]
    fn only_mp4_has_a_largest_frame() {
        assert!(OutputFormat::Mp4.check_size(2160, 3840).is_ok());
        assert!(OutputFormat::Mp4.check_size(3856, 16).is_err() && OutputFormat::Mp4.check_size(2176, 2176).is_err());
        assert!(OutputFormat::Pngs.check_size(3856, 16).is_ok());
    }
}
