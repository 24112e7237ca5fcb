//! What several ranks come to, each with a GPU: what one holds, what it sends, and how long that takes beside its arithmetic. All of it is modelled.

use engine_protocol::{Config, DiskRate, GpuLink, GpuProfile, Moves, PassSecs, PlanReport, PlannedRanks, Split, Stage};

use super::hiding::pass_secs;
use super::plan::{Place, Plan, Waits};
use super::shards::part_bytes;
use crate::components::Component;
use crate::weights::{WaitingGroup, WeightTypes};

/// What the ranks of `config` come to on GPUs of that kind, by `report`, which is of the first of them; nothing where there is one.
pub fn predict_ranks(
    config: &Config,
    components: &[Box<dyn Component + '_>],
    report: &PlanReport,
    gpu: Option<&GpuProfile>,
    disk: DiskRate,
) -> Option<PlannedRanks> {
    let split = config.split();
    let transformer = components.iter().find(|component| component.moves() == Moves::EachPass).filter(|_| split != Split::ONE)?.as_ref();
    let plan = Plan::new(config, components);
    let types = WeightTypes::of(config);
    let of_all = components.iter().filter(|component| component.is_of_all_ranks(config) && component.is_used(config));
    let on_host = of_all
        .flat_map(|component| component.groups().iter().zip(plan.of(component.as_ref())))
        .filter(|(_, place)| place.takes_host_memory());
    let gathered = transformer.groups().iter().zip(plan.of(transformer)).filter_map(|(group, place)| match place {
        Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => {
            let bytes = WaitingGroup::new(group, types).layout.bytes;
            Some((bytes - part_bytes(bytes, *ranks)) as u64)
        }
        _ => None,
    });
    let sent_bytes = transformer.sent_bytes(config) as u64;
    let of_stage = |stage| components.iter().filter(move |component| component.stage() == stage && component.is_used(config));
    let is_of_others = |stage| stage == Stage::Load || of_stage(stage).any(|component| component.is_of_all_ranks(config));
    // Another rank holds no more than the first one, and less where one puts together what all have made.
    let less = |stage| {
        let of = |component: &dyn Component| {
            component.activation_bytes(config, gpu)?.checked_sub(component.activation_bytes_of_others(config, gpu)?)
        };
        of_stage(stage).filter_map(|component| of(component.as_ref())).min().unwrap_or(0) as u64
    };
    let of_others =
        report.stages.iter().filter(|stage| is_of_others(stage.stage)).map(|stage| Some(stage.peak_allocated_bytes()? - less(stage.stage)));
    let secs = |config: &Config, gpu: &GpuProfile| pass_secs(config, transformer, &Plan::new(config, components), gpu, disk);
    let pass_secs = gpu.map(|gpu| {
        let link = gpu.link_between();
        PassSecs {
            alone: secs(
                &Config { cp_size: None, cp_ulysses: None, cp_ring: None, cfg_size: None, shard_weights: None, ..config.clone() },
                gpu,
            ),
            arithmetic: secs(config, gpu),
            exchange: sent_bytes as f64 / link.bytes_per_sec(),
            is_nvlink: matches!(link, GpuLink::Nvlink(_)),
        }
    });
    Some(PlannedRanks {
        count: split.ranks(),
        parts: split.cp_size(),
        all_decode: is_of_others(Stage::Decode),
        sent_bytes,
        gathered_bytes: gathered.sum(),
        shared_host_bytes: on_host.map(|(group, _)| WaitingGroup::new(group, types).layout.bytes as u64).sum(),
        others_peak_allocated_bytes: of_others.collect::<Option<Vec<_>>>().and_then(|peaks| peaks.into_iter().max()),
        pass_secs,
    })
}
