//! GPU profiles: what a kind of GPU has, each figure with where it comes from.

use serde::{Deserialize, Serialize};

use crate::process_memory;

/// A figure and its source: a data sheet, a tool's output, or the rule that it was derived by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure<T> {
    /// The figure, in the unit that its field's name says.
    pub value: T,
    /// Where it comes from.
    pub source: String,
}

/// One kind of GPU, as `sweeps/gpus/NAME.yaml` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuProfile {
    /// The name on the command line, `rtx-4090`.
    pub name: String,
    /// The name that its driver reports.
    pub title: String,
    /// The size on the box, which `GPU=24GB` picks by.
    pub nominal_gb: u32,
    /// Major and minor, `8.9`.
    pub compute_capability: Figure<String>,
    /// Streaming multiprocessors.
    pub multiprocessors: Figure<u32>,
    /// All of the memory, as `cudaMemGetInfo` reports it: less than the size on the box.
    pub memory_bytes: Figure<u64>,
    /// What one process's CUDA context takes of it, with what its first kernel needs.
    pub context_bytes: Figure<u64>,
    /// What machine code of the libraries takes beside that, as it is loaded with the kernels that are used: an upper bound.
    #[serde(default = "process_memory::code_bytes")]
    pub code_bytes: Figure<u64>,
    /// What each stream takes.
    #[serde(default = "process_memory::stream_bytes")]
    pub stream_bytes: Figure<u64>,
    /// What each byte of page-locked memory of the host takes.
    #[serde(default = "process_memory::page_table_share")]
    pub page_table_share: Figure<f64>,
    /// Device memory bandwidth.
    pub memory_bytes_per_sec: Figure<f64>,
    /// Level 2 cache.
    pub l2_cache_bytes: Figure<u64>,
    /// Boost clock.
    pub clock_hz: Figure<f64>,
    /// Dense peak rates.
    pub flops: PeakFlops,
    /// The link to the host.
    pub pcie: Pcie,
    /// Which share of those rates is reached.
    pub efficiency: Efficiency,
}

/// Dense peak rates in operations a second, with fp32 accumulation for the 16-bit types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeakFlops {
    /// fp32 outside the tensor cores.
    pub fp32: Figure<f64>,
    /// TF32 in the tensor cores.
    pub tf32: Figure<f64>,
    /// bf16 in the tensor cores.
    pub bf16: Figure<f64>,
    /// fp16 in the tensor cores.
    pub fp16: Figure<f64>,
    /// fp8 in the tensor cores, where the GPU has it.
    pub fp8: Option<Figure<f64>>,
    /// int8 in the tensor cores.
    pub int8: Option<Figure<f64>>,
}

/// Which share of the peak rates PyTorch's kernels reach in large operations, by kind: of arithmetic for the first three, of the memory's bandwidth for the
/// others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Products of matrices.
    pub gemm: PeakShare,
    /// Fused attention, by PyTorch's own flash attention (FlashAttention-2).
    pub attention: PeakShare,
    /// Fused attention by cuDNN, which PyTorch prefers on compute capability 9.0; where it is empty, that of `attention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cudnn_attention: Option<PeakShare>,
    /// Convolutions.
    pub convolution: PeakShare,
    /// What computes each element by itself, and copies on the device.
    pub pointwise: PeakShare,
    /// What computes one number of many: norms, softmax, sums.
    pub reduction: PeakShare,
}

/// A share of a peak rate: no less than `low`, most likely `expected`, no more than `high`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeakShare {
    /// No less.
    pub low: f64,
    /// Most likely.
    pub expected: f64,
    /// No more.
    pub high: f64,
    /// Where they come from.
    pub source: String,
}

/// The link between host and GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pcie {
    /// PCI Express generation.
    pub generation: Figure<u32>,
    /// Lanes that the GPU uses.
    pub lanes: Figure<u32>,
    /// What a large copy from pinned memory reaches in one direction.
    pub pinned_bytes_per_sec: Figure<f64>,
}
