//! The decoder's building blocks: residual block, attention block, upsampler.
//!
//! Follows `WanResidualBlock`, `WanAttentionBlock` and `WanResample` in diffusers 0.42.x
//! `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::Tensor;

use super::causal_conv::{CausalConv, FeatureCache, Slots};
use super::norm::Norm;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Norm, SiLU, convolution, twice, added to the input.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norm1: Norm,
    conv1: CausalConv,
    norm2: Norm,
    conv2: CausalConv,
    /// Where the number of channels changes: the linear layer that takes the input along.
    shortcut: Option<String>,
    inputs: i64,
    outputs: i64,
}

impl ResidualBlock {
    /// The block `name`, its convolutions the next ones of `slots`.
    pub(super) fn new(name: &str, inputs: i64, outputs: i64, slots: &mut Slots) -> Self {
        Self {
            norm1: Norm::new(&format!("{name}.norm1"), inputs),
            conv1: CausalConv::new(format!("{name}.conv1"), inputs, outputs, 3, slots),
            norm2: Norm::new(&format!("{name}.norm2"), outputs),
            conv2: CausalConv::new(format!("{name}.conv2"), outputs, outputs, 3, slots),
            shortcut: (inputs != outputs).then(|| format!("{name}.conv_shortcut")),
            inputs,
            outputs,
        }
    }

    /// Adds the block's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        let group = self.norm1.params(group);
        let group = self.conv1.params(group);
        let group = self.norm2.params(group);
        let group = self.conv2.params(group);
        match &self.shortcut {
            Some(name) => group.linear(name, self.inputs, self.outputs),
            None => group,
        }
    }

    /// At most three tensors of the activation's size exist at a time: the input, a convolution's padded input and its output.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, height, width, inputs]`; result: `[batch, frames, height, width, outputs]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        // 1. Norm, SiLU and convolution.
        let h = self.conv1.forward(w, x.shallow_clone(), Some(&self.norm1), cache)?;

        // 2. The same again.
        let mut h = self.conv2.forward(w, h, Some(&self.norm2), cache)?;

        // 3. The input, taken along only now: where its channels change it is the smaller of the two.
        let _ = match &self.shortcut {
            Some(name) => h.f_add_(&w.linear(name, &x)?)?,
            None => h.f_add_(&x)?,
        };
        Ok(h)
    }
}

/// Self-attention with a single head among the positions of each frame, added to the input.
#[derive(Debug)]
pub(super) struct AttentionBlock {
    norm: Norm,
    to_qkv: String,
    proj: String,
    channels: i64,
}

impl AttentionBlock {
    /// The block `name`.
    pub(super) fn new(name: &str, channels: i64) -> Self {
        Self {
            norm: Norm::new(&format!("{name}.norm"), channels),
            to_qkv: format!("{name}.to_qkv"),
            proj: format!("{name}.proj"),
            channels,
        }
    }

    /// Adds the block's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        self.norm.params(group).linear(&self.to_qkv, self.channels, 3 * self.channels).linear(&self.proj, self.channels, self.channels)
    }

    /// # Shapes
    /// `x` and result: `[batch, frames, height, width, channels]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. Query, key and value side by side, a frame as a batch entry of its own.
        let qkv = w.linear(&self.to_qkv, &self.norm.forward(w, &x)?)?;
        let qkv = qkv.f_reshape([batch * frames, 1, height * width, 3 * channels])?.f_chunk(3, -1)?;

        // 2. Attention.
        let attended = Tensor::f_scaled_dot_product_attention(&qkv[0], &qkv[1], &qkv[2], None::<&Tensor>, 0.0, false, None, false)?;
        drop(qkv);

        // 3. Projection, and the input.
        let mut h = w.linear(&self.proj, &attended)?.f_reshape([batch, frames, height, width, channels])?;
        let _ = h.f_add_(&x)?;
        Ok(h)
    }
}

/// Doubles height and width and halves the channels; where it has a convolution for it, doubles all frames but the video's first too.
#[derive(Debug)]
pub(super) struct Upsampler {
    time_conv: Option<CausalConv>,
    conv: String,
    weight: String,
    bias: String,
    channels: i64,
}

