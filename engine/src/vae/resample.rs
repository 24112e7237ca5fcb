//! The ways from one resolution to the next: upsampler and downsampler.
//!
//! Follows `WanResample` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::{Kind, Tensor};

use super::causal_conv::CausalConv;
use super::feature_cache::FeatureCache;
use super::slots::Slots;
use super::tiling::{Span, even_spans};
use crate::attribution::operation;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Doubles height and width; where it has a convolution for it, doubles all frames but the video's first too.
#[derive(Debug)]
pub(super) struct Upsampler {
    pub(super) time_conv: Option<CausalConv>,
    pub(super) conv: FrameConv,
}

impl Upsampler {
    /// The upsampler `name`, which doubles frames where `temporal`, by the next convolution of `slots`.
    pub(super) fn new(name: &str, inputs: i64, outputs: i64, temporal: bool, slots: &mut Slots) -> Self {
        let time_conv = temporal.then(|| CausalConv::new(format!("{name}.time_conv"), inputs, 2 * inputs, 1, slots));
        slots.double(inputs, outputs, temporal);
        Self { time_conv, conv: FrameConv::new(name, inputs, outputs) }
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        let group = match &self.time_conv {
            Some(time_conv) => time_conv.params(group),
            None => group,
        };
        self.conv.params(group)
    }

    /// The frames of `x`, doubled where there is a convolution for that, in the compute type `kind`.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames', height, width, inputs]`, where `frames'` is `frames`, or `2 frames`, or
    /// `2 frames - 1` where `x` starts with the video's first frame.
    pub(super) fn in_time(&self, w: &Weights, x: Tensor, kind: Kind, cache: &mut FeatureCache) -> Result<Tensor> {
        let frames = x.size()[1];
        match &self.time_conv {
            Some(time_conv) if !cache.place().starts => doubled_frames(time_conv, w, x, cache),
            Some(time_conv) if frames > 1 => {
                // The video's first frame goes by the convolution, and is no history for those after it.
                let first = x.f_narrow(1, 0, 1)?.f_to_kind(kind)?;
                let rest = doubled_frames(time_conv, w, x.f_narrow(1, 1, frames - 1)?, cache)?;
                Ok(Tensor::f_cat(&[first, rest], 1)?)
            }
            _ => Ok(x.f_to_kind(kind)?),
        }
    }

    /// Every pixel two by two times, then a convolution over each frame. Repeating pixels is what nearest neighbours at a factor of two amounts to.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result, in fp32: `[batch, frames, 2 height, 2 width, outputs]`.
    pub(super) fn in_space(&self, w: &Weights, x: &Tensor, cache: &FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;
        let at_most = cache.buffer_len() / (batch * 4 * height * width * channels);
        in_slices(x, at_most, &[batch, frames, 2 * height, 2 * width, self.conv.outputs], |slice| {
            let frames = slice.size()[1];
            let mut large = cache.in_buffer(&[batch, frames, height, 2, width, 2, channels])?;
            large.f_copy_(&slice.f_view([batch, frames, height, 1, width, 1, channels].as_slice())?)?;
            let large = large.f_view([batch, frames, 2 * height, 2 * width, channels])?;
            self.conv.forward(w, &large, 1, 1)
        })
    }
}

/// Two frames for each frame of `x`, which the convolution returns as two halves of its channels.
///
/// # Shapes
/// `x`: `[batch, frames, height, width, channels]`; result: `[batch, 2 frames, height, width, channels]`.
fn doubled_frames(time_conv: &CausalConv, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
    let (batch, frames, height, width, channels) = x.size5()?;
    let halves = time_conv.forward(w, x, None, cache)?;
    let halves = halves.f_reshape([batch, frames, height, width, 2, channels])?.f_permute([0, 1, 4, 2, 3, 5])?;
    Ok(halves.f_reshape([batch, 2 * frames, height, width, channels])?)
}

/// Halves height and width; where it has a convolution for it, halves all frames but the video's first too.
#[derive(Debug)]
pub(super) struct Downsampler {
    conv: FrameConv,
    time_conv: Option<CausalConv>,
}

impl Downsampler {
    /// The downsampler `name`, which halves frames where `temporal`, by the next convolution of `slots`.
    pub(super) fn new(name: &str, channels: i64, temporal: bool, slots: &mut Slots) -> Self {
        slots.halve(channels);
        let time_conv = temporal.then(|| CausalConv::halving(format!("{name}.time_conv"), channels, slots));
        if temporal {
            slots.halve_frames();
        }
        Self { conv: FrameConv::new(name, channels, channels), time_conv }
    }

