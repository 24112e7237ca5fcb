//! Where the time of a stage went: what its operations on the GPU took.

use serde::{Deserialize, Serialize};

use crate::Secs;

/// A kind of work, each with rates of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Products of matrices.
    Gemm,
    /// Fused attention, by kernels of FlashAttention-2's kind.
    Attention,
    /// Fused attention, by cuDNN.
    CudnnAttention,
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
    /// By its number in the observer of operations.
    pub fn of(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Gemm,
            2 => Self::Attention,
            3 => Self::Convolution,
            4 => Self::Pointwise,
            5 => Self::Reduction,
            6 => Self::CudnnAttention,
            _ => return None,
        })
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "matrix product",
            Self::Attention | Self::CudnnAttention => "attention",
            Self::Convolution => "convolution",
            Self::Pointwise => "pointwise",
            Self::Reduction => "reduction",
            Self::Copy => "copy",
        }
    }
}

/// The type that is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// By its number in the observer of operations.
    pub fn of(number: i32) -> Self {
        match number {
            1 => Self::Tf32,
            2 => Self::Bf16,
            3 => Self::Fp16,
            4 => Self::Fp8,
            5 => Self::Int8,
            6 => Self::Fp64,
            _ => Self::Fp32,
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

/// What all calls of one operation came to in a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationTime {
    /// libtorch's name, `aten::addmm`.
    pub name: String,
    /// Of which kind it is.
    pub kind: WorkKind,
    /// In which type.
    pub dtype: WorkType,
    /// How often it was called.
    pub calls: u64,
    /// How long it took, by the device's own events.
    pub secs: Secs,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes read and written; of a copy, moved.
    pub bytes: f64,
}
