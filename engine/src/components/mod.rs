//! What pipelines are made of: each model as a component, which names its groups in execution order, what it holds and computes by shapes, where flags want it,
//! and what checkpoints call it.
//!
//! Plan, prediction and checkpoint walk over components and know none of them. Nothing here loads or runs a model: that is `pipeline`'s.

mod between_stages;
mod component;
mod image_encoder;
mod sources;
mod text_encoder;
mod transformer;
mod vae;
mod vae_encoder;

use engine_protocol::ModelSpec;

pub use component::{Alias, Component, Wanted};
pub use image_encoder::KEY as IMAGE_ENCODER;
pub use sources::Sources;
pub use text_encoder::KEY as TEXT_ENCODER;
pub use transformer::{KEY as TRANSFORMER, LOW_NOISE_KEY as LOW_NOISE_TRANSFORMER};
pub use vae::KEY as VAE;
pub use vae_encoder::KEY as VAE_ENCODER;

/// Components of a model.
pub type Components<'a> = Vec<Box<dyn Component + 'a>>;

/// What `model` is made of, in the order of its stages.
pub fn of(model: &ModelSpec) -> Components<'_> {
    let mut components: Components<'_> = vec![Box::new(text_encoder::TextEncoderComponent::new(model))];
    if let Some(encoder) = image_encoder::ImageEncoderComponent::of(model) {
        components.push(Box::new(encoder));
    }
    if let Some(encoder) = vae_encoder::VaeEncoderComponent::of(model) {
        components.push(Box::new(encoder));
    }
    for transformer in transformer::TransformerComponent::all(model) {
        components.push(Box::new(transformer));
    }
    components.push(Box::new(vae::VaeComponent::new(model)));
    components
}
