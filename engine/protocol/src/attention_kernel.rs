//! Which kernel attention comes to on a GPU: two names that pick the same one are the same case, and one that keeps its score matrix takes much memory. A test holds this
//! against what the engine calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capability::capability_of;
use crate::{AttnType, Config, Dtype, GpuProfile, SAGE_HEAD_SIZE, has_sage, sage_refusal};

/// A kernel for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKernel {
    /// cuDNN's.
    Cudnn,
    /// Flash attention.
    Flash,
    /// Memory-efficient attention.
    MemEfficient,
    /// Our own in 8 bits.
    Sage,
    /// The same over chosen keys.
    Sparge,
    /// Matrix products, between which the whole score matrix is kept.
    Math,
}

/// Size of a head in all of Wan's transformers.
pub const WAN_HEAD_SIZE: i64 = 128;

impl AttentionKernel {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            AttentionKernel::Cudnn => "cuDNN's attention",
            AttentionKernel::Flash => "flash attention",
            AttentionKernel::MemEfficient => "memory-efficient attention",
            AttentionKernel::Sage => "attention in 8 bits",
            AttentionKernel::Sparge => "attention in 8 bits over chosen keys",
            AttentionKernel::Math => "matrix products",
        }
    }

    /// What `attn_type` picks on `gpu` for heads of that size, without a mask and without training. None where that GPU has no such kernel: the first attention then fails.
    ///
    /// It is what libtorch 2.13 for CUDA 13 does: the order of kernels and what each of them takes are those of `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`
    /// (`priority_order`, `can_use_*_attention`, `check_flash_attention_hardware_support`, `check_mem_efficient_hardware_support`).
    pub fn of(attn_type: AttnType, dtype: Dtype, gpu: Option<&GpuProfile>, head_size: i64) -> Option<Self> {
        let capability = capability_of(gpu);
        let has = |kernel: Self| kernel.takes(dtype, capability, head_size).then_some(kernel);
        match attn_type {
            AttnType::Flash => has(Self::Flash),
            AttnType::Cudnn => has(Self::Cudnn),
            AttnType::MemEfficient => has(Self::MemEfficient),
            AttnType::Sage => has(Self::Sage),
            AttnType::Sparge => has(Self::Sparge),
            AttnType::Math => Some(Self::Math),
            // cuDNN comes first on Hopper and on the Blackwell of data centres, and elsewhere after the others, of which one takes whatever it does.
            AttnType::Sdpa if matches!(capability.0, 9 | 10) => {
                [Self::Cudnn, Self::Flash, Self::MemEfficient, Self::Math].into_iter().find_map(has)
            }
            AttnType::Sdpa => [Self::Flash, Self::MemEfficient, Self::Math].into_iter().find_map(has),
        }
    }

    fn takes(self, dtype: Dtype, capability: (u32, u32), head_size: i64) -> bool {
        let is_half = dtype != Dtype::Fp32;
        let (major, _) = capability;
        match self {
            Self::Cudnn => is_half && ((8, 0)..=(12, 1)).contains(&capability) && head_size <= 128 && head_size % 8 == 0,
            Self::Flash => is_half && ((8, 0)..=(12, 1)).contains(&capability) && head_size <= 256,
            Self::MemEfficient => {
                let alignment = match (is_half, major) {
                    (true, 7..) => 8,
                    (false, 8..) => 4,
                    _ => 1,
                };
                let takes_dtype = major >= 8 || dtype != Dtype::Bf16;
                ((5, 0)..=(12, 1)).contains(&capability) && takes_dtype && head_size % alignment == 0
            }
            Self::Sage | Self::Sparge => has_sage(capability) && head_size <= SAGE_HEAD_SIZE && head_size % 8 == 0,
            Self::Math => true,
        }
    }
}

/// The compute capability from which on GPUs have the fused kernels: they round to bf16 by its instruction.
const FIRST_FUSED: (u32, u32) = (8, 0);

/// Whether `gpu` has the kernels of `fused=true`. One that is not known is a recent one.
pub fn has_fused(gpu: Option<&GpuProfile>) -> bool {
    capability_of(gpu) >= FIRST_FUSED
}

impl Config {
    /// Refuses what there is no kernel for on `gpu`, before anything is loaded: attention, a fused kernel of ours, and products of linear layers in 8 bits. One that is not known is a recent one.
    ///
    /// # Errors
    /// The refusal, with the GPUs that have one.
    pub fn check_kernels_on(&self, gpu: Option<&GpuProfile>) -> Result<(), String> {
        let attention = gpu.and_then(|gpu| self.attention_refusal(gpu));
        let fused = gpu.filter(|gpu| self.fused.is_on() && !has_fused(Some(gpu))).map(|gpu| {
            let ((major, minor), capability) = (FIRST_FUSED, capability_said(gpu));
            format!("compute capability {capability} has no fused=true: GPUs from {major}.{minor} on have it; leave it out")
        });
        attention.or_else(|| self.linear_dtype.refusal(gpu)).or(fused).map_or(Ok(()), Err)
    }

    /// What to change where the attention that is asked for is not there on `gpu`, or only with a score matrix that nobody asked for.
    pub fn attention_advice(&self, gpu: &GpuProfile) -> Option<String> {
        let has_scores = self.attn_type != AttnType::Math && self.kernel_on(gpu) == Some(AttentionKernel::Math);
        let scores = has_scores.then(|| {
            format!(
                "compute capability {} has no attention for {} without the whole score matrix, which takes much memory and time: use dtype=fp16",
                capability_said(gpu),
                self.dtype.name()
            )
        });
        scores.or_else(|| self.attention_refusal(gpu))
    }

    /// The same where it is not there: a type of numbers that it takes on `gpu`, or else what takes its place.
    fn attention_refusal(&self, gpu: &GpuProfile) -> Option<String> {
        if self.kernel_on(gpu).is_some() {
            return None;
        }
        let capability = capability_said(gpu);
        if self.attn_type.is_in_8_bits() {
            return Some(sage_refusal(self.attn_type, &capability));
        }
        let has = |attn_type, dtype| {
            AttentionKernel::of(attn_type, dtype, Some(gpu), WAN_HEAD_SIZE).is_some_and(|kernel| kernel != AttentionKernel::Math)
        };
        let (of, dtype) = (self.attn_type.name(), self.dtype.name());
        Some(match Dtype::ALL.iter().find(|&&dtype| has(self.attn_type, dtype)) {
            Some(other) => format!("compute capability {capability} has no attn_type={of} for {dtype}: use dtype={}", other.name()),
            None => {
                let other = if has(AttnType::Sdpa, self.dtype) { self.dtype } else { Dtype::Fp16 };
                format!("compute capability {capability} has no attn_type={of}: use attn_type=sdpa with dtype={}", other.name())
            }
        })
    }

    /// The kernel that the attention that is asked for comes to on `gpu`, in a model of Wan's.
    fn kernel_on(&self, gpu: &GpuProfile) -> Option<AttentionKernel> {
        AttentionKernel::of(self.attn_type, self.dtype, Some(gpu), WAN_HEAD_SIZE)
    }
}

/// `7.5 (t4)`.
fn capability_said(gpu: &GpuProfile) -> String {
    format!("{} ({})", gpu.compute_capability.value, gpu.name)
}
