//! What encoder and decoder are built of: residual block, attention block, and the two of them as the middle.
//!
//! What they add to, from block to block, is in fp32 whatever the compute type is, and so are the norms of it. In bf16 each of a decoder's fifteen sums
//! would be rounded to eight bits, which is the largest part of what such a decoder is off by. Convolutions and linear layers compute in their own type.
//!
//! Follows `WanResidualBlock`, `WanAttentionBlock` and `WanMidBlock` in diffusers 0.42.x
//! `src/diffusers/models/autoencoders/autoencoder_kl_wan.py`.

use tch::{Kind, Tensor};

use super::causal_conv::CausalConv;
use super::feature_cache::FeatureCache;
use super::norm::{Norm, position_slices};
use super::slots::Slots;
use super::tiling::Span;
use crate::attribution::operation;
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
    pub(super) inputs: i64,
    pub(super) outputs: i64,
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

    /// Whether the result is the input, added to.
    pub(super) fn adds_to_its_input(&self) -> bool {
        self.shortcut.is_none()
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

    /// At most three tensors of the activation's size exist at a time: the input, a convolution's padded input and its output. Where the number of channels
    /// stays the result is the input, added to: nobody else may use `x`.
    ///
    /// # Shapes
    /// `x`, in fp32: `[batch, frames, height, width, inputs]`; result, in fp32: `[batch, frames, height, width, outputs]`.
    pub(super) fn forward(&self, w: &Weights, mut x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        // 1. Norm, SiLU and convolution.
        let h = self.conv1.forward(w, x.shallow_clone(), Some(&self.norm1), cache)?;

        // 2. The same again.
        let h = self.conv2.forward(w, h, Some(&self.norm2), cache)?;

        // 3. The input and that.
        match &self.shortcut {
            Some(name) => self.add_to_shortcut(w, name, &x, &h),
            None => Ok(x.f_add_(&h)?),
        }
    }

    /// `x` with its channels changed by the linear layer `name`, and `h`, in slices.
    fn add_to_shortcut(&self, w: &Weights, name: &str, x: &Tensor, h: &Tensor) -> Result<Tensor> {
        let sum = Tensor::f_empty(h.size(), (Kind::Float, h.device()))?;
        let (from, h_rows) = (x.f_reshape([-1, self.inputs])?, h.f_reshape([-1, self.outputs])?);
        let rows = sum.f_view([-1, self.outputs])?;
        for Span { start, end } in position_slices(rows.size()[0], self.inputs.max(self.outputs)) {
            let slice = |of: &Tensor| of.f_narrow(0, start, end - start);
            let mut sum = slice(&rows)?;
            sum.f_copy_(&w.linear(name, &slice(&from)?.f_to_kind(h.kind())?)?)?;
            let _ = sum.f_add_(&slice(&h_rows)?)?;
        }
        Ok(sum)
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

    /// The result is the input, added to.
    ///
    /// # Shapes
    /// `x` and result, in fp32: `[batch, frames, height, width, channels]`.
    fn forward(&self, w: &Weights, mut x: Tensor) -> Result<Tensor> {
        let (batch, frames, height, width, channels) = x.size5()?;

        // 1. Query, key and value side by side, a frame as a batch entry of its own.
        let compute = w.get(&format!("{}.bias", self.proj)).kind();
        let qkv = w.linear(&self.to_qkv, &self.norm.forward(w, &x)?.f_to_kind(compute)?)?;
        let qkv = qkv.f_reshape([batch * frames, 1, height * width, 3 * channels])?.f_chunk(3, -1)?;

        // 2. Attention.
        let [q, k, v] = [&qkv[0], &qkv[1], &qkv[2]];
        let attended = operation(|| Ok(Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)?))?;
        drop(qkv);

        // 3. Projection, and the input.
        let h = w.linear(&self.proj, &attended)?.f_reshape([batch, frames, height, width, channels])?;
        Ok(x.f_add_(&h)?)
    }
}

/// What lies between the way down and the latents, and between the latents and the way up: two residual blocks, attention between them.
#[derive(Debug)]
pub(super) struct MidBlock {
    pub(super) resnets: [ResidualBlock; 2],
    attention: AttentionBlock,
}

impl MidBlock {
    /// The block `name`, its convolutions the next ones of `slots`.
    pub(super) fn new(name: &str, channels: i64, slots: &mut Slots) -> Self {
        let resnets = [0, 1].map(|i| ResidualBlock::new(&format!("{name}.resnets.{i}"), channels, channels, slots));
        Self { resnets, attention: AttentionBlock::new(&format!("{name}.attentions.0"), channels) }
    }

    /// Adds the block's tensors.
    pub(super) fn params(&self, group: Group) -> Group {
        self.resnets[1].params(self.attention.params(self.resnets[0].params(group)))
    }

    /// # Shapes
    /// `x`, used by nobody else, and result, in fp32: `[batch, frames, height, width, channels]`.
    pub(super) fn forward(&self, w: &Weights, x: Tensor, cache: &mut FeatureCache) -> Result<Tensor> {
        let x = self.resnets[0].forward(w, x, cache)?;
        let x = self.attention.forward(w, x)?;
        self.resnets[1].forward(w, x, cache)
    }
}
