//! What stages hand to each other on the GPU, in numbers and bytes by shapes.

use engine_protocol::{Config, ModelSpec};

/// What libtorch 2.13 allocates for cuBLAS at the first matrix product and keeps: 32 MiB on GPUs of compute capability 9 and up. On others it is 8.1 MiB,
/// and a prediction is that much too high there.
pub(super) const CUBLAS_WORKSPACE_BYTES: i64 = 32 << 20;

/// Bytes of one number in the compute type.
pub(super) fn number_bytes(config: &Config) -> i64 {
    config.dtype.bytes() as i64
}

/// Prompts: for the cond prediction, and for the uncond one where there is guidance.
pub(super) fn prompts(config: &Config) -> i64 {
    if config.has_guidance() { 2 } else { 1 }
}

/// Bytes of the prompt embeddings.
pub(super) fn prompt_embedding_bytes(model: &ModelSpec, config: &Config) -> i64 {
    prompts(config) * model.text_encoder.max_tokens * model.text_encoder.d_model * number_bytes(config)
}

/// Bytes of the latents of one video, in the compute type.
pub(super) fn latent_bytes(model: &ModelSpec, config: &Config) -> i64 {
    config.latent_shape(model).iter().product::<i64>() * number_bytes(config)
}

/// Videos of one pass: two where guidance is one batch.
pub(super) fn batch(config: &Config) -> i64 {
    if config.guidance_batch == Some(true) { 2 } else { 1 }
}
