//! What work costs: a roofline over the rates of the GPU's profile.
//!
//! # Note: the model
//! A matrix product, a convolution and attention take as long as their operations at the peak rate of their type, or as their bytes at the memory's
//! bandwidth, whichever is longer; everything else takes its bytes. Of a peak only a share is reached, which the profile has for each kind of work as an
//! interval: the quick world takes its upper end, the slow one its lower. Each kernel takes [`KERNEL_SECS`] besides. A copy takes its bytes at the link's rate
//! and [`COPY_SECS`] besides.

use virtual_gpu_protocol::{Efficiency, GpuProfile, PeakShare, WorkKind, WorkType};

use super::profile::capability;
use super::span::Span;

/// What a kernel takes that does nothing: public measurements of replayed graphs have 1.3 microseconds for each.
const KERNEL_SECS: f64 = 1.3e-6;
/// What the host takes to ask for a kernel, a copy or an event: 3.2 microseconds were measured through tch, Python takes more.
const LAUNCH_SECS: Span = Span([2.5e-6, 4e-6, 10e-6]);
/// What a copy takes that moves nothing: a rule.
const COPY_SECS: f64 = 5e-6;
/// The profile's rate of the link is what large pinned copies are taken to reach, 80% of what the link carries. Measured ones lie between about 70 and 90%.
const LINK_SHARE: [f64; 3] = [0.9 / 0.8, 1.0, 0.7 / 0.8];
/// Memory that is not pinned goes through a pinned buffer of the driver's, by way of the processor: a rule.
const PAGEABLE_SHARE: f64 = 0.4;

/// What a kernel does, or a library call that would have run some.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelWork {
    /// What it is; none where it says nothing of itself.
    pub kind: Option<WorkKind>,
    /// In which type.
    pub dtype: WorkType,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl KernelWork {
    /// Of a kernel that says nothing of itself.
    pub const UNKNOWN: Self = Self { kind: None, dtype: WorkType::Fp32, operations: 0.0, bytes: 0.0 };

    /// What it is called in reports and timelines.
    pub fn label(&self) -> &'static str {
        match self.kind {
            None => "kernel",
            Some(WorkKind::Gemm) => "gemm",
            Some(WorkKind::Attention | WorkKind::CudnnAttention) => "attention",
            Some(WorkKind::Convolution) => "convolution",
            Some(WorkKind::Pointwise) => "pointwise",
            Some(WorkKind::Reduction) => "reduction",
            Some(WorkKind::Copy) => "copy",
        }
    }
}

/// The rates of a kind of GPU.
#[derive(Debug, Clone)]
pub struct Rates {
    memory: f64,
    link: f64,
    /// Peak rates by the numbers of [`WorkType`].
    peaks: [f64; WorkType::NUMBERED.len()],
    efficiency: Efficiency,
}

impl Rates {
    /// Those of the profile.
    pub fn of(profile: &GpuProfile) -> Self {
        let flops = &profile.flops;
        let [fp32, tf32, bf16, fp16] = [&flops.fp32, &flops.tf32, &flops.bf16, &flops.fp16].map(|figure| figure.value);
        // Where the tensor cores lack a type, kernels convert to a 16-bit one.
        let [fp8, int8] = [&flops.fp8, &flops.int8].map(|figure| figure.as_ref().map_or(bf16, |figure| figure.value));
        // Data-centre cards of compute capability 8.0, 9.0 and 10.0 have half rate, others 1/64.
        let (_, minor) = capability(profile);
        let fp64 = if minor == 0 { fp32 / 2.0 } else { fp32 / 64.0 };
        let peak = |dtype| match dtype {
            WorkType::Fp32 => fp32,
            WorkType::Tf32 => tf32,
            WorkType::Bf16 => bf16,
            WorkType::Fp16 => fp16,
            WorkType::Fp8 => fp8,
            WorkType::Int8 => int8,
            WorkType::Fp64 => fp64,
        };
        Self {
            memory: profile.memory_bytes_per_sec.value,
            link: profile.pcie.pinned_bytes_per_sec.value,
            peaks: WorkType::NUMBERED.map(peak),
            efficiency: profile.efficiency.clone(),
        }
    }

