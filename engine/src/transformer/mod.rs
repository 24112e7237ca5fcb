//! The Wan diffusion transformer, as diffusers 0.42.1 computes it in `src/diffusers/models/transformers/transformer_wan.py`
//! (`WanTransformer3DModel`).
//!
//! Beyond the hidden state a block holds keys and values of all tokens, and whatever one slice of tokens needs; without `sequence_chunk`
//! the slice is all of them. The hidden state is updated in place.

mod adding;
mod block;
mod context;
mod embeddings;
mod footprint;
mod head_groups;
mod model;
mod modulated;
mod norm;
mod pass_cache;
mod rope;
mod slices;
mod timestep;

pub use block::BLOCKS;
pub use context::Context;
pub use footprint::PassShape;
pub use model::Transformer;
pub use pass_cache::{NoCache, Part, PassCache};
pub use timestep::Timestep;