impl Upsampler {
    /// The upsampler `name`, which doubles frames where `temporal`, by the next convolution of `slots`.
    pub(super) fn new(name: &str, channels: i64, temporal: bool, slots: &mut Slots) -> Self {
        let conv = format!("{name}.resample.1");
        let time_conv = temporal.then(|| CausalConv::new(format!("{name}.time_conv"), channels, 2 * channels, 1, slots));
        slots.double(channels, temporal);
        Self { time_conv, weight: format!("{conv}.weight"), bias: format!("{conv}.bias"), conv, channels }
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        let group = match &self.time_conv {
            Some(time_conv) => time_conv.params(group),
            None => group,
        };
        group.conv(&self.conv, self.channels, self.channels / 2, &[3, 3])
    }

    /// # Shapes
    /// `x`: `[batch, frames, height, width, channels]`; result: `[batch, frames', 2 height, 2 width, channels / 2]`, where `frames'` is
    /// `frames`, or `2 frames`, or `2 frames - 1` where `x` starts with the video's first frame.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. In time, where there is a convolution for it: `[batch, frames, n, height, 1, width, 1, channels]`.
        let x = match &self.time_conv {
            Some(time_conv) if cache.is_started() => doubled_frames(time_conv, w, x, cache)?,
            Some(time_conv) if frames > 1 => {
                // The video's first frame goes by the convolution, and is no history for those after it.
                let first = x.f_narrow(1, 0, 1)?;
                let rest = doubled_frames(time_conv, w, x.f_narrow(1, 1, frames - 1)?, cache)?;
                let rest = rest.f_reshape([batch, 2 * (frames - 1), height, width, channels])?;
                let all = Tensor::f_cat(&[first, rest], 1)?;
                drop(x);
                all.f_reshape([batch, 2 * frames - 1, 1, height, 1, width, 1, channels])?
            }
            _ => x.f_reshape([batch, frames, 1, height, 1, width, 1, channels])?,
        };

        // 2. In space, as many frames at a time as the buffer takes.
        let (frames, n) = (x.size()[1], x.size()[2]);
        let at_most = cache.buffer_len() / (batch * n * 4 * height * width * channels);
        if frames <= at_most {
            return self.enlarged(w, &x, cache);
        }
        let slices = (frames + at_most - 1) / at_most;
        let step = (frames + slices - 1) / slices;
        let y = Tensor::f_empty([batch, frames * n, 2 * height, 2 * width, channels / 2], (x.kind(), x.device()))?;
        for start in (0..frames).step_by(step as usize) {
            let len = step.min(frames - start);
            let slice = self.enlarged(w, &x.f_narrow(1, start, len)?, cache)?;
            y.f_narrow(1, start * n, len * n)?.f_copy_(&slice)?;
        }
        Ok(y)
    }

    /// Every pixel two by two times, then half the channels by a convolution over each frame. Repeating pixels is what nearest neighbours at a
    /// factor of two amounts to, and one copy does it whichever way the sides of `x` lie.
    ///
    /// # Shapes
    /// `x`: `[batch, frames, n, height, 1, width, 1, channels]`; result: `[batch, frames x n, 2 height, 2 width, channels / 2]`.
    fn enlarged(&self, w: &Weights, x: &Tensor, cache: &FeatureCache) -> Result<Tensor> {
        let mut sides = x.size();
        (sides[4], sides[6]) = (2, 2);
        let (batch, height, width) = (sides[0], 2 * sides[3], 2 * sides[5]);
        let mut large = cache.in_buffer(&sides)?;
        large.f_copy_(x)?;
        let large = large.f_view([-1, height, width, self.channels])?.f_permute([0, 3, 1, 2])?;
        let y = large.f_conv2d(w.get(&self.weight), Some(w.get(&self.bias)), [1, 1], [1, 1], [1, 1], 1)?;
        Ok(y.f_permute([0, 2, 3, 1])?.f_reshape([batch, -1, height, width, self.channels / 2])?)
    }
}

/// Two frames for each frame of `x`, which the convolution returns as two halves of its channels.
///
/// # Shapes
/// `x`: `[batch, frames, height, width, channels]`; result, a view: `[batch, frames, 2, height, 1, width, 1, channels]`.
fn doubled_frames(time_conv: &CausalConv, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
    let (batch, frames, height, width, channels) = x.size5()?;
    let halves = time_conv.forward(w, x, None, cache)?;
    Ok(halves.f_reshape([batch, frames, height, 1, width, 1, 2, channels])?.f_permute([0, 1, 6, 2, 3, 4, 5, 7])?)
}
