//! The numbers behind a video, for comparing with other programs: a `.safetensors` with `latents` and `video`.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use super::VideoShape;
use crate::error::Result;

/// Latents as the sampler left them, and the video before it is rounded to bytes. All of it stays on the host until it is written.
pub(super) struct TensorFile {
    path: PathBuf,
    latents: Tensor,
    /// `[frames, 3, height, width]` in fp32, 0 to 1.
    video: Tensor,
}

impl TensorFile {
    pub(super) fn create(path: &Path, shape: VideoShape, latents: &Tensor) -> Result<Self> {
        let sides = [shape.frames.into(), 3, shape.height.into(), shape.width.into()];
        let video = Tensor::f_zeros(sides, (Kind::Float, Device::Cpu))?;
        Ok(Self { path: path.to_owned(), latents: latents.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?, video })
    }

    /// Takes colours between -1 and 1.
    pub(super) fn accept(&mut self, first_frame: i64, first_row: i64, colours: &Tensor) -> Result<()> {
        let (frames, rows, _, _) = colours.size4()?;
        let colours = colours.f_to_kind(Kind::Float)?.f_permute([0, 3, 1, 2])?;
        let from_0_to_1 = colours.f_mul_scalar(0.5)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
        self.video.f_narrow(0, first_frame, frames)?.f_narrow(2, first_row, rows)?.f_copy_(&from_0_to_1)?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        Tensor::write_safetensors(&[("latents", &self.latents), ("video", &self.video.f_unsqueeze(0)?)], self.path)?;
        Ok(())
    }
}
