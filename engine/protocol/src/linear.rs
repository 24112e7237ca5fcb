//! Linear layers whose products are in 8 bits: in which type their weights wait, and which GPUs have such products. The arithmetic is in `engine/src/weights/products.rs`.

use crate::capability::capability_of;
use crate::{GpuProfile, LinearDtype, WeightDtype, WorkType};

/// What the sides of a product in 8 bits are a multiple of: libtorch asks for it of FP8.
pub(crate) const PRODUCT_SIDE: i64 = 16;

impl LinearDtype {
    /// The type in which the weights of such layers wait, and are multiplied as they are. None where they are multiplied in the type of arithmetic.
    pub fn weight_dtype(self) -> Option<WeightDtype> {
        match self {
            Self::Dtype => None,
            Self::Fp8 => Some(WeightDtype::Fp8E4m3),
            Self::Int8 => Some(WeightDtype::Int8),
        }
    }

    /// The compute capability from which on GPUs have such products.
    fn first_capability(self) -> (u32, u32) {
        match self {
            Self::Dtype => (0, 0),
            Self::Fp8 => WorkType::Fp8.first_capability(),
            Self::Int8 => (8, 0),
        }
    }

    /// What is said where `gpu` does not have the products of linear layers that are asked for; one that is not known is a recent one.
    pub fn refusal(self, gpu: Option<&GpuProfile>) -> Option<String> {
        let first = self.first_capability();
        let gpu = gpu.filter(|gpu| capability_of(Some(gpu)) < first)?;
        Some(format!(
            "compute capability {} ({}) has no linear_dtype={}: GPUs from {}.{} on have it; leave it out",
            gpu.compute_capability.value,
            gpu.name,
            self.name(),
            first.0,
            first.1
        ))
    }
}
