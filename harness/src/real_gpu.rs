//! Real GPUs, as NVML finds them.

use nvml_wrapper::Nvml;
use schemars::JsonSchema;
use serde::Serialize;
use virtual_gpu_protocol::environment::PROFILE;

use crate::stand_in;

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct RealGpu {
    /// The name that its driver reports.
    pub(crate) title: String,
    /// What CUDA_VISIBLE_DEVICES takes.
    pub(crate) uuid: String,
    /// All of its memory, as NVML reports it: a little more than CUDA does.
    pub(crate) memory_bytes: u64,
    /// What of it nobody uses now.
    pub(crate) free_bytes: u64,
}

/// The GPUs of this machine, or why there are none.
pub(crate) fn list() -> Result<Vec<RealGpu>, String> {
    // The virtual GPU answers for NVML too: what it says would pass for real.
    // Where another program is in the worker's place, nothing is measured that could.
    if std::env::var_os(PROFILE).is_some() && stand_in::worker().is_none() {
        return Err(format!("{PROFILE} is set: this process is on a virtual GPU"));
    }
    let nvml = Nvml::init().map_err(|error| format!("NVML: {error}"))?;
    let count = nvml.device_count().map_err(|error| format!("NVML: {error}"))?;
    // A device that does not answer is passed over.
    let device = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        Some(RealGpu { title: device.name().ok()?, uuid: device.uuid().ok()?, memory_bytes: memory.total, free_bytes: memory.free })
    };
    let gpus: Vec<_> = (0..count).filter_map(device).collect();
    if gpus.is_empty() { Err("NVML finds no GPU".into()) } else { Ok(gpus) }
}
