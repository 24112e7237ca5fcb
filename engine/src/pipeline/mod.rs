//! Pipelines, a file each: [`text_to_video`], whose [`Pipeline`] is what people use. What pipelines share stands beside them: loading a component's weights, the
//! way between host and device, prompts to embeddings, noise to latents, latents to frames.
//!
//! Stages are run, timed and told of by `case` and `stages`, not here; where weights live is `memory`'s.

mod denoiser;
mod denoising;
mod frame_decoder;
mod link;
mod loading;
mod prompts;
pub mod text_to_video;

pub use denoising::Denoising;
pub use prompts::PromptEmbeddings;
pub use text_to_video::Pipeline;
