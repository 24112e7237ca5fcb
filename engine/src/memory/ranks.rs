//! What several ranks come to, each with a GPU: what one holds, what it sends, and how long that takes beside its arithmetic. All of it is modelled.

use engine_protocol::{Config, DiskRate, GpuLink, GpuProfile, Moves, PassSecs, PlannedRanks, Split, Stage};

use super::hiding::pass_secs;
use super::plan::{Place, Plan, Waits};
use super::prediction::predict_from;
use super::shards::part_bytes;
use crate::components::Component;
use crate::weights::{WaitingGroup, WeightTypes};

/// What the ranks of `config` come to on GPUs of that kind, and how long a pass takes on that one of them; nothing where there is one.
pub fn predict_ranks(
    rank: usize,
    config: &Config,
    components: &[Box<dyn Component + '_>],
    gpu: Option<&GpuProfile>,
    disk: DiskRate,
) -> Option<PlannedRanks> {
    let split = config.split();
    let transformer = components.iter().find(|component| component.moves() == Moves::EachPass).filter(|_| split != Split::ONE)?.as_ref();
    let plan = Plan::new(config, components);
    let types = WeightTypes::of(config);
    let used = || components.iter().filter(|component| component.is_used(config));
    let on_host = used()
        .flat_map(|component| component.groups().iter().zip(plan.of(component.as_ref())))
        .filter(|(_, place)| place.takes_host_memory());
    let gathered = transformer.groups().iter().zip(plan.of(transformer)).filter_map(|(group, place)| match place {
        Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => {
            let bytes = WaitingGroup::new(group, types).layout.bytes;
            Some((bytes - part_bytes(bytes, *ranks)) as u64)
        }
        _ => None,
    });
    let sent_bytes = transformer.sent_bytes(config, rank) as u64;
    let of_first: Vec<_> = used().filter(|component| !component.is_of_all_ranks(config)).map(|component| component.name().into()).collect();
    // Where parts are alike one of the others stands for all.
    let others = if config.cp_split.as_ref().is_some_and(|split| split.shares().is_some()) { split.ranks() } else { split.ranks().min(2) };
    let of_others: Vec<_> = (1..others as usize).map(|rank| predict_from(Stage::Encode, rank, config, components, gpu)).collect();
    let secs = |config: &Config, gpu: &GpuProfile| pass_secs(config, transformer, &Plan::new(config, components), gpu, disk, rank);
    let pass_secs = gpu.map(|gpu| {
        let link = gpu.link_between();
        PassSecs {
            alone: secs(
                &Config {
                    cp_size: None,
                    cp_ulysses: None,
                    cp_ring: None,
                    cfg_size: None,
                    cp_split: None,
                    shard_weights: None,
                    ..config.clone()
                },
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
        all_decode: of_others.iter().flat_map(|other| &other.stages).any(|planned| planned.stage == Stage::Decode),
        of_first,
        sent_bytes,
        gathered_bytes: gathered.sum(),
        shared_host_bytes: on_host.map(|(group, _)| WaitingGroup::new(group, types).layout.bytes as u64).sum(),
        others_peak_allocated_bytes: of_others
            .iter()
            .map(|other| Some(other.peak()?.1))
            .collect::<Option<Vec<_>>>()
            .and_then(|peaks| peaks.into_iter().max()),
        pass_secs,
    })
}
