//! What a plan comes to in the host's memory, before anything is allocated: exact for weights and for what is page-locked, a bound or an estimate for all else.

use engine_protocol::{Config, Device, GPU_HOST_PROCESS_BYTES, HOST_PROCESS_BYTES, HostMemory, LoadWeights, PlannedHost, Stage};

use super::pinned_ring::RING_BYTES;
use super::plan::{Place, Plan, Waits};
use super::prediction::{bytes_in_passing, loaded, stages, unpacking_bytes};
use crate::components::Component;
use crate::weights::{Group, Param, WaitingGroup, WeightTypes, packing, part_of};

/// What each stage from `first` on will hold of the host's memory on `device` with all ranks, and the loading that goes before.
pub fn predict_host(first: Stage, config: &Config, components: &[Box<dyn Component + '_>], device: Device) -> Vec<PlannedHost> {
    let of_others: Vec<_> =
        (1..config.split().ranks() as usize).map(|rank| predict_host_of(rank, first, config, components, device)).collect();
    let with_others = |planned: PlannedHost| {
        // One that is done before holds what it held until all are.
        let held = of_others.iter().filter_map(|other| other.iter().rfind(|other| other.stage <= planned.stage));
        PlannedHost { memory: held.fold(planned.memory, |sum, other| sum.plus(other.memory)), ..planned }
    };
    predict_host_of(0, first, config, components, device).into_iter().map(with_others).collect()
}

/// The same of one of the ranks: of what they share each holds a part.
pub fn predict_host_of(
    rank: usize,
    first: Stage,
    config: &Config,
    components: &[Box<dyn Component + '_>],
    device: Device,
) -> Vec<PlannedHost> {
    let plan = Plan::new(config, components);
    let loaded = loaded(first, rank, config, components);
    let held: Vec<_> = loaded.map(|component| Held::new(component.as_ref(), plan.of(component.as_ref()), config, device, rank)).collect();
    // On the CPU ranks are threads of one process.
    let process = if device.is_cuda() { GPU_HOST_PROCESS_BYTES } else { part_of(HOST_PROCESS_BYTES, config.split().ranks()) };
    // What is left to the machine is not settled to the lesser yet.
    let all_at_once = config.load_weights != LoadWeights::AsUsed;
    let all = held.iter().map(|held| held.weights).fold(Bytes::default(), Bytes::plus);
    let planned = |stage| {
        let of_stage = || held.iter().filter(|held| held.stage == stage);
        let bytes = match (all_at_once, stage) {
            // One after the other: beside what is being loaded are those before it.
            (true, Stage::Load) => {
                let loading = held.iter().scan(Bytes::default(), |before, held| {
                    let peak = before.plus(held.loading);
                    *before = before.plus(held.weights);
                    Some(peak)
                });
                loading.fold(all, Bytes::larger)
            }
            (true, _) => all.plus(of_stage().map(|held| held.beside).fold(Bytes::default(), Bytes::max)),
            // Of a pool's transformers one after the other.
            (false, _) => of_stage().map(|held| held.weights.plus(held.beside).larger(held.loading)).fold(Bytes::default(), Bytes::larger),
        };
        let memory = HostMemory { peak_bytes: Some(process + bytes.both()), pinned_peak_bytes: bytes.pinned };
        PlannedHost { stage, memory }
    };
    stages(rank, config, components).filter(|&stage| stage == Stage::Load || stage >= first).map(planned).collect()
}

/// Memory of the host of both kinds.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    pinned: u64,
    pageable: u64,
}

impl Bytes {
    fn plus(self, other: Self) -> Self {
        Self { pinned: self.pinned + other.pinned, pageable: self.pageable + other.pageable }
    }

    fn both(self) -> u64 {
        self.pinned + self.pageable
    }

    /// The larger of each.
    fn max(self, other: Self) -> Self {
        Self { pinned: self.pinned.max(other.pinned), pageable: self.pageable.max(other.pageable) }
    }

    /// As much as the larger of both has, and as much page-locked.
    fn larger(self, other: Self) -> Self {
        let (both, pinned) = (self.both().max(other.both()), self.pinned.max(other.pinned));
        Self { pinned, pageable: both - pinned }
    }
}

/// What a component holds of the host's memory.
struct Held {
    stage: Stage,
    weights: Bytes,
    /// While its stage runs.
    beside: Bytes,
    /// The most while it is loaded, with what is on its way.
    loading: Bytes,
}

impl Held {
    fn new(component: &dyn Component, places: &[Place], config: &Config, device: Device, rank: usize) -> Self {
        let (types, on_gpu) = (WeightTypes::of(config), device.is_cuda());
        let (mut weights, mut loading) = (Bytes::default(), Bytes::default());
        for (group, place) in component.groups().iter().zip(places) {
            let waiting = WaitingGroup::new(group, types);
            let bytes = waiting.layout.bytes as u64;
            // One copy for all ranks, of which each counts a part; threads on the CPU have one each.
            let is_shared = on_gpu && component.is_of_all_ranks(config) && place.takes_host_memory();
            let bytes = if is_shared { part_of(bytes, config.split().ranks()) } else { bytes };
            match place {
                // The device that computes is the host itself.
                Place::Resident if on_gpu => {}
                Place::Streamed { waits: Waits::InFile { .. }, .. } => {}
                Place::Streamed { waits: Waits::OnRanks { .. }, .. } if on_gpu => {}
                Place::Streamed { waits: Waits::OnRanks { ranks }, .. } => weights.pageable += part_of(bytes, *ranks),
                Place::Streamed { waits: Waits::Pinned { .. }, .. } if on_gpu => weights.pinned += bytes,
                Place::Resident | Place::Host | Place::Streamed { .. } => weights.pageable += bytes,
            }
            let packing = if waiting.is_packed() { packing::filling_bytes(group, types) as u64 } else { 0 };
            let on_its_way = Bytes { pinned: 0, pageable: packing + passing_bytes(group) };
            loading = loading.larger(weights.plus(on_its_way));
        }
        let from_files = places.iter().any(|place| matches!(place, Place::Streamed { waits: Waits::InFile { .. }, .. }));
        let sums = if from_files { component.groups().iter().map(|group| summed_bytes(group, types)).max().unwrap_or(0) } else { 0 };
        // What computes on the host is unpacked there.
        let of_host = component.groups().iter().zip(places).filter(|(_, place)| **place == Place::Host);
        let room = of_host.map(|(group, _)| WaitingGroup::new(group, types).unpacked_bytes()).max().unwrap_or(0);
        let unpacked = (room + unpacking_bytes(component, config, true)) as u64;
        let (buffers, ring) = bytes_in_passing(component, places, config, rank);
        let beside = if on_gpu {
            let on_host = component.on_host(config, rank);
            Bytes {
                pinned: on_host.pinned_peak_bytes + ring.unwrap_or(0) as u64 + kept_on_host(component, config, rank),
                // What comes from files comes by way of a ring in any case.
                pageable: on_host.peak_bytes.unwrap_or(0) - on_host.pinned_peak_bytes
                    + if from_files && ring.is_none() { RING_BYTES as u64 } else { 0 }
                    + sums
                    + unpacked,
            }
        } else {
            // Everything computes there, from buffers that are there too.
            Bytes {
                pinned: 0,
                pageable: buffers
                    + component.activation_bytes(config, None, rank).unwrap_or(0) as u64
                    + unpacking_bytes(component, config, false) as u64
                    + sums
                    + unpacked,
            }
        };
        Self { stage: component.stage(), weights, beside, loading }
    }
}

/// What a cache keeps on the host.
fn kept_on_host(component: &dyn Component, config: &Config, rank: usize) -> u64 {
    component.kept_between_passes(config, rank).filter(|kept| kept.on_host).map_or(0, |kept| kept.tensors * kept.bytes as u64)
}

/// What LoRAs are added to as `group` is read from its file: its largest such tensor in fp32, and the sum in the type of arithmetic; of two tensors, since parts are read at once
/// that may be of the end of one and of the beginning of the next.
fn summed_bytes(group: &Group, types: WeightTypes) -> u64 {
    if WaitingGroup::new(group, types).is_packed() {
        return 0;
    }
    let each = 4 + types.compute.elt_size_in_bytes() as u64;
    let summed = group.params.iter().filter(|param| param.lora_rank > 0);
    2 * each * summed.map(|param| param.shape.iter().product::<i64>() as u64).max().unwrap_or(0)
}

/// What is on its way of the largest tensor of `group`, a part at a time: as it lies in its file, or as it is drawn from a seed, in fp32 and twice.
fn passing_bytes(group: &Group) -> u64 {
    const MOST: u64 = 128 << 20;
    let numbers = |param: &Param| param.shape.iter().product::<i64>() as u64;
    // What LoRAs are added to is whole in fp32.
    let sums = group.params.iter().filter(|param| param.lora_rank > 0).map(|param| numbers(param) * 4);
    (group.params.iter().map(numbers).max().unwrap_or(0) * 8).min(MOST) + sums.max().unwrap_or(0)
}
