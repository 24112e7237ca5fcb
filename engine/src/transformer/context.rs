//! What cross-attention attends to.

use tch::Tensor;

/// What cross-attention attends to: the prompt, and where the model sees it, a picture.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The prompt embedding, `[B, Lt, text_dim]`.
    pub prompt: &'a Tensor,
    /// What CLIP says of the picture, `[B, Li, image_dim]`.
    pub image: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Context<'a> {
    /// A prompt alone.
    fn from(prompt: &'a Tensor) -> Self {
        Self { prompt, image: None }
    }
}
