//! What work costs: a roofline over the rates of the GPU's profile.
//!
//! # Note: the model
//! A matrix product, a convolution and attention take as long as their operations at the peak rate of their type, or as their bytes at the memory's
//! bandwidth, whichever is longer; everything else takes its bytes. Of a peak only a share is reached, which the profile has for each kind of work as an
//! interval: the quick world takes its upper end, the slow one its lower. Each kernel takes a few microseconds besides, which the profile has too. A copy takes its bytes at the link's rate
//! and [`COPY_SECS`] besides.
//!
//! A convolution computes its output in tiles, one on each multiprocessor at a time, and a tile that is filled in part takes as long as a full one ("wave and
//! tile quantization" in NVIDIA's Matrix Multiplication Background User's Guide). That is why few channels, and the small outputs of a decoder in tiles, are slow.
//!
//! Until the power limit holds a card, arithmetic goes faster by the profile's `burst`.

use virtual_gpu_protocol::{Efficiency, GpuProfile, Interval, PowerLimit, WorkKind, WorkType};

use super::profile::capability;
use super::span::Span;

/// What a copy takes that moves nothing: a rule.
const COPY_SECS: f64 = 5e-6;
/// The profile's rate of the link is what large pinned copies are taken to reach, 80% of what the link carries. Measured ones lie between about 70 and 90%.
const LINK_SHARE: [f64; 3] = [0.9 / 0.8, 1.0, 0.7 / 0.8];
/// Rows of a convolution's tile, and columns: on compute capability 9.0 and up, and below. An H100 reached 0.25, 0.58 and 0.42 of its peak with 96, 192 and 384
/// channels (`calibrate.txt` of 2026-11-27), as tiles of 256 columns explain; kernels for sm80, which all cards below it run, come in widths from 64 up, as their names say (`..._tilesize128x64x32_...`), and the
/// one that wastes least is taken.
const TILE_ROWS: f64 = 128.0;
const TILE_COLUMNS: [f64; 2] = [256.0, 64.0];

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
    /// Rows and columns of the output of a convolution as a product of matrices; none where that is not known.
    pub output: Option<[f64; 2]>,
}

impl KernelWork {
    /// Of a kernel that says nothing of itself.
    pub const UNKNOWN: Self = Self { kind: None, dtype: WorkType::Fp32, operations: 0.0, bytes: 0.0, output: None };

