//! What stages hand to each other on the GPU, in numbers and bytes by shapes.

use engine_protocol::{AttentionKernel, AttnType, Config, Dtype, GpuProfile, ImageEncoderSpec, ModelSpec};

use crate::context_parallel::Shares;
use crate::cuda::allocator::block_bytes;
use crate::transformer::PassShape;
use crate::vae::Numbers;

/// Bytes of an fp32 number.
pub(super) const FP32: i64 = 4;

/// Bytes of one number in the compute type.
pub(super) fn number_bytes(config: &Config) -> i64 {
    config.dtype.bytes() as i64
}

/// What libtorch 2.13 allocates for cuBLAS at the first matrix product and keeps (aten/src/ATen/cuda/CublasHandlePool.cpp, `getChosenWorkspaceSize`). A GPU that is not known is a recent one.
pub(super) fn cublas_workspace_bytes(gpu: Option<&GpuProfile>) -> i64 {
    match gpu.and_then(GpuProfile::capability) {
        // Two pieces of 4 MiB and eight of 16 KiB.
        Some((major, _)) if major < 9 => 2 * (4 << 20) + 8 * (16 << 10),
        _ => 32 << 20,
    }
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

/// What a pass of the transformer is over on a rank.
pub(super) fn pass_shape(model: &ModelSpec, config: &Config, rank: usize) -> PassShape {
    let [_, latents @ ..] = config.latent_shape(model);
    PassShape {
        batch: batch(config),
        latents,
        prompt_tokens: model.text_encoder.max_tokens,
        image_tokens: model.image_encoder.as_ref().map_or(0, ImageEncoderSpec::tokens),
        part: Shares::of(config).part(rank % config.split().cp_size() as usize),
    }
}

/// Bytes of what CLIP says of a picture, of each video of a pass.
pub(super) fn image_embedding_bytes(model: &ModelSpec, config: &Config) -> i64 {
    let of_one = model.image_encoder.as_ref().map_or(0, |spec| spec.tokens() * spec.hidden_size);
    batch(config) * of_one * number_bytes(config)
}

/// Bytes of what the transformer takes of one video: its latents, and what it takes beside them.
pub(super) fn input_bytes(model: &ModelSpec, config: &Config) -> i64 {
    latent_bytes(model, config) / model.vae.z_dim.max(1) * model.transformer.in_channels
}

/// What decides what the tensors of a VAE's half take whose attention has one head of that size. PyTorch picks its kernels: where it has none for attention in bf16, cuDNN has
/// none for convolutions either (aten/src/ATen/native/Convolution.cpp: `use_cudnn`, `supportsBFloat16ConvolutionWithCuDNNv8`).
pub(super) fn vae_numbers(config: &Config, gpu: Option<&GpuProfile>, head_size: i64) -> Numbers<'static> {
    let has_plain_kernels = AttentionKernel::of(AttnType::Sdpa, config.dtype, gpu, head_size) == Some(AttentionKernel::Math);
    // Tensor cores of compute capability 9.0 alone read fp32 as it is.
    let rounds = config.dtype == Dtype::Fp32 && gpu.and_then(GpuProfile::capability).is_some_and(|(major, _)| major != 9);
    Numbers { bytes: number_bytes(config), has_plain_kernels, rounds, allocated: &|bytes| block_bytes(bytes) as i64 }
}

/// Videos of one pass: two where guidance is one batch.
pub(super) fn batch(config: &Config) -> i64 {
    if config.guidance_batch == Some(true) { 2 } else { 1 }
}