    /// What moving so many bytes takes at the memory's full bandwidth.
    pub fn full_bandwidth(&self, bytes: f64) -> f64 {
        bytes / self.memory
    }

    /// What the host takes to ask for something.
    pub fn launch(&self) -> Span {
        LAUNCH_SECS
    }

    /// What a kernel takes that does nothing.
    pub fn kernel(&self) -> Span {
        Span([KERNEL_SECS; 3])
    }

    /// What `work` takes beside that.
    pub fn cost(&self, work: KernelWork) -> Span {
        let efficiency = &self.efficiency;
        let Some(kind) = work.kind else { return Span::default() };
        let share = match kind {
            WorkKind::Gemm => &efficiency.gemm,
            WorkKind::Attention => &efficiency.attention,
            WorkKind::CudnnAttention => efficiency.cudnn_attention.as_ref().unwrap_or(&efficiency.attention),
            WorkKind::Convolution => &efficiency.convolution,
            WorkKind::Pointwise | WorkKind::Copy => &efficiency.pointwise,
            WorkKind::Reduction => &efficiency.reduction,
        };
        if matches!(kind, WorkKind::Pointwise | WorkKind::Copy | WorkKind::Reduction) {
            return at(work.bytes, self.memory, share);
        }
        at(work.operations, self.peaks[work.dtype as usize], share).max(at(work.bytes, self.memory, &efficiency.pointwise))
    }

    /// What a copy within the device or a fill takes: its bytes read and written.
    pub fn on_device(&self, bytes: f64) -> Span {
        self.kernel() + at(bytes, self.memory, &self.efficiency.pointwise)
    }

    /// What a copy between host and device takes.
    pub fn link(&self, bytes: f64, pinned: bool) -> Span {
        let share = if pinned { 1.0 } else { PAGEABLE_SHARE };
        let secs = bytes / (self.link * share);
        Span(LINK_SHARE.map(|link| COPY_SECS + secs / link))
    }
}

/// So much at that share of a peak rate.
fn at(amount: f64, peak: f64, share: &PeakShare) -> Span {
    Span([share.high, share.expected, share.low].map(|share| amount / (peak * share)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::profile::tests::with_round_rates;

    /// fp32 1e12, TF32 2e12, bf16 and fp16 4e12; memory 1e11; link 1e10; shares 0.4, 0.5, 0.8 everywhere.
    fn rates() -> Rates {
        Rates::of(&with_round_rates())
    }

    #[test]
    fn the_longer_of_arithmetic_and_memory_decides() {
        let work = |operations, bytes| KernelWork { kind: Some(WorkKind::Gemm), dtype: WorkType::Bf16, operations, bytes };
        // 4e12 operations: one second at the peak; 1e10 bytes: a tenth of one.
        assert_eq!(rates().cost(work(4e12, 1e10)), Span([1.25, 2.0, 2.5]));
        assert_eq!(rates().cost(work(4e11, 1e11)), Span([1.25, 2.0, 2.5]));
        let fp32 = KernelWork { dtype: WorkType::Fp32, ..work(1e12, 0.0) };
        assert_eq!(rates().cost(fp32).expected(), 2.0);
    }

    #[test]
    fn what_is_not_arithmetic_takes_its_bytes() {
        let work = KernelWork { kind: Some(WorkKind::Reduction), dtype: WorkType::Fp32, operations: 1e20, bytes: 1e11 };
        assert_eq!(rates().cost(work), Span([1.25, 2.0, 2.5]));
        assert_eq!(rates().cost(KernelWork { kind: None, ..work }), Span::default());
    }

    #[test]
    fn a_copy_goes_at_the_links_rate() {
        // 1e10 bytes at 1e10 a second.
        assert_eq!(rates().link(1e10, true).expected(), 1.0 + COPY_SECS);
        assert_eq!(rates().link(1e10, false).expected(), 2.5 + COPY_SECS);
    }
}