    /// Whether it halves frames.
    pub(super) fn halves_frames(&self) -> bool {
        self.time_conv.is_some()
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        let group = self.conv.params(group);
        match &self.time_conv {
            Some(time_conv) => time_conv.params(group),
            None => group,
        }
    }

    /// # Shapes
    /// `x`: `[batch, frames, height, width, channels]`, height and width even; result, in fp32: `[batch, frames', height / 2, width / 2, channels]`,
    /// where `frames'` is `frames`, or `frames / 2`, rounded up where `x` starts with the video's first frame.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. In space.
        let at_most = cache.buffer_len() / (batch * (height + 1) * (width + 1) * channels);
        let result = [batch, frames, height / 2, width / 2, channels];
        let small = in_slices(&x, at_most, &result, |slice| self.reduced(w, slice, cache))?;
        drop(x);

        // 2. In time, where there is a convolution for it.
        match &self.time_conv {
            None => Ok(small),
            Some(time_conv) if !cache.place().starts => Ok(time_conv.forward(w, small, None, cache)?.f_to_kind(Kind::Float)?),
            Some(time_conv) => {
                // The video's first frame goes by the convolution, and is the history of those after it.
                if frames == 1 {
                    time_conv.remember(&small, cache)?;
                    return Ok(small);
                }
                let compute = cache.in_buffer(&small.size())?;
                compute.shallow_clone().f_copy_(&small)?;
                let rest = time_conv.forward_padded(w, &compute, cache)?.f_to_kind(Kind::Float)?;
                Ok(Tensor::f_cat(&[small.f_narrow(1, 0, 1)?, rest], 1)?)
            }
        }
    }

    /// A convolution over each frame that moves on by two pixels, with zeros to the right and below.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, channels]`; result: `[batch, frames, height / 2, width / 2, channels]`.
    fn reduced(&self, w: &Weights, x: &Tensor, cache: &FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;
        let padded = cache.in_buffer(&[batch, frames, height + 1, width + 1, channels])?;
        let _ = padded.f_narrow(2, height, 1)?.f_zero_()?;
        let _ = padded.f_narrow(3, width, 1)?.f_zero_()?;
        padded.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?.f_copy_(x)?;
        self.conv.forward(w, &padded, 2, 0)
    }
}

/// The convolution of a resampler, over three by three pixels of each frame.
#[derive(Debug)]
pub(super) struct FrameConv {
    name: String,
    weight: String,
    bias: String,
    inputs: i64,
    pub(super) outputs: i64,
}

impl FrameConv {
    /// The convolution of the resampler `name`.
    fn new(name: &str, inputs: i64, outputs: i64) -> Self {
        let name = format!("{name}.resample.1");
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), name, inputs, outputs }
    }

    fn params(&self, group: Group) -> Group {
        group.conv(&self.name, self.inputs, self.outputs, &[3, 3])
    }

    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames, height', width', outputs]`.
    fn forward(&self, w: &Weights, x: &Tensor, stride: i64, padding: i64) -> Result<Tensor> {
        let (batch, frames, height, width, _) = x.size5()?;
        let x = x.f_view([-1, height, width, self.inputs])?.f_permute([0, 3, 1, 2])?;
        let (stride, padding) = ([stride, stride], [padding, padding]);
        let (weight, bias) = (w.get(&self.weight), Some(w.get(&self.bias)));
        let y = operation(|| Ok(x.f_conv2d(weight, bias, stride, padding, [1, 1], 1)?))?;
        let y = y.f_permute([0, 2, 3, 1])?;
        let (_, height, width, _) = y.size4()?;
        Ok(y.f_reshape([batch, frames, height, width, self.outputs])?)
    }
}

/// What `resample` makes of all frames of `x`, some frames at a time where there are more than `at_most`.
///
/// # Shapes
/// `x`: `[batch, frames, ..]`; result, in fp32: `sides`.
fn in_slices(x: &Tensor, at_most: i64, sides: &[i64], resample: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let frames = x.size()[1];
    if frames <= at_most {
        return Ok(resample(x)?.f_to_kind(Kind::Float)?);
    }
    let y = Tensor::f_empty(sides, (Kind::Float, x.device()))?;
    for Span { start, end } in even_spans(frames, at_most) {
        let slice = resample(&x.f_narrow(1, start, end - start)?)?;
        y.f_narrow(1, start, end - start)?.f_copy_(&slice)?;
    }
    Ok(y)
}
