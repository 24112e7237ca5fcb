//! The causal 3D VAE of Wan2.1: latents to frames, in chunks of time and tiles of space.
//!
//! Follows diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py` (`AutoencoderKLWan`), whose checkpoint keys the layers
//! have as names. Inside the VAE activations are `[batch, frames, height, width, channels]` and contiguous, for four reasons: the norms run
//! over the innermost side and so through one fused kernel, 1x1x1 convolutions are linear layers, frames can be taken apart without a copy,
//! and a convolution on tensor cores reads them as they are, where other layouts are turned over in its workspace first.

mod blocks;
mod causal_conv;
mod decoder;
mod frames;
mod norm;
mod tiling;

pub use causal_conv::FeatureCache;
pub use decoder::{VaeDecoder, denormalise, groups};
pub use frames::{FrameSink, decode_video};
pub use tiling::{Span, Tiling, blend_weights};
