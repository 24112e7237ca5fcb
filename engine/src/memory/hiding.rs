//! Whether streamed weights arrive in time: a pass through a component, played through with the rates of a GPU before anything is allocated. Which flags to
//! change where they do not is `settle`'s.

use engine_protocol::{Config, DiskRate, Dtype, GpuProfile, Interval, LinearDtype, PinnedMemory, WorkKind};

use super::plan::{Place, Plan, Waits, staging_buffers};
use crate::components::Component;
use crate::weights::{Group, WaitingGroup, WeightTypes};

/// Copies are to hide on a slow day too: of the rates of the link and of the disk that are most likely, so much.
const SLOW_DAY: f64 = 0.875;

/// A group in a pass: how long it computes, and how long its copy takes where it is streamed.
#[derive(Debug, Clone, Copy)]
struct Turn {
    compute: f64,
    copy: Option<f64>,
}

/// For which fraction of its time arithmetic stands still in a pass through `component` under `config` on that GPU, because a copy has not arrived. What comes
/// from files comes no faster than `disk` gives it.
pub(super) fn stalled_fraction(config: &Config, component: &dyn Component, plan: &Plan, gpu: &GpuProfile, disk: DiskRate) -> f64 {
    // Behind arithmetic at its quickest.
    let turns = turns(config, component, plan, gpu, disk, 0, |reached| reached.high);
    let compute: f64 = turns.iter().map(|turn| turn.compute).sum();
    stall_secs(&turns, config.prefetch_blocks.unwrap_or(0) as usize) / compute
}

/// How long a pass through `component` takes on a rank as is most likely, what it waits for copies among it.
pub(super) fn pass_secs(config: &Config, component: &dyn Component, plan: &Plan, gpu: &GpuProfile, disk: DiskRate, rank: usize) -> f64 {
    let turns = turns(config, component, plan, gpu, disk, rank, |reached| reached.expected);
    let compute: f64 = turns.iter().map(|turn| turn.compute).sum();
    compute + stall_secs(&turns, config.prefetch_blocks.unwrap_or(0) as usize)
}

/// The component's groups in execution order, where arithmetic reaches what `share` has of its intervals. Norms and the like are left out, so that arithmetic takes a little longer than this.
fn turns(
    config: &Config,
    component: &dyn Component,
    plan: &Plan,
    gpu: &GpuProfile,
    disk: DiskRate,
    rank: usize,
    share: fn(&Interval) -> f64,
) -> Vec<Turn> {
    let flops = &gpu.flops;
    let peak = match config.dtype {
        Dtype::Fp32 => flops.fp32.value,
        Dtype::Bf16 => flops.bf16.value,
        Dtype::Fp16 => flops.fp16.value,
    };
    let efficiency = &gpu.efficiency;
    let fused = efficiency.cudnn_attention.as_ref().map_or(0.0, share).max(share(&efficiency.attention));
    let attention = match efficiency.of(WorkKind::SageAttention).filter(|_| config.attn_type.is_in_8_bits_on(Some(gpu))) {
        Some(reached) => {
            let attended = config.block_choice().map_or(1.0, |choice| choice.topk.max(f64::MIN_POSITIVE));
            share(reached) * flops.int8.as_ref().map_or(peak, |figure| figure.value) / attended
        }
        _ => peak * fused,
    };
    let in_8_bits = match config.linear_dtype {
        LinearDtype::Dtype => None,
        LinearDtype::Fp8 => flops.fp8.as_ref(),
        LinearDtype::Int8 => flops.int8.as_ref(),
    };
    let gemm = in_8_bits.map_or(peak, |figure| figure.value) * share(&efficiency.gemm);
    let pcie = &gpu.pcie;
    let link = if config.pinned_memory != Some(PinnedMemory::Off) { pcie.pinned_bytes_per_sec.value } else { pcie.pageable() };

    let types = WeightTypes::of(config);
    let turn = |(group, place): (&Group, &Place)| {
        let work = component.work(config, group.name, rank);
        let rate = match place {
            Place::Streamed { waits: Waits::InFile { .. }, .. } => Some(link.min(disk.expected)),
            // All but the own part crosses the link between GPUs.
            Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => {
                Some(gpu.link_between().bytes_per_sec() * f64::from(*ranks) / f64::from(ranks - 1))
            }
            Place::Streamed { .. } => Some(link),
            Place::Resident | Place::Host => None,
        };
        Turn {
            compute: work.gemm / gemm + work.attention / attention,
            copy: rate.map(|rate| WaitingGroup::new(group, types).layout.bytes as f64 / (SLOW_DAY * rate)),
        }
    };
    component.groups().iter().zip(plan.of(component)).map(turn).collect()
}

/// How long arithmetic stands still in a pass that follows others, with so many groups on their way while one computes.
///
/// The host asks for everything long before, so a copy begins when the one before it is done and the buffer whose turn it is was let go of.
fn stall_secs(turns: &[Turn], prefetch: usize) -> f64 {
    let streamed: Vec<i64> = turns.iter().filter(|turn| turn.copy.is_some()).map(|_| 1).collect();
    if streamed.is_empty() {
        return 0.0;
    }
    let (buffers, _) = staging_buffers(prefetch, &streamed);
    let mut released = vec![0.0_f64; buffers];
    let (mut now, mut copied, mut next, mut stalled) = (0.0_f64, 0.0_f64, 0, 0.0);
    // In the first pass nothing is on its way yet; the second one is as all others.
    for _ in 0..2 {
        stalled = 0.0;
        for turn in turns {
            let Some(copy) = turn.copy else {
                now += turn.compute;
                continue;
            };
            copied = copied.max(released[next]) + copy;
            stalled += (copied - now).max(0.0);
            now = now.max(copied) + turn.compute;
            released[next] = now;
            next = (next + 1) % buffers;
        }
    }
    stalled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(compute: f64, copy: f64) -> Turn {
        Turn { compute, copy: Some(copy) }
    }

    fn resident(compute: f64) -> Turn {
        Turn { compute, copy: None }
    }

    #[test]
    fn a_copy_hides_behind_the_group_before_it() {
        assert_eq!(stall_secs(&[streamed(3.0, 2.0); 4], 1), 0.0);
        // Each copy takes one more than the group before it computes.
        assert_eq!(stall_secs(&[streamed(3.0, 4.0); 4], 1), 4.0);
        // Without a second buffer nothing overlaps.
        assert_eq!(stall_secs(&[streamed(3.0, 2.0); 4], 0), 8.0);
    }

    #[test]
    fn what_is_resident_gives_copies_time_and_needs_none() {
        assert_eq!(stall_secs(&[resident(3.0); 4], 1), 0.0);
        assert_eq!(stall_secs(&[streamed(3.0, 5.0), resident(3.0), streamed(3.0, 5.0), resident(3.0)], 1), 0.0);
    }
}
