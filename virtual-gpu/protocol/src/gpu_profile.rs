//! GPU profiles: what a kind of GPU has, each figure with where it comes from.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WorkKind;

/// A figure and its source: a data sheet, a tool's output, or the rule that it was derived by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Figure<T> {
    /// The figure, in the unit that its field's name says.
    pub value: T,
    /// Where it comes from.
    pub source: String,
}

/// One kind of GPU, as `sweeps/gpus/NAME.yaml` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    #[serde(default = "code_bytes")]
    pub code_bytes: Figure<u64>,
    /// What each stream takes.
    #[serde(default = "stream_bytes")]
    pub stream_bytes: Figure<u64>,
    /// What each byte of page-locked memory of the host takes.
    #[serde(default = "page_table_share")]
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
    /// What NVLink carries to other GPUs in one direction; empty where the GPU has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_bytes_per_sec: Option<Figure<f64>>,
    /// Which share of those rates is reached, for as long as a run takes.
    pub efficiency: Efficiency,
    /// What the power limit does to short loads; without it they reach what long ones do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit: Option<PowerLimit>,
    /// What small kernels take; without it a rule stands for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_kernels: Option<SmallKernels>,
}

/// A card may draw more than its limit for a moment: then its clocks go down, and arithmetic with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerLimit {
    /// How many times as fast arithmetic goes until then.
    pub burst: Figure<f64>,
    /// Seconds of full load until then.
    pub settles_secs: Figure<f64>,
}

/// What kernels take that have next to nothing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmallKernels {
    /// Seconds on the GPU, of each of many in a row.
    pub kernel_secs: Interval,
    /// Seconds of the host, to ask for one.
    pub launch_secs: Interval,
}

/// Dense peak rates in operations a second, with fp32 accumulation for the 16-bit types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Products of matrices.
    pub gemm: Interval,
    /// Fused attention, by PyTorch's own flash attention (FlashAttention-2).
    pub attention: Interval,
    /// Fused attention by cuDNN, which PyTorch prefers on compute capability 9.0; where it is empty, that of `attention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cudnn_attention: Option<Interval>,
    /// Fused attention by FlashAttention-3, a package that PyTorch has not: for programs of others. Where it is empty, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash_attention_3: Option<Interval>,
    /// Fused attention in 8 bits by our own kernel, of the peak in int8; where it is empty, a guess: the kernel was never run on a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sage_attention: Option<Interval>,
    /// Convolutions, of what the tiles compute that their kernels divide an output into.
    pub convolution: Interval,
    /// What computes each element by itself, and copies on the device.
    pub pointwise: Interval,
    /// What computes one number of many: norms, softmax, sums.
    pub reduction: Interval,
}

/// Something that is known between two ends, such as a share of a peak rate: no less than `low`, most likely `expected`, no more than `high`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pcie {
    /// PCI Express generation.
    pub generation: Figure<u32>,
    /// Lanes that the GPU uses.
    pub lanes: Figure<u32>,
    /// What a large copy from pinned memory reaches in one direction.
    pub pinned_bytes_per_sec: Figure<f64>,
    /// What one from ordinary memory reaches; without it a rule stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pageable_bytes_per_sec: Option<Figure<f64>>,
}

impl Pcie {
    /// What a large copy from ordinary memory reaches. By the rule 0.4 of the pinned rate, and no more than one thread of the host copies: 9 GB/s.
    pub fn pageable(&self) -> f64 {
        self.pageable_bytes_per_sec.as_ref().map_or_else(|| (0.4 * self.pinned_bytes_per_sec.value).min(9e9), |figure| figure.value)
    }
}

/// What joins GPUs of one machine, with the rate at which one sends: a rule, since no exchange between GPUs was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GpuLink {
    /// NVLink, at 80% of what it carries.
    Nvlink(f64),
    /// PCI Express, at what a copy from pinned memory reaches.
    Pcie(f64),
}

impl GpuLink {
    /// The rate.
    pub fn bytes_per_sec(self) -> f64 {
        let (GpuLink::Nvlink(rate) | GpuLink::Pcie(rate)) = self;
        rate
    }
}

impl GpuProfile {
    /// What joins it to others of its kind.
    pub fn link_between(&self) -> GpuLink {
        match &self.nvlink_bytes_per_sec {
            Some(carried) => GpuLink::Nvlink(0.8 * carried.value),
            None => GpuLink::Pcie(self.pcie.pinned_bytes_per_sec.value),
        }
    }

    /// Compute capability as major and minor: `8.9` as `(8, 9)`. None where it has another form.
    pub fn capability(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.compute_capability.value.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// What small kernels take. By the rule, a kernel takes the GPU 1.3 microseconds or more, as public measurements of replayed graphs have it, and 2 or 3 in a stream;
    /// the host takes 2.5 to ask for it, 3.2 as measured through tch, and Python more.
    pub fn small_kernels(&self) -> SmallKernels {
        let rule = |low, expected, high| Interval { low, expected, high, source: "rule".into() };
        self.small_kernels
            .clone()
            .unwrap_or_else(|| SmallKernels { kernel_secs: rule(1.3e-6, 2e-6, 4e-6), launch_secs: rule(2.5e-6, 4e-6, 10e-6) })
    }
}

impl Efficiency {
    /// The share for a kind of work; none for what is no work of the GPU's.
    pub fn of(&self, kind: WorkKind) -> Option<&Interval> {
        Some(match kind {
            WorkKind::Gemm => &self.gemm,
            WorkKind::Attention => &self.attention,
            WorkKind::CudnnAttention => self.cudnn_attention.as_ref().unwrap_or(&self.attention),
            WorkKind::SageAttention => self.sage_attention.as_ref().unwrap_or(&UNTIMED_SAGE_ATTENTION),
            WorkKind::Convolution => &self.convolution,
            WorkKind::Pointwise => &self.pointwise,
            WorkKind::Reduction => &self.reduction,
            WorkKind::Copy => return None,
        })
    }
}

/// Of `sage_attention`.
static UNTIMED_SAGE_ATTENTION: LazyLock<Interval> = LazyLock::new(|| {
    Interval {
    low: 0.15,
    expected: 0.3,
    high: 0.75,
    source: "a guess, and wide: our kernel was never run. SageAttention's own reach 0.45 (H100) to 0.77 (RTX 5090) of the peak in int8, by the plots in its repository; ours has simpler \
             loads, and on compute capability 9.0 no wgmma"
        .into(),
}
});

// What stands for a figure that a profile lacks. Only an H100 was measured: docs/measured.md.

/// Of `code_bytes`.
fn code_bytes() -> Figure<u64> {
    let source =
        "bound: 76 MiB were measured on an H100 (2026-11-27, 11 cases in bf16), and half as much again for kernels that those did not use";
    Figure { value: 114 << 20, source: source.into() }
}

/// Of `stream_bytes`.
fn stream_bytes() -> Figure<u64> {
    let source = "as an H100, where PyTorch's pool of 128 streams took 70 MiB (2026-11-27)";
    Figure { value: (70 << 20) / 128, source: source.into() }
}

/// Of `page_table_share`.
fn page_table_share() -> Figure<f64> {
    let source =
        "rule: an entry of 8 bytes for each page of 4 KiB; 50 MiB were measured for 24.0 GiB on an H100 (2026-11-27), 8.5 bytes a page";
    Figure { value: 8.0 / 4096.0, source: source.into() }
}
