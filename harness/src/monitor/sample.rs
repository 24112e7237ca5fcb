//! A look at all GPUs at once. What NVML does not answer is empty.

use std::collections::HashMap;

use engine_protocol::Throttle;
use nvml_wrapper::{Device, Nvml};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::gpu_watch::{processes, sm_clock, temperature, throttles};
use crate::host::program_of;
use crate::real_gpu::{self, RealGpu};

/// The GPUs at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Sample {
    /// When, as RFC 3339 has it, in UTC.
    pub(crate) time: String,
    /// Each GPU, in NVML's order.
    pub(crate) gpus: Vec<GpuSample>,
}

/// A GPU at one moment. What NVML does not answer is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct GpuSample {
    /// Its number, as NVML counts.
    pub(crate) gpu: u32,
    /// The name that its driver reports.
    pub(crate) name: String,
    /// What CUDA_VISIBLE_DEVICES takes.
    pub(crate) uuid: String,
    /// Memory in use, by whomever.
    pub(crate) memory_used_bytes: Option<u64>,
    /// All of its memory.
    pub(crate) memory_total_bytes: Option<u64>,
    /// The most in use of all samples so far.
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Share of the time in which a kernel ran, of the driver's last period.
    pub(crate) utilization_percent: Option<u32>,
    /// In degrees Celsius.
    pub(crate) temperature_c: Option<u32>,
    /// What it draws.
    pub(crate) power_watts: Option<f64>,
    /// The clock of its multiprocessors.
    pub(crate) sm_clock_mhz: Option<u32>,
    /// What holds its clocks down; an empty list where nothing does.
    pub(crate) throttled_by: Option<Vec<Throttle>>,
    /// Who uses it, who holds most first.
    pub(crate) processes: Option<Vec<ProcessSample>>,
    /// Whether its memory in use is at what `--alarm` says, or above; null without it.
    pub(crate) alarm: Option<bool>,
}

/// A process on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ProcessSample {
    /// Its id, as the driver knows it.
    pub(crate) process: u32,
    /// Its program, where this machine shows it.
    pub(crate) name: Option<String>,
    /// What it holds.
    pub(crate) memory_bytes: Option<u64>,
}

/// Looks at all GPUs, time and again.
#[derive(Debug)]
pub(crate) struct Monitor {
    nvml: Nvml,
    gpus: Vec<RealGpu>,
    peaks: HashMap<String, u64>,
}

impl Monitor {
    /// Of this machine's GPUs; a wrong input where there are none.
    pub(crate) fn begin() -> Result<Self, Error> {
        let none = |why: String| {
            Error::input(format!(
                "no real GPU here ({why}): there is nothing to watch. `lowmem doctor` says what is missing, and `lowmem sweep --serve` shows a run on \
                 the virtual GPU"
            ))
        };
        let gpus = real_gpu::list().map_err(none)?;
        let nvml = Nvml::init().map_err(|error| none(format!("NVML: {error}")))?;
        Ok(Self { nvml, gpus, peaks: HashMap::new() })
    }

    /// The GPUs now. One that answers no more stays in the list, with nothing known.
    pub(crate) fn sample(&mut self) -> Sample {
        let Self { nvml, gpus, peaks } = self;
        let look = |(number, gpu): (u32, &RealGpu)| {
            let device = nvml.device_by_uuid(gpu.uuid.as_str()).ok();
            let mut sample = device.map(|device| answers(&device)).unwrap_or_default();
            if let Some(used) = sample.memory_used_bytes {
                let peak = peaks.entry(gpu.uuid.clone()).or_default();
                *peak = used.max(*peak);
            }
            (sample.name, sample.uuid) = (gpu.title.clone(), gpu.uuid.clone());
            (sample.gpu, sample.memory_peak_bytes) = (number, peaks.get(&gpu.uuid).copied());
            sample
        };
        Sample { time: now(), gpus: (0..).zip(gpus.iter()).map(look).collect() }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// What a GPU answers.
fn answers(device: &Device<'_>) -> GpuSample {
    let memory = device.memory_info().ok();
    let named = |process: engine_protocol::GpuProcess| ProcessSample {
        process: process.process,
        name: program_of(process.process),
        memory_bytes: process.bytes,
    };
    let processes = processes(device).map(|found| {
        let mut found: Vec<_> = found.into_iter().map(named).collect();
        found.sort_by_key(|process| std::cmp::Reverse(process.memory_bytes));
        found
    });
    GpuSample {
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        temperature_c: temperature(device),
        power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        sm_clock_mhz: sm_clock(device),
        throttled_by: throttles(device),
        processes,
        ..GpuSample::default()
    }
}
