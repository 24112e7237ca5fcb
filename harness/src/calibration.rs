//! From what a GPU was measured to take to its profile.
//!
//! What kinds of work reach is not computed from a time and a peak. A run on the GPU and the same run on a virtual one that has the profile so far say how far the model is
//! off for each kind, and its share is corrected by that. So whatever the clock takes into account (tiles, bandwidth, small kernels) is in the share as well.

use engine_protocol::{
    Calibration, Efficiency, Figure, GpuProfile, Interval, Measured, OperationTime, POOL_STREAMS, PowerLimit, RunRecord, Secs,
    SmallKernels, Stage, WorkKind,
};

use crate::calibration_runs::Twin;

/// Kinds of work that a profile has shares for.
pub(crate) const KINDS: [WorkKind; 6] =
    [WorkKind::Gemm, WorkKind::Attention, WorkKind::CudnnAttention, WorkKind::Convolution, WorkKind::Pointwise, WorkKind::Reduction];

/// Runs differ by so much where nothing else does: the ends of an interval are no closer to what was measured.
const SPREAD: f64 = 0.05;
/// Machine code of kernels that calibration does not use: half as much again.
const CODE_BOUND: f64 = 1.5;
/// So close to what they come to, steps count as settled; so much faster, steps before that count as a burst.
const SETTLED: f64 = 0.02;
/// A kind that took less of a run is not measured well enough.
const LEAST_SHARE: f64 = 0.01;

/// The profile, without what is known of its power limit, as runs are modelled that it is calibrated by.
pub(crate) fn starting_from(profile: &GpuProfile) -> GpuProfile {
    GpuProfile { power_limit: None, ..profile.clone() }
}

/// `start` with what was measured in place of what it had. Other processes held `others_bytes` on the GPU. `source` says when and how it was measured.
pub(crate) fn calibrated(start: &GpuProfile, calibration: &Calibration, twins: &[Twin], others_bytes: u64, source: &str) -> GpuProfile {
    let mut profile = start.clone();
    let small = small_kernels(calibration, source);
    for kind in KINDS {
        if let Some(corrected) = corrected(kind, start, small.as_ref(), twins, source) {
            set_share(&mut profile.efficiency, kind, corrected);
        }
    }
    profile.power_limit =
        twins.iter().filter_map(|twin| power_limit(&twin.measured, source)).max_by(|a, b| a.burst.value.total_cmp(&b.burst.value));
    profile.small_kernels = small.or(profile.small_kernels);
    let figure = |value| Figure { value, source: source.to_owned() };
    if let Some(rate) = beside_arithmetic(twins).or_else(|| rate(calibration, Measured::PinnedToDevice)) {
        profile.pcie.pinned_bytes_per_sec = figure(rate);
    }
    profile.pcie.pageable_bytes_per_sec = rate(calibration, Measured::PageableToDevice).map(figure).or(profile.pcie.pageable_bytes_per_sec);
    set_memory(&mut profile, calibration, others_bytes, source);
    profile
}

fn set_share(efficiency: &mut Efficiency, kind: WorkKind, share: Interval) {
    match kind {
        WorkKind::Gemm => efficiency.gemm = share,
        WorkKind::Attention => efficiency.attention = share,
        WorkKind::CudnnAttention => efficiency.cudnn_attention = Some(share),
        WorkKind::SageAttention => efficiency.sage_attention = Some(share),
        WorkKind::Convolution => efficiency.convolution = share,
        WorkKind::Pointwise => efficiency.pointwise = share,
        WorkKind::Reduction => efficiency.reduction = share,
        WorkKind::Copy => {}
    }
}

/// The share of a kind of work, corrected by how far the model was off. None where too little of it was done.
fn corrected(kind: WorkKind, start: &GpuProfile, small: Option<&SmallKernels>, twins: &[Twin], source: &str) -> Option<Interval> {
    let share = start.efficiency.of(kind)?;
    let modelled_kernel = start.small_kernels().kernel_secs.expected;
    let measured_kernel = small.map_or(modelled_kernel, |small| small.kernel_secs.expected);
    let secs = twins.iter().filter(|twin| counts_in(&twin.measured, kind)).map(|twin| {
        let settled = if kind.goes_by_memory() { 1.0 } else { settled_by_mean(&twin.measured) };
        [secs_of(&twin.modelled, kind, modelled_kernel), secs_of(&twin.measured, kind, measured_kernel) * settled]
    });
    let secs: Vec<_> = secs.filter(|secs| secs.iter().all(|&secs| secs > 0.0)).collect();
    let [modelled, measured] = [0, 1].map(|side| secs.iter().map(|secs| secs[side]).sum::<f64>());
    let ratios = || secs.iter().map(|[modelled, measured]| modelled / measured);
    let least = ratios().reduce(f64::min)?;
    let most = ratios().reduce(f64::max)?;
    Some(Interval {
        low: share.expected * least * (1.0 - SPREAD),
        expected: share.expected * modelled / measured,
        high: share.expected * most * (1.0 + SPREAD),
        source: source.to_owned(),
    })
}

/// The sums of operations. Encoding is over in a moment, most of which goes into what happens once.
fn sums(record: &RunRecord) -> impl Iterator<Item = &OperationTime> {
    let stages = record.stages.iter().filter(|stage| stage.stage != Stage::Encode);
    stages.flat_map(|stage| &stage.operations).filter(|sum| sum.kind != WorkKind::Copy)
}

