//! The causal 3D VAEs of Wan2.1 and Wan2.2: latents to frames in chunks of time and tiles of space, and frames to latents in chunks of time.
//!
//! Follows diffusers 0.42.x `src/diffusers/models/autoencoders/autoencoder_kl_wan.py` (`AutoencoderKLWan`), whose checkpoint keys the layers
//! have as names. Inside the VAE activations are `[batch, frames, height, width, channels]` and contiguous, for four reasons: the norms run
//! over the innermost side and so through one fused kernel, 1x1x1 convolutions are linear layers, frames can be taken apart without a copy,
//! and a convolution on tensor cores reads them as they are, where other layouts are turned over in its workspace first.

mod blocks;
mod causal_conv;
mod decoder;
mod encoder;
mod encoder_footprint;
mod encoding;
mod feature_cache;
mod footprint;
mod frames;
mod latents;
mod norm;
mod pieces;
mod resample;
mod shortcut;
mod slots;
mod tiling;
mod walk;

pub use decoder::{DECODER, VaeDecoder, groups};
pub use encoder::{ENCODER, VaeEncoder, encoder_groups};
pub use encoding::{Film, encode_video};
pub use feature_cache::{CacheTraffic, FeatureCache};
pub use frames::{FrameSink, decode_video};
pub use latents::{denormalise, normalise};
pub use pieces::Pieces;
pub use tiling::{Span, Tiling, blend_weights};
pub use walk::Numbers;

/// Channels of a frame: red, green, blue.
const COLOURS: i64 = 3;