    /// What it is called in reports and timelines.
    pub fn label(&self) -> &'static str {
        match self.kind {
            None => "kernel",
            Some(WorkKind::Gemm) => "gemm",
            Some(WorkKind::Attention | WorkKind::CudnnAttention | WorkKind::SageAttention) => "attention",
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
    pageable_link: f64,
    /// To other devices.
    between: f64,
    multiprocessors: f64,
    tile_columns: f64,
    kernel: Span,
    launch: Span,
    power_limit: Option<PowerLimit>,
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
        let (major, minor) = capability(profile);
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
        let small_kernels = profile.small_kernels();
        Self {
            memory: profile.memory_bytes_per_sec.value,
            link: profile.pcie.pinned_bytes_per_sec.value,
            pageable_link: profile.pcie.pageable(),
            between: profile.link_between().bytes_per_sec(),
            multiprocessors: f64::from(profile.multiprocessors.value),
            tile_columns: TILE_COLUMNS[usize::from(major < 9)],
            kernel: secs(&small_kernels.kernel_secs),
            launch: secs(&small_kernels.launch_secs),
            power_limit: profile.power_limit.clone(),
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
        self.launch
    }

    /// What a kernel takes that does nothing.
    pub fn kernel(&self) -> Span {
        self.kernel
    }

    /// Seconds of full load until the power limit holds the card; none where it always does.
    pub fn settles_secs(&self) -> Option<f64> {
        self.power_limit.as_ref().map(|limit| limit.settles_secs.value)
    }

    /// What `work` takes beside that. `is_settled` once the power limit holds the card.
    pub fn cost(&self, work: KernelWork, is_settled: bool) -> Span {
        let Some((kind, share)) = work.kind.and_then(|kind| Some((kind, self.efficiency.of(kind)?))) else { return Span::default() };
        if kind.goes_by_memory() {
            return at(work.bytes, self.memory, share);
        }
        let burst = self.power_limit.as_ref().filter(|_| !is_settled).map_or(1.0, |limit| limit.burst.value);
        let peak = self.peaks[work.dtype as usize] * work.output.map_or(1.0, |output| self.filled(output)) * burst;
        at(work.operations, peak, share).max(at(work.bytes, self.memory, &self.efficiency.pointwise))
    }

    /// Which part of what the multiprocessors compute belongs to an output of so many rows and columns.
    fn filled(&self, [rows, columns]: [f64; 2]) -> f64 {
        let tiles = (rows / TILE_ROWS).ceil() * (columns / self.tile_columns).ceil();
        let computed = (tiles / self.multiprocessors).ceil() * self.multiprocessors * TILE_ROWS * self.tile_columns;
        (rows * columns / computed).clamp(f64::MIN_POSITIVE, 1.0)
    }

    /// What a copy within the device or a fill takes: its bytes read and written.
    pub fn on_device(&self, bytes: f64) -> Span {
        self.kernel() + at(bytes, self.memory, &self.efficiency.pointwise)
    }

    /// What a copy between host and device takes.
    pub fn link(&self, bytes: f64, pinned: bool) -> Span {
        copied(bytes / if pinned { self.link } else { self.pageable_link })
    }

    /// What so many bytes to another device take.
    pub fn between_devices(&self, bytes: f64) -> Span {
        copied(bytes / self.between)
    }
}

/// A copy that takes so long at the link's expected rate.
fn copied(secs: f64) -> Span {
    Span(LINK_SHARE.map(|link| COPY_SECS + secs / link))
}

/// Seconds as they stand.
fn secs(interval: &Interval) -> Span {
    Span([interval.low, interval.expected, interval.high])
}

/// So much at that share of a peak rate.
fn at(amount: f64, peak: f64, share: &Interval) -> Span {
    Span([share.high, share.expected, share.low].map(|share| amount / (peak * share)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::profile::tests::with_round_rates;

    /// fp32 1e12, TF32 2e12, bf16 and fp16 4e12; memory 1e11; link 1e10; shares 0.4, 0.5, 0.8 everywhere; no power limit.
    fn rates() -> Rates {
        Rates::of(&with_round_rates())
    }

    #[test]
    fn the_longer_of_arithmetic_and_memory_decides() {
        let work = |operations, bytes| KernelWork { kind: Some(WorkKind::Gemm), dtype: WorkType::Bf16, operations, bytes, output: None };
        // 4e12 operations: one second at the peak; 1e10 bytes: a tenth of one.
        assert_eq!(rates().cost(work(4e12, 1e10), true), Span([1.25, 2.0, 2.5]));
        assert_eq!(rates().cost(work(4e11, 1e11), true), Span([1.25, 2.0, 2.5]));
        let fp32 = KernelWork { dtype: WorkType::Fp32, ..work(1e12, 0.0) };
        assert_eq!(rates().cost(fp32, true).expected(), 2.0);
    }

    #[test]
    fn what_is_not_arithmetic_takes_its_bytes() {
        let work = KernelWork { kind: Some(WorkKind::Reduction), dtype: WorkType::Fp32, operations: 1e20, bytes: 1e11, output: None };
        assert_eq!(rates().cost(work, true), Span([1.25, 2.0, 2.5]));
        assert_eq!(rates().cost(KernelWork { kind: None, ..work }, true), Span::default());
    }

    #[test]
    fn a_tile_that_is_filled_in_part_takes_as_long_as_a_full_one() {
        // 128 multiprocessors, tiles of 128 by 64.
        let filled = |rows: f64, columns: f64| rates().filled([rows, columns]);
        assert_eq!(filled(128.0 * 128.0, 128.0), 1.0);
        assert_eq!(filled(128.0 * 128.0, 96.0), 0.75);
        assert_eq!(filled(128.0 * 128.0, 192.0), 1.0);
        assert_eq!(filled(128.0 * 129.0, 64.0), 129.0 / 256.0);
        assert_eq!(filled(128.0, 64.0), 1.0 / 128.0);
        let work = KernelWork {
            kind: Some(WorkKind::Convolution),
            dtype: WorkType::Bf16,
            operations: 4e12,
            bytes: 0.0,
            output: Some([128.0 * 128.0, 96.0]),
        };
        assert_eq!(rates().cost(work, true).expected(), 2.0 / 0.75);
    }

    #[test]
    fn arithmetic_goes_faster_until_the_power_limit_holds_it() {
        let mut profile = with_round_rates();
        let figure = |value| virtual_gpu_protocol::Figure { value, source: String::new() };
        profile.power_limit = Some(PowerLimit { burst: figure(1.25), settles_secs: figure(3.0) });
        let rates = Rates::of(&profile);
        let product = KernelWork { kind: Some(WorkKind::Gemm), dtype: WorkType::Bf16, operations: 4e12, bytes: 0.0, output: None };
        assert_eq!([true, false].map(|is_settled| rates.cost(product, is_settled).expected()), [2.0, 1.6]);
        let sum = KernelWork { kind: Some(WorkKind::Reduction), bytes: 1e11, ..product };
        assert_eq!([true, false].map(|is_settled| rates.cost(sum, is_settled).expected()), [2.0, 2.0]);
        assert_eq!(rates.settles_secs(), Some(3.0));
    }

    #[test]
    fn a_copy_goes_at_the_links_rate() {
        // 1e10 bytes at 1e10 a second.
        assert_eq!(rates().link(1e10, true).expected(), 1.0 + COPY_SECS);
        // From ordinary memory at 0.4 of it.
        assert_eq!(rates().link(1e10, false).expected(), 2.5 + COPY_SECS);
    }
}
