//! Pictures that a video begins or ends with: read from PNG, JPEG and WebP files, turned as their camera says, and fitted to a video's size.
//!
//! A file may be anything: only regular files are opened, what it is is told by its first bytes and not by its name, and its size is bounded before it is decoded.

mod resample;

use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

pub use resample::Filter;

/// The largest file that is read: a PNG of the largest size that is decoded, hardly packed.
const MOST_FILE_BYTES: u64 = 512 << 20;
/// The longest side that is decoded, in pixels.
const MOST_SIDE: u32 = 16384;
/// The most that a decoder may hold: a picture of 100 million pixels in four channels of 16 bits.
const MOST_DECODED_BYTES: u64 = 800 << 20;
/// Bytes of a pixel: red, green, blue.
const COLOURS: usize = 3;

/// Why a picture cannot be had: what happened, where, and what to do.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Width and height in pixels, as people see the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns of pixels.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
}

/// A picture in 8 bits a colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    /// Red, green and blue of each pixel, row by row.
    rgb: Vec<u8>,
}

impl Picture {
    /// The picture in the file at `path`, upright. What is transparent in it shows the colour that lies beneath, as in Pillow's `convert("RGB")`.
    ///
    /// # Errors
    /// A file that cannot be read, or is no PNG, JPEG or WebP picture of a size that is decoded.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = untrusted::read(path, MOST_FILE_BYTES).map_err(|error| at(path, &error.to_string()))?;
        let (decoder, orientation) = decoder(path, Cursor::new(bytes))?;
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| undecoded(path, &error))?;
        picture.apply_orientation(orientation);
        let rgb = picture.into_rgb8();
        Ok(Self { size: Size { width: rgb.width(), height: rgb.height() }, rgb: rgb.into_raw() })
    }

    /// A picture of one grey.
    pub fn grey(size: Size) -> Self {
        Self { size, rgb: vec![128; size.width as usize * size.height as usize * COLOURS] }
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The same picture in another size, whatever that does to its proportions, as Pillow makes it.
    ///
    /// # Panics
    /// A size without pixels.
    #[must_use]
    pub fn fitted(&self, size: Size, filter: Filter) -> Self {
        assert!(size.width > 0 && size.height > 0, "a picture has pixels");
        Self { size, rgb: resample::resample(&self.rgb, self.size, size, filter) }
    }

    /// The middle of the picture, as a square of so many pixels a side, to which its shorter side is fitted: what CLIP sees of it.
    ///
    /// # Panics
    /// A square without pixels.
    #[must_use]
    pub fn middle(&self, side: u32, filter: Filter) -> Self {
        let Size { width, height } = self.size;
        let longer = |long: u32, short: u32| (u64::from(side) * u64::from(long) / u64::from(short.max(1))) as u32;
        let fitted = if width < height {
            self.fitted(Size { width: side, height: longer(height, width) }, filter)
        } else {
            self.fitted(Size { width: longer(width, height), height: side }, filter)
        };
        let [left, top] = [fitted.size.width, fitted.size.height].map(|extent| ((extent - side) / 2) as usize);
        let row = fitted.size.width as usize * COLOURS;
        let columns = left * COLOURS..(left + side as usize) * COLOURS;
        let rows = fitted.rgb.chunks_exact(row).skip(top).take(side as usize);
        Self { size: Size { width: side, height: side }, rgb: rows.flat_map(|row| row[columns.clone()].iter().copied()).collect() }
    }
}

/// The size of the picture in the file at `path`, of which the beginning alone is read.
///
/// # Errors
/// Those of [`Picture::open`], as far as the beginning tells.
pub fn size_of(path: &Path) -> Result<Size, Error> {
    let file = untrusted::open(path).map_err(|error| at(path, &error.to_string()))?;
    let (decoder, orientation) = decoder(path, BufReader::new(file))?;
    let (width, height) = decoder.dimensions();
    let is_turned =
        matches!(orientation, Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH);
    Ok(if is_turned { Size { width: height, height: width } } else { Size { width, height } })
}

/// What decodes the picture, and how it is to be turned afterwards.
fn decoder<'a>(path: &Path, bytes: impl BufRead + Seek + 'a) -> Result<(impl ImageDecoder + 'a, Orientation), Error> {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(MOST_SIDE), Some(MOST_SIDE), Some(MOST_DECODED_BYTES));
    let mut reader = ImageReader::new(bytes).with_guessed_format().map_err(|error| at(path, &error.to_string()))?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| undecoded(path, &error))?;
    // A picture whose camera says nothing that can be read stays as it is.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, orientation))
}

fn undecoded(path: &Path, error: &image::ImageError) -> Error {
    match error {
        image::ImageError::Limits(_) => at(
            path,
            &format!(
                "it is too large: at most {MOST_SIDE} pixels a side and 100 million in all. Make it smaller, a video is smaller anyway"
            ),
        ),
        image::ImageError::Unsupported(_) => at(path, "it is no picture that is read here: use a PNG, JPEG or WebP file"),
        other => at(path, &format!("it is damaged: {}: use another file", untrusted::shown(&other.to_string()))),
    }
}

fn at(path: &Path, what: &str) -> Error {
    Error(format!("{}: {what}", untrusted::shown(&path.display().to_string())))
}

#[cfg(test)]
mod tests;
