//! What a case runs on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What runs a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A real GPU.
    Cuda,
    /// The virtual GPU: libtorch's CUDA path and caching allocator, no arithmetic.
    Virtual,
    /// Real arithmetic on the CPU.
    Cpu,
}

impl Device {
    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cuda => "cuda",
            Device::Virtual => "virtual",
            Device::Cpu => "cpu",
        }
    }

    /// Whether libtorch sees a CUDA device.
    pub fn is_cuda(self) -> bool {
        self != Device::Cpu
    }
}
