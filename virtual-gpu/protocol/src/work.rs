//! Kinds of work, and the types that are multiplied, each with its number in the observer's interface. `engine/src/cuda/work.h` has the same
//! numbers for C++, and a test holds the two against each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of work, each with rates of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Products of matrices.
    Gemm,
    /// Fused attention, by kernels of FlashAttention-2's kind.
    Attention,
    /// Fused attention, by cuDNN.
    CudnnAttention,
    /// Fused attention in 8 bits, by our own kernel.
    SageAttention,
    /// Convolutions.
    Convolution,
    /// Each element by itself.
    Pointwise,
    /// Many elements to one.
    Reduction,
    /// From the host's memory, beside arithmetic.
    Copy,
}

impl WorkKind {
    /// Those that an observer tells of, from number 1 on. Number 0 is a kernel that says nothing of itself; a copy is seen without an observer.
    pub const NUMBERED: [Self; 7] =
        [Self::Gemm, Self::Attention, Self::Convolution, Self::Pointwise, Self::Reduction, Self::CudnnAttention, Self::SageAttention];

    /// By its number in the observer's interface.
    pub fn of(number: i32) -> Option<Self> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| Self::NUMBERED.get(index)).copied()
    }

    /// Whether it takes its bytes, and not its operations.
    pub fn goes_by_memory(self) -> bool {
        matches!(self, Self::Pointwise | Self::Reduction | Self::Copy)
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "matrix product",
            Self::Attention | Self::CudnnAttention | Self::SageAttention => "attention",
            Self::Convolution => "convolution",
            Self::Pointwise => "pointwise",
            Self::Reduction => "reduction",
            Self::Copy => "copy",
        }
    }
}

/// The type that is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkType {
    /// fp32 outside the tensor cores.
    Fp32,
    /// fp32 rounded to TF32, in the tensor cores.
    Tf32,
    /// bf16.
    Bf16,
    /// fp16.
    Fp16,
    /// fp8.
    Fp8,
    /// int8.
    Int8,
    /// fp64.
    Fp64,
}

impl WorkType {
    /// All of them, from number 0 on.
    pub const NUMBERED: [Self; 7] = [Self::Fp32, Self::Tf32, Self::Bf16, Self::Fp16, Self::Fp8, Self::Int8, Self::Fp64];

    /// By its number in the observer's interface. Any other number is fp32.
    pub fn of(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|index| Self::NUMBERED.get(index)).copied().unwrap_or(Self::Fp32)
    }

    /// The compute capability from which on GPUs multiply matrices in it: cuBLASLt and PyTorch refuse such products on earlier ones.
    pub fn first_capability(self) -> (u32, u32) {
        match self {
            Self::Fp8 => (8, 9),
            Self::Fp32 | Self::Tf32 | Self::Bf16 | Self::Fp16 | Self::Int8 | Self::Fp64 => (0, 0),
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Fp64 => "fp64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_meaning_are_no_kind() {
        assert_eq!((WorkKind::of(1), WorkKind::of(6)), (Some(WorkKind::Gemm), Some(WorkKind::CudnnAttention)));
        assert_eq!([0, 8, -1, i32::MIN].map(WorkKind::of), [None; 4]);
        assert_eq!([2, 7, -1].map(WorkType::of), [WorkType::Bf16, WorkType::Fp32, WorkType::Fp32]);
    }
}
