//! The pictures that a video begins and ends with, as a video: what is not given in it is grey.

use std::path::Path;

use engine_protocol::{Config, ImageInput, ModelSpec};
use picture::{Filter, Picture, Size};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::image_encoder::normalised;
use crate::vae::{Film, Span};

/// The pictures of a video, in its size, on the host.
#[derive(Debug)]
pub struct Stills {
    /// Frames of the video that is encoded: of a model that takes the first latent frame alone, one.
    frames: i64,
    /// `[3, height, width]`, between -1 and 1, in fp32; so is the last one.
    first: Tensor,
    last: Option<Tensor>,
    /// Where an image encoder sees the first, what it sees of it: `[1, 3, image_size, image_size]`, in fp32.
    seen: Option<Tensor>,
}

impl Stills {
    /// The pictures that `config` names, fitted to its video; nothing where its video begins with none. Where `model` needs one and none is named, it is grey.
    ///
    /// # Errors
    /// Files that are no pictures, or cannot be read.
    pub fn of(config: &Config, model: &ModelSpec) -> Result<Option<Self>> {
        let Some(input) = model.image.filter(|_| config.has_image(model)) else { return Ok(None) };
        let size = Size { width: config.resolution.width, height: config.resolution.height };
        let read = |path: &String| Picture::open(Path::new(path)).map_err(|error| Error::Input(error.to_string()));
        let first = config.image.as_ref().map(read).transpose()?.unwrap_or_else(|| Picture::grey(size));
        let seen = model.image_encoder.as_ref().map(|spec| {
            let middle = first.middle(spec.image_size.max(1) as u32, Filter::Bicubic);
            normalised(&unit_colours(&middle)?.f_unsqueeze(0)?)
        });
        let last = config.last_image.as_ref().map(read).transpose()?;
        Ok(Some(Self {
            frames: if input == ImageInput::FirstFrame { 1 } else { config.frames.into() },
            first: colours(&first.fitted(size, Filter::Lanczos))?,
            last: last.map(|last| colours(&last.fitted(size, Filter::Lanczos))).transpose()?,
            seen: seen.transpose()?,
        }))
    }

    /// What an image encoder sees of the first picture; nothing where the model has none.
    pub(super) fn seen(&self) -> Option<&Tensor> {
        self.seen.as_ref()
    }

    /// Whether the last frame is given too.
    pub(super) fn has_last(&self) -> bool {
        self.last.is_some()
    }
}

impl Film for Stills {
    fn sides(&self) -> [i64; 3] {
        [self.frames, self.first.size()[1], self.first.size()[2]]
    }

    fn part(&self, frames: Span, rows: Span, columns: Span) -> Result<Option<Tensor>> {
        let last = self.last.as_ref().filter(|_| frames.end == self.frames);
        if frames.start > 0 && last.is_none() {
            return Ok(None);
        }
        let part = Tensor::f_zeros([1, 3, frames.len(), rows.len(), columns.len()], (Kind::Float, Device::Cpu))?;
        let put = |picture: &Tensor, frame: i64| -> Result<()> {
            let picture = picture.f_narrow(1, rows.start, rows.len())?.f_narrow(2, columns.start, columns.len())?;
            part.f_select(2, frame - frames.start)?.f_select(0, 0)?.f_copy_(&picture)?;
            Ok(())
        };
        if frames.start == 0 {
            put(&self.first, 0)?;
        }
        if let Some(last) = last {
            put(last, self.frames - 1)?;
        }
        Ok(Some(part))
    }
}

/// Colours between -1 and 1: `[3, height, width]`, as diffusers' `VaeImageProcessor` computes them.
fn colours(picture: &Picture) -> Result<Tensor> {
    Ok(unit_colours(picture)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_contiguous()?)
}

/// Colours between 0 and 1: `[3, height, width]`.
fn unit_colours(picture: &Picture) -> Result<Tensor> {
    let Size { width, height } = picture.size();
    let bytes = Tensor::f_from_slice(picture.rgb())?.f_view([height.into(), width.into(), 3])?;
    Ok(bytes.f_permute([2, 0, 1])?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
}
