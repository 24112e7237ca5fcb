//! The types of numbers that our kernels take, and tensors of them.

use std::ffi::c_int;

use tch::{Kind, Tensor};

/// A type of numbers, as C++ has it in `engine/src/kernels/cuda/elements.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Element {
    Fp32,
    Bf16,
    Fp16,
}

impl Element {
    pub(super) const ALL: [Self; 3] = [Self::Fp32, Self::Bf16, Self::Fp16];

    /// None for other types.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Float => Some(Self::Fp32),
            Kind::BFloat16 => Some(Self::Bf16),
            Kind::Half => Some(Self::Fp16),
            _ => None,
        }
    }

    /// Its name in C++.
    pub(super) fn cpp(self) -> &'static str {
        match self {
            Self::Fp32 => "float",
            Self::Bf16 => "kernels::Bf16",
            Self::Fp16 => "kernels::Fp16",
        }
    }

    /// Options of the compiler, for that compute capability: they are every kernel's.
    pub(super) fn options(self, (major, minor): (u32, u32)) -> Vec<String> {
        vec![format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".into(), format!("-DELEMENT={}", self.cpp())]
    }

    /// Its number on the CPU.
    pub(super) fn number(self) -> c_int {
        self as c_int
    }
}

/// The bytes of these tensors together.
pub(super) fn bytes_of(tensors: &[&Tensor]) -> f64 {
    tensors.iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as f64).sum()
}

/// That a tensor is as a kernel takes it for: whole, on the device, of that type and size.
pub(super) fn check(tensor: &Tensor, like: &Tensor, kind: Kind, size: &[i64]) {
    assert!(tensor.device() == like.device() && tensor.kind() == kind && tensor.is_contiguous(), "not what the kernel takes");
    assert_eq!(tensor.size(), size, "not of the size that the kernel takes");
}