/// Whether enough of a kind of work was done.
fn counts_in(record: &RunRecord, kind: WorkKind) -> bool {
    let all: f64 = sums(record).map(|sum| sum.secs.expected).sum();
    secs_of(record, kind, 0.0) > LEAST_SHARE * all
}

/// Seconds of a kind of work beside what its kernels take that do nothing.
fn secs_of(record: &RunRecord, kind: WorkKind, kernel_secs: f64) -> f64 {
    sums(record).filter(|sum| sum.kind == kind).map(|sum| (sum.secs.expected - sum.calls as f64 * kernel_secs).max(0.0)).sum()
}

/// Sampler steps without the first, which pays for what happens once.
fn steps(record: &RunRecord) -> Vec<f64> {
    record.stage(Stage::Denoise).map(|stage| stage.step_secs.iter().skip(1).map(|secs| secs.expected).collect()).unwrap_or_default()
}

/// What steps come to: the median of the last third.
fn settled(steps: &[f64]) -> Option<f64> {
    let mut last = steps[steps.len() - steps.len().div_ceil(3)..].to_vec();
    last.sort_by(f64::total_cmp);
    last.get(last.len() / 2).copied()
}

/// By how much the arithmetic of a step that has settled is longer than it was on the whole. All else takes as long as ever.
fn settled_by_mean(record: &RunRecord) -> f64 {
    let steps = steps(record);
    let (Some(settled), Some(arithmetic)) = (settled(&steps), arithmetic_share(record)) else { return 1.0 };
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    (settled - (1.0 - arithmetic) * mean) / (arithmetic * mean)
}

/// Which share of sampler steps is arithmetic. None where there is none.
fn arithmetic_share(record: &RunRecord) -> Option<f64> {
    let denoise = record.stage(Stage::Denoise)?;
    let sum = |counts: fn(WorkKind) -> bool| -> f64 {
        denoise.operations.iter().filter(|sum| counts(sum.kind)).map(|sum| sum.secs.expected).sum()
    };
    let share = sum(|kind| !kind.goes_by_memory()) / sum(|kind| kind != WorkKind::Copy);
    (share > 0.0).then_some(share)
}

/// What the power limit does to arithmetic, where early steps were faster than later ones.
fn power_limit(record: &RunRecord, source: &str) -> Option<PowerLimit> {
    let steps = steps(record);
    let settled = settled(&steps)?;
    let early = steps.iter().copied().reduce(f64::min)?;
    if settled / early < 1.0 + SETTLED {
        return None;
    }
    let denoise = record.stage(Stage::Denoise)?;
    let arithmetic = arithmetic_share(record)?;
    // The rest of a step takes as long as ever.
    let burst = arithmetic * settled / (early - (1.0 - arithmetic) * settled);
    let first = denoise.step_secs.first()?.expected;
    let until = steps.iter().take_while(|&&step| step < settled * (1.0 - SETTLED)).sum::<f64>();
    let figure = |value| Figure { value, source: source.to_owned() };
    Some(PowerLimit { burst: figure(burst), settles_secs: figure(first + until) })
}

fn small_kernels(calibration: &Calibration, source: &str) -> Option<SmallKernels> {
    let each = |what| {
        let it = calibration.measurements.iter().find(|it| it.what == what)?;
        let Secs { expected, .. } = it.secs;
        let each = expected / it.amount;
        // The fastest is what was measured here, in a row of equal ones; others are larger, and a busy host is slower.
        Some(Interval { low: each * 0.8, expected: each, high: each * 2.0, source: source.to_owned() })
    };
    Some(SmallKernels { kernel_secs: each(Measured::SmallKernels)?, launch_secs: each(Measured::Launches)? })
}

/// Bytes a second of a kind of copy: the median of those that were measured.
pub(crate) fn rate(calibration: &Calibration, what: Measured) -> Option<f64> {
    let all = calibration.measurements.iter().filter(|it| it.what == what);
    let mut rates: Vec<f64> = all.map(|it| it.amount / it.secs.expected).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// Bytes a second of copies of weights while the GPU computes.
fn beside_arithmetic(twins: &[Twin]) -> Option<f64> {
    let stages = twins.iter().flat_map(|twin| &twin.measured.stages).filter(|stage| stage.stage == Stage::Denoise);
    let copies = stages.flat_map(|stage| &stage.operations).filter(|sum| sum.kind == WorkKind::Copy);
    let (bytes, secs) = copies.fold((0.0, 0.0), |(bytes, secs), sum| (bytes + sum.bytes, secs + sum.secs.expected));
    (secs > 0.0).then(|| bytes / secs)
}

fn set_memory(profile: &mut GpuProfile, calibration: &Calibration, others_bytes: u64, source: &str) {
    let process = calibration.process;
    profile.memory_bytes = Figure { value: calibration.memory_bytes, source: source.to_owned() };
    profile.context_bytes = Figure { value: process.context_bytes.saturating_sub(others_bytes), source: source.to_owned() };
    let bound = format!("{source}, and half as much again for kernels that were not used");
    profile.code_bytes = Figure { value: (process.code_bytes as f64 * CODE_BOUND) as u64, source: bound };
    profile.stream_bytes = Figure { value: process.pool_bytes / POOL_STREAMS, source: source.to_owned() };
    let share = process.page_table_bytes as f64 / process.pinned_bytes as f64;
    profile.page_table_share = Figure { value: share, source: source.to_owned() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_get_slower_show_a_power_limit() {
        let steps = [0.8, 0.8, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(settled(&steps), Some(1.0));
        assert_eq!(settled(&[]), None);
        assert_eq!(settled(&[2.0]), Some(2.0));
    }
}
