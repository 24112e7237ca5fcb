//! CLIP's vision encoder, by which image to video of Wan2.1 sees its picture, as transformers 5.23.0 computes it in `src/transformers/models/clip/modeling_clip.py`
//! (`CLIPVisionModel`).
//!
//! Wan takes the hidden states before the last layer, so that layer and the norm after it are not there.

mod clip;
mod footprint;

pub use clip::{ImageEncoder, normalised};
