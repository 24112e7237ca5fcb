//! H.264 in MP4: OpenH264 encodes, muxide writes the container.
//!
//! The quality is fixed and the size follows, so nothing depends on how fast frames come, and the encoder runs on one thread: the same frames give
//! the same bytes. Of the video only encoded frames are kept until the end.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use muxide::api::{Muxer, MuxerBuilder, VideoCodec};
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange, RateControlMode, UsageType, VuiConfig,
};
use openh264::formats::YUVSlices;

use super::{FrameEncoder, VideoShape};
use crate::error::{Error, Result};

/// Quantisation of all frames, from 0 (best) to 51. At this one coding is hard to see.
const QUANTISATION: u8 = 18;

/// Seconds between frames that stand for themselves, which players can jump to.
const KEY_FRAME_SECS: u32 = 2;

/// An MP4 with one track.
pub(super) struct Mp4 {
    encoder: Encoder,
    muxer: Muxer<BufWriter<File>>,
    planes: Planes,
    fps: u32,
    written: u32,
    path: String,
}

impl Mp4 {
    /// Creates the file.
    pub(super) fn create(path: &Path, shape: VideoShape) -> Result<Self> {
        let shown = path.display().to_string();
        let (width, height) = shape.sides();
        if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
            return Err(Error::Input(format!("{shown}: H.264 takes even sides, not {width}x{height}: write a folder of PNGs")));
        }
        let config = EncoderConfig::new()
            .rate_control_mode(RateControlMode::Quality)
            .qp(QpRange::new(QUANTISATION, QUANTISATION))
            // Never reached: the quantisation is fixed.
            .bitrate(BitRate::from_bps(100_000_000))
            .max_frame_rate(FrameRate::from_hz(shape.fps as f32))
            .intra_frame_period(IntraFramePeriod::from_num_frames(KEY_FRAME_SECS * shape.fps))
            // Its other kinds of camera video are declared and refused.
            .usage_type(UsageType::CameraVideoRealTime)
            .complexity(Complexity::High)
            .skip_frames(false)
            .num_threads(1)
            .vui(VuiConfig::bt709());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(|error| failed(&shown, &error))?;
        let file = File::create(path).map_err(|source| Error::File { path: shown.clone(), source })?;
        let muxer = MuxerBuilder::new(BufWriter::new(file)).video(VideoCodec::H264, shape.width, shape.height, shape.fps.into());
        let muxer = muxer.with_fast_start(true).build().map_err(|error| failed(&shown, &error))?;
        Ok(Self { encoder, muxer, planes: Planes::new(width, height), fps: shape.fps, written: 0, path: shown })
    }
}

impl FrameEncoder for Mp4 {
    fn frame(&mut self, rgb: &[u8]) -> Result<()> {
        self.planes.fill(rgb);
        let coded = self.encoder.encode(&self.planes.slices()).map_err(|error| failed(&self.path, &error))?;
        let is_key = matches!(coded.frame_type(), FrameType::IDR);
        let seconds = f64::from(self.written) / f64::from(self.fps);
        self.muxer.write_video(seconds, &coded.to_vec(), is_key).map_err(|error| failed(&self.path, &error))?;
        self.written += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.muxer.finish_in_place().map_err(|error| failed(&self.path, &error))?;
        let Self { muxer, path, .. } = *self;
        muxer.into_writer().flush().map_err(|source| Error::File { path, source })
    }
}

fn failed(path: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Input(format!("{path}: cannot be written: {error}"))
}

/// Fraction bits of the colour arithmetic, which is in whole numbers so that every machine rounds alike.
const FRACTION: i32 = 16;

/// A frame as luma and two chroma planes of half the height and width: BT.709, 16 to 235 and 16 to 240.
struct Planes {
    width: usize,
    height: usize,
    luma: Vec<u8>,
    blue: Vec<u8>,
    red: Vec<u8>,
}

impl Planes {
    fn new(width: usize, height: usize) -> Self {
        let quarter = width / 2 * (height / 2);
        Self { width, height, luma: vec![0; width * height], blue: vec![0; quarter], red: vec![0; quarter] }
    }

    fn fill(&mut self, rgb: &[u8]) {
        for (luma, pixel) in self.luma.iter_mut().zip(rgb.chunks_exact(3)) {
            // 219 / 255 of 0.2126, 0.7152 and 0.0722.
            *luma = weighted(pixel, [11_966, 40_254, 4_064], 16, FRACTION);
        }
        let stride = self.width * 3;
        for row in 0..self.height / 2 {
            for column in 0..self.width / 2 {
                let corner = row * 2 * stride + column * 6;
                let sum = |channel: usize| {
                    let at = |offset: usize| i32::from(rgb[corner + offset + channel]);
                    at(0) + at(3) + at(stride) + at(stride + 3)
                };
                let sums = [sum(0), sum(1), sum(2)];
                let index = row * (self.width / 2) + column;
                // 224 / 255 of (B - Y) / 1.8556 and (R - Y) / 1.5748, over the sum of four pixels.
                self.blue[index] = weighted(&sums, [-6_596, -22_189, 28_785], 128, FRACTION + 2);
                self.red[index] = weighted(&sums, [28_785, -26_145, -2_640], 128, FRACTION + 2);
            }
        }
    }

    fn slices(&self) -> YUVSlices<'_> {
        YUVSlices::new((&self.luma, &self.blue, &self.red), (self.width, self.height), (self.width, self.width / 2, self.width / 2))
    }
}

/// `offset` and the weighted sum of three colours, rounded.
fn weighted<T: Copy + Into<i32>>(colours: &[T], weights: [i32; 3], offset: i32, fraction: i32) -> u8 {
    let sum: i32 = colours.iter().zip(weights).map(|(&colour, weight)| colour.into() * weight).sum();
    ((sum + (1 << (fraction - 1))) >> fraction).saturating_add(offset).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::Planes;

    #[test]
    fn colours_become_the_values_of_bt_709() {
        for (rgb, expected) in [
            ([0, 0, 0], (16, 128, 128)),
            ([255, 255, 255], (235, 128, 128)),
            ([255, 0, 0], (63, 102, 240)),
            ([0, 255, 0], (173, 42, 26)),
            ([0, 0, 255], (32, 240, 118)),
        ] {
            let mut planes = Planes::new(2, 2);
            planes.fill(&rgb.repeat(4));
            assert_eq!((planes.luma[3], planes.blue[0], planes.red[0]), expected, "{rgb:?}");
        }
    }
}
