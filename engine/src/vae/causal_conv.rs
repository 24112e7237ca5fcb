//! Convolutions that look back in time only.
//!
//! Follows `WanCausalConv3d` in diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::Tensor;

use super::feature_cache::FeatureCache;
use super::norm::Norm;
use super::slots::Slots;
use crate::attribution::operation;
use crate::error::Result;
use crate::weights::{Group, Weights};

/// Frames that a convolution sees at once.
const KERNEL: i64 = 3;

/// A convolution over three frames, the current one last, and over 1 or 3 pixels in height and width.
#[derive(Debug)]
pub(super) struct CausalConv {
    name: String,
    weight: String,
    bias: String,
    inputs: i64,
    outputs: i64,
    /// Pixels of the kernel in height and width.
    side: i64,
    /// Frames that it remembers from the chunk before.
    history: i64,
    /// Frames from one result to the next.
    stride: i64,
    /// Its place in the feature cache.
    slot: usize,
}

impl CausalConv {
    /// The convolution `name`, the next one of `slots`.
    pub(super) fn new(name: String, inputs: i64, outputs: i64, side: i64, slots: &mut Slots) -> Self {
        Self::with_stride(name, inputs, outputs, side, 1, slots)
    }

    /// The convolution `name` over frames alone, the next one of `slots`, with one result for every two frames.
    pub(super) fn halving(name: String, channels: i64, slots: &mut Slots) -> Self {
        Self::with_stride(name, channels, channels, 1, 2, slots)
    }

    fn with_stride(name: String, inputs: i64, outputs: i64, side: i64, stride: i64, slots: &mut Slots) -> Self {
        // The frames that a result sees before those that are its own.
        let history = KERNEL - stride;
        let slot = slots.add(inputs, history);
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), name, inputs, outputs, side, history, stride, slot }
    }

    /// Channels of its result.
    pub(super) fn outputs(&self) -> i64 {
        self.outputs
    }

    /// Adds the layer's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        group.conv(&self.name, self.inputs, self.outputs, &[KERNEL, self.side, self.side])
    }

    /// The convolution of `x`, or where there is a `norm` of the SiLU of its norm. `x` comes by value, to be freed before the convolution runs.
    ///
    /// Height and width are padded by the convolution itself. Time is not, as it would be padded at the end too and computed for nothing.
    /// The floor is thus one copy of the input with the remembered frames before it, in the cache's buffer. Where there is a SiLU, that is what writes the copy.
    ///
    /// # Shapes
    /// `x`, in any type: `[batch, frames, height, width, inputs]`; result, in the compute type: `[batch, frames / stride, height, width, outputs]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, norm: Option<&Norm>, cache: &mut FeatureCache) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. The remembered frames, and the input behind them.
        let padded = cache.in_buffer(&[batch, self.history + frames, height, width, channels])?;
        cache.recall(self.slot, &padded.f_narrow(1, 0, self.history)?)?;
        let mut current = padded.f_narrow(1, self.history, frames)?;
        match norm {
            Some(norm) => norm.silu_into(w, &x, &current)?,
            None => current.f_copy_(&x)?,
        }
        drop((x, current));

        // 2. The convolution.
        self.forward_padded(w, &padded, cache)
    }

    /// Keeps the last frames of `x` for the next chunk, where nothing is to be computed yet.
    pub(super) fn remember(&self, x: &Tensor, cache: &mut FeatureCache) -> Result<()> {
        cache.remember(self.slot, x, x.size()[1])
    }

    /// The convolution of frames that lie behind those that it would remember.
    ///
    /// # Shapes
    /// `padded`: `[batch, history + frames, height, width, inputs]`; result: `[batch, frames / stride, height, width, outputs]`.
    pub(super) fn forward_padded(&self, w: &Weights, padded: &Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        cache.remember(self.slot, padded, padded.size()[1] - self.history)?;
        // It counts sides as batch, channels, frames, height, width.
        let padded = padded.f_permute([0, 4, 1, 2, 3])?;
        let (stride, padding) = ([self.stride, 1, 1], [0, self.side / 2, self.side / 2]);
        let (weight, bias) = (w.get(&self.weight), Some(w.get(&self.bias)));
        let y = operation(|| Ok(padded.f_conv3d(weight, bias, stride, padding, [1, 1, 1], 1)?))?;
        Ok(y.f_permute([0, 2, 3, 4, 1])?)
    }
}
