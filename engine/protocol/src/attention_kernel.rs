//! Which kernel attention comes to on a GPU: two names that pick the same one are the same case. A test holds this against what the engine calls.

use crate::flag_values::{AttnType, Dtype};

/// A kernel for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttentionKernel {
    /// cuDNN's, which no name picks by itself.
    Cudnn,
    /// Flash attention.
    Flash,
    /// Memory-efficient attention.
    MemEfficient,
    /// Matrix products.
    Math,
}

impl AttentionKernel {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            AttentionKernel::Cudnn => "cuDNN's attention",
            AttentionKernel::Flash => "flash attention",
            AttentionKernel::MemEfficient => "memory-efficient attention",
            AttentionKernel::Math => "matrix products",
        }
    }

    /// What `attn_type` picks on a GPU of this compute capability (8.9 is `(8, 9)`), for heads of that size, without a mask and without training.
    ///
    /// For `sdpa` it is what libtorch 2.13 for CUDA 13 does: the order of kernels and what each of them takes are those of
    /// `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp` (`priority_order`, `can_use_*_attention`).
    pub fn of(attn_type: AttnType, dtype: Dtype, capability: (u32, u32), head_size: i64) -> Self {
        match attn_type {
            AttnType::Flash => AttentionKernel::Flash,
            AttnType::MemEfficient => AttentionKernel::MemEfficient,
            AttnType::Math => AttentionKernel::Math,
            AttnType::Sdpa => Self::picked(dtype, capability, head_size),
        }
    }

    fn picked(dtype: Dtype, capability: (u32, u32), head_size: i64) -> Self {
        let is_half = dtype != Dtype::Fp32;
        let (major, _) = capability;
        let has_flash = ((8, 0)..=(12, 1)).contains(&capability);
        // cuDNN comes first on Hopper and on the Blackwell of data centres alone.
        if is_half && (major == 9 || major == 10) && head_size <= 128 && head_size % 8 == 0 {
            return AttentionKernel::Cudnn;
        }
        if is_half && has_flash && head_size <= 256 {
            return AttentionKernel::Flash;
        }
        let takes_dtype = major >= 8 || dtype != Dtype::Bf16;
        let alignment = match (is_half, major) {
            (true, 7..) => 8,
            (false, 8..) => 4,
            _ => 1,
        };
        if ((5, 0)..=(12, 1)).contains(&capability) && takes_dtype && head_size % alignment == 0 {
            return AttentionKernel::MemEfficient;
        }
        AttentionKernel::Math
    }
}
