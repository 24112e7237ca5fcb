//! The numbers of a video as `--output video.safetensors` has them: latents, and frames one at a time, so that no whole video is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::metrics::Frame;
use crate::error::Error;

/// More than a header of two tensors ever has.
const HEADER: u64 = 1 << 20;

/// An open file of numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    file: File,
    /// Where the tensors begin.
    data: u64,
    latents: Placed,
    video: Placed,
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Placed {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl Numbers {
    /// Opens what the worker wrote.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let wrong = |what: &str| Error::Fault(format!("{name}: {what}"));
        let io = |error: std::io::Error| Error::Fault(format!("{name}: {error}"));
        let mut file = File::open(path).map_err(io)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER {
            return Err(wrong("its header is too long"));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(length).read_to_end(&mut header).map_err(io)?;
        let mut tensors: BTreeMap<String, Value> = serde_json::from_slice(&header).map_err(|error| wrong(&error.to_string()))?;
        let mut placed = |tensor: &str| -> Result<Placed, Error> {
            let told = tensors.remove(tensor).ok_or_else(|| wrong(&format!("no tensor `{tensor}`")))?;
            let placed: Placed = serde_json::from_value(told).map_err(|error| wrong(&error.to_string()))?;
            let bytes = placed.shape.iter().product::<usize>() as u64 * 4;
            let fits = placed.dtype == "F32" && placed.data_offsets[1].checked_sub(placed.data_offsets[0]) == Some(bytes);
            fits.then_some(placed).ok_or_else(|| wrong(&format!("`{tensor}` is no tensor of fp32 numbers")))
        };
        let (latents, video) = (placed("latents")?, placed("video")?);
        Ok(Self { file, data: 8 + length, latents, video, name })
    }

    /// How many frames there are, of `[1, frames, 3, height, width]`.
    pub(super) fn frames(&self) -> usize {
        self.video.shape.get(1).copied().unwrap_or(0)
    }

    /// All latents.
    pub(super) fn latents(&mut self) -> Result<Vec<f32>, Error> {
        let [start, end] = self.latents.data_offsets;
        self.read(start, (end - start) as usize)
    }

    /// One frame.
    pub(super) fn frame(&mut self, index: usize) -> Result<Frame, Error> {
        let [.., channels, height, width] = self.video.shape[..] else {
            return Err(Error::Fault(format!("{}: `video` has too few sides", self.name)));
        };
        let bytes = channels * height * width * 4;
        let values = self.read(self.video.data_offsets[0] + (index * bytes) as u64, bytes)?;
        Ok(Frame { values, height, width })
    }

    fn read(&mut self, at: u64, bytes: usize) -> Result<Vec<f32>, Error> {
        let mut read = vec![0; bytes];
        let done = self.file.seek(SeekFrom::Start(self.data + at)).and_then(|_| self.file.read_exact(&mut read));
        done.map_err(|error| Error::Fault(format!("{}: {error}", self.name)))?;
        Ok(read.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
    }
}
