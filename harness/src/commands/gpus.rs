//! `lowmem gpus`.

use engine_protocol::{GpuProfile, gib};
use schemars::JsonSchema;
use serde::Serialize;

use super::table;
use crate::cli::ListArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;
use crate::json;
use crate::real_gpu::{self, RealGpu};

/// What is known of GPUs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpusJson {
    /// Kinds of GPUs, each figure with its source.
    profiles: Vec<GpuProfile>,
    /// Real ones of this machine.
    here: Vec<RealGpu>,
    /// Why there is none.
    why_none: Option<String>,
}

/// Lists the profiles, and the real GPUs that are here.
pub(crate) fn run(arguments: &ListArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    if arguments.json {
        let (here, why_none) = match real_gpu::list() {
            Ok(gpus) => (gpus, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        json::print(&GpusJson { profiles: profiles.iter().cloned().collect(), here, why_none })?;
        return Ok(ExitCode::Done);
    }
    let titles = ["name", "title", "size", "memory GiB", "capability", "SMs", "bf16 TFLOP/s", "memory GB/s", "PCIe"];
    let mut table = table(&titles, &[2, 3, 5, 6, 7]);
    for profile in profiles.iter() {
        table.add_row([
            profile.name.clone(),
            profile.title.clone(),
            format!("{}GB", profile.nominal_gb),
            format!("{:.2}", gib(profile.memory_bytes.value)),
            profile.compute_capability.value.clone(),
            profile.multiprocessors.value.to_string(),
            format!("{:.1}", profile.flops.bf16.value / 1e12),
            format!("{:.0}", profile.memory_bytes_per_sec.value / 1e9),
            format!("{}.0 x{}", profile.pcie.generation.value, profile.pcie.lanes.value),
        ]);
    }
    say!("{table}");
    say!("Each figure's source stands in the profile's file. A size picks the profile of that size with the highest bf16 rate.");
    match real_gpu::list() {
        Ok(gpus) => gpus.iter().for_each(|gpu| {
            say!("Here: {}, {:.2} of {:.2} GiB free (as NVML counts)", gpu.title, gib(gpu.free_bytes), gib(gpu.memory_bytes));
        }),
        Err(why) => say!("There is no real GPU here ({why})."),
    }
    Ok(ExitCode::Done)
}
