//! Pipelines, a file each: [`video`], whose [`Pipeline`] is what people use. What pipelines share stands beside them: loading a component's weights, the
//! way between host and device, prompts to embeddings, pictures to latents, noise to latents, latents to frames.
//!
//! Stages are run, timed and told of by `case` and `stages`, not here; where weights live is `memory`'s.

mod denoiser;
mod denoising;
mod frame_decoder;
mod image_condition;
mod link;
mod loading;
mod picture_encoder;
mod prompts;
mod stills;
pub mod video;

pub use denoising::Denoising;
pub use image_condition::ImageCondition;
pub use prompts::PromptEmbeddings;
pub use stills::Stills;
pub use video::Pipeline;
