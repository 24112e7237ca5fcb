//! The types of numbers that our kernels take.

use std::ffi::c_int;

use tch::Kind;

/// A type of numbers, as C++ has it in `engine/src/attention/sage/elements.cuh`.
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
            Self::Bf16 => "sage::Bf16",
            Self::Fp16 => "sage::Fp16",
        }
    }

    /// Its number on the CPU.
    pub(super) fn number(self) -> c_int {
        self as c_int
    }
}
