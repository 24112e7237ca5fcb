//! What there is on this machine, as its driver, kernel and Python say. It judges nothing; what nobody says is empty.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use engine_protocol::{GpuState, Pcie};
use host_memory::{PageLockLimit, page_lock_limit};
use nvml_wrapper::Nvml;

use crate::children::{Room, last_words};
use crate::gpu_profile::GpuProfiles;
use crate::gpu_watch::state_of;
use crate::host::program_of;
use crate::real_gpu;

/// Prints the versions of PyTorch and cuDNN, without loading either.
const VERSIONS: &str = "\
import importlib.metadata as metadata
def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return ''
print(version('torch'), version('nvidia-cudnn-cu13', 'nvidia-cudnn-cu12'), sep=',')
";

/// What is known of a machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// Its GPUs; or why NVML has none.
    pub(crate) gpus: Vec<GpuFacts>,
    pub(crate) why_no_gpu: Option<String>,
    /// Whether the kernel has NVIDIA's driver.
    pub(crate) has_kernel_driver: bool,
    /// The driver's version, `580.95.05`.
    pub(crate) driver: Option<String>,
    /// The newest CUDA that the driver takes, major and minor.
    pub(crate) cuda: Option<(u32, u32)>,
    /// Why the worker has no PyTorch.
    pub(crate) no_pytorch: Option<String>,
    /// PyTorch and cuDNN of the Python that was named.
    pub(crate) python: Option<PythonFacts>,
    /// What holds page-locking down.
    pub(crate) page_lock: Option<PageLockLimit>,
    pub(crate) ram_bytes: Option<u64>,
    pub(crate) ram_available_bytes: Option<u64>,
    pub(crate) swap_bytes: Option<u64>,
}

/// What is known of a GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GpuFacts {
    pub(crate) title: String,
    pub(crate) memory_bytes: u64,
    pub(crate) free_bytes: u64,
    /// Who uses it, how hot it is, and what holds its clocks down.
    pub(crate) state: GpuState,
    /// The names of those who use it, by process.
    pub(crate) names: Vec<(u32, String)>,
    /// Its link as it is, or as the slot allows it where it is idle: generation and lanes.
    pub(crate) link: Option<(u32, u32)>,
    /// The link that it is made for, where its profile is known.
    pub(crate) own_link: Option<(u32, u32)>,
}

/// What a Python has installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PythonFacts {
    /// As it was named.
    pub(crate) python: String,
    pub(crate) torch: Option<String>,
    pub(crate) cudnn: Option<String>,
}

impl Facts {
    /// Looks at this machine, and at that Python.
    pub(crate) fn here(python: &str) -> Self {
        let found = real_gpu::list();
        let nvml = found.as_ref().ok().and_then(|_| Nvml::init().ok());
        let profiles = GpuProfiles::load().ok();
        let own_link = |title: &str| {
            let profile = profiles.as_ref()?.iter().find(|profile| profile.title == title)?;
            let Pcie { generation, lanes, .. } = &profile.pcie;
            Some((generation.value, lanes.value))
        };
        let (gpus, why_no_gpu) = match found {
            Ok(gpus) => (gpus, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let gpus = gpus.into_iter().map(|gpu| {
            let device = nvml.as_ref().and_then(|nvml| nvml.device_by_uuid(gpu.uuid.as_str()).ok());
            let state = device.as_ref().map(state_of).unwrap_or_default();
            // An idle link slows down to save power: its widest says what the slot gives.
            let link = device.as_ref().and_then(|device| Some((device.max_pcie_link_gen().ok()?, device.current_pcie_link_width().ok()?)));
            GpuFacts {
                names: state.others.iter().filter_map(|other| Some((other.process, program_of(other.process)?))).collect(),
                own_link: own_link(&gpu.title),
                title: gpu.title,
                memory_bytes: gpu.memory_bytes,
                free_bytes: gpu.free_bytes,
                state,
                link,
            }
        });
        Self {
            gpus: gpus.collect(),
            why_no_gpu,
            has_kernel_driver: Path::new("/proc/driver/nvidia/version").exists(),
            driver: nvml.as_ref().and_then(|nvml| nvml.sys_driver_version().ok()),
            cuda: nvml.as_ref().and_then(|nvml| nvml.sys_cuda_driver_version().ok()).and_then(cuda_version),
            no_pytorch: no_pytorch(),
            python: python_facts(python),
            page_lock: page_lock_limit(),
            ram_bytes: host_memory::meminfo_bytes("MemTotal"),
            ram_available_bytes: host_memory::available_bytes(),
            swap_bytes: host_memory::meminfo_bytes("SwapTotal"),
        }
    }
}

/// CUDA 13.1 is 13010.
fn cuda_version(number: i32) -> Option<(u32, u32)> {
    let number = u32::try_from(number).ok()?;
    Some((number / 1000, number % 1000 / 10))
}

fn no_pytorch() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    crate::pytorch::find(own.parent()?).err().map(|error| error.to_string())
}

/// Nothing where there is no such Python, or it says nothing.
fn python_facts(python: &str) -> Option<PythonFacts> {
    let mut command = Command::new(python);
    command.args(["-c", VERSIONS]);
    let (_, [printed, _]) = last_words(&command, Duration::ZERO, Room { lines: 1, bytes: 1 << 10 }).ok()?;
    let (torch, cudnn) = printed.last()?.trim().split_once(',')?;
    let known = |version: &str| (!version.is_empty()).then(|| untrusted::line(version));
    Some(PythonFacts { python: python.to_owned(), torch: known(torch), cudnn: known(cudnn) })
}
