//! A real GPU as NVML sees it, before a case and while it runs: who else uses it, how hot it is, how fast its clocks are, and what holds them down.

use engine_protocol::{Event, GpuProcess, GpuState, Throttle};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

/// Watches one GPU during one case.
#[derive(Debug)]
pub(crate) struct GpuWatch {
    nvml: Nvml,
    uuid: String,
    state: GpuState,
}

impl GpuWatch {
    /// Looks at the GPU now, before the case begins. Nothing where NVML does not answer: the case runs all the same.
    pub(crate) fn begin(uuid: &str) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let state = state_of(&nvml.device_by_uuid(uuid).ok()?);
        Some(Self { nvml, uuid: uuid.to_owned(), state })
    }

    /// Looks again where a sampler step ends: the next one begins at once, so the GPU is at work.
    pub(crate) fn see(&mut self, event: &Event) {
        if !matches!(event, Event::StepEnded { .. }) {
            return;
        }
        let Ok(device) = self.nvml.device_by_uuid(self.uuid.as_str()) else { return };
        let state = &mut self.state;
        state.highest_temperature_c = state.highest_temperature_c.max(temperature(&device));
        let clocks = [state.lowest_sm_clock_mhz, sm_clock(&device)];
        state.lowest_sm_clock_mhz = clocks.into_iter().flatten().min();
        state.throttled_by.extend(throttles(&device).unwrap_or_default());
        state.throttled_by.sort();
        state.throttled_by.dedup();
    }

    /// What was seen.
    pub(crate) fn end(self) -> GpuState {
        self.state
    }
}

/// What a GPU is like now.
pub(crate) fn state_of(device: &Device<'_>) -> GpuState {
    let memory = device.memory_info().ok();
    GpuState {
        temperature_c: temperature(device),
        sm_clock_mhz: sm_clock(device),
        held_bytes: memory.as_ref().map(|memory| memory.used),
        memory_bytes: memory.as_ref().map(|memory| memory.total),
        others: processes(device).unwrap_or_default(),
        highest_temperature_c: None,
        lowest_sm_clock_mhz: None,
        throttled_by: throttles(device).unwrap_or_default(),
    }
}

/// Who uses a GPU; nothing where NVML does not answer.
pub(crate) fn processes(device: &Device<'_>) -> Option<Vec<GpuProcess>> {
    let lists = [device.running_compute_processes(), device.running_graphics_processes()];
    let known: Vec<_> = lists.into_iter().filter_map(Result::ok).collect();
    let has_answer = !known.is_empty();
    let mut found: Vec<GpuProcess> = known.into_iter().flatten().map(|process| told(&process)).collect();
    // A program that computes and draws is in both lists.
    found.sort_by_key(|process| process.process);
    found.dedup_by_key(|process| process.process);
    has_answer.then_some(found)
}

fn told(process: &ProcessInfo) -> GpuProcess {
    let bytes = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    GpuProcess { process: process.pid, bytes }
}

pub(crate) fn temperature(device: &Device<'_>) -> Option<u32> {
    device.temperature(TemperatureSensor::Gpu).ok()
}

pub(crate) fn sm_clock(device: &Device<'_>) -> Option<u32> {
    device.clock_info(Clock::SM).ok()
}

/// What holds the clocks down now. That the GPU is idle, and clocks that its owner set, are no such reasons. Nothing where NVML does not answer.
pub(crate) fn throttles(device: &Device<'_>) -> Option<Vec<Throttle>> {
    let reasons = device.current_throttle_reasons().ok()?;
    let heat = ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    let known = [
        (ThrottleReasons::SW_POWER_CAP, Throttle::PowerLimit),
        (heat, Throttle::Heat),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::PowerSupply),
        (ThrottleReasons::HW_SLOWDOWN, Throttle::Hardware),
    ];
    let mut found: Vec<_> = known.into_iter().filter(|(bits, _)| reasons.intersects(*bits)).map(|(_, throttle)| throttle).collect();
    // Heat and the power supply are hardware's reasons too.
    if found.iter().any(|throttle| matches!(throttle, Throttle::Heat | Throttle::PowerSupply)) {
        found.retain(|throttle| *throttle != Throttle::Hardware);
    }
    Some(found)
}
