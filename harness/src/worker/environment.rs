//! Where the worker is and what it finds in its environment: which CUDA libraries it meets is decided here and nowhere else.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use engine_protocol::{Allocator, Device};
use serde::Deserialize;

use crate::error::Error;
use crate::target::Target;

/// Names the worker's executable, for tests that put another program in its place.
const WORKER: &str = "LOWMEM_WORKER";
/// The virtual GPU's profile as JSON: what makes the shared object a virtual GPU.
const VIRTUAL_GPU: &str = "LOWMEM_VIRTUAL_GPU";
/// Where the virtual GPU writes what was asked of it, when its process ends.
const VIRTUAL_GPU_REPORT: &str = "LOWMEM_VIRTUAL_GPU_REPORT";
/// Keeps the virtual GPU's banner off the screen: the harness says itself what it is.
const VIRTUAL_GPU_QUIET: &str = "LOWMEM_VIRTUAL_GPU_QUIET";
/// What libtorch 2.13 configures its allocator by: the name for every kind of device, and the older one.
const ALLOCATOR: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What the virtual GPU wrote when the worker ended. Empty where it wrote nothing: a real GPU, or a worker that was killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct DeviceReport {
    /// Calls that are not supported, by name, with how often each was made.
    pub(super) unsupported: BTreeMap<String, u64>,
    /// The most pinned host memory at once.
    pub(super) pinned_peak_bytes: Option<u64>,
}

/// Starts workers.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    worker: PathBuf,
    /// Where this program and its libraries are.
    folder: PathBuf,
}

impl Launcher {
    /// Finds the worker, and the virtual GPU where it is needed.
    pub(crate) fn find(device: Device) -> Result<Self, Error> {
        let own = env::current_exe().map_err(|error| Error::Fault(format!("cannot tell where this program is: {error}")))?;
        let folder = own.parent().map(Path::to_owned).unwrap_or_default();
        let replaced = env::var_os(WORKER).map(PathBuf::from);
        let worker = replaced.clone().unwrap_or_else(|| folder.join("lowmem-worker"));
        let launcher = Self { worker, folder };
        let mut needed = vec![launcher.worker.clone()];
        // Another program in the worker's place brings its own device.
        if device == Device::Virtual && replaced.is_none() {
            needed.push(launcher.virtual_gpu());
        }
        match needed.into_iter().find(|path| !path.is_file()) {
            Some(missing) => Err(Error::Fault(format!("{} is not there: run `make build`", missing.display()))),
            None => Ok(launcher),
        }
    }

    /// The file that the virtual GPU's report goes to, gone when dropped.
    pub(super) fn report_file(&self) -> Result<tempfile::NamedTempFile, Error> {
        tempfile::NamedTempFile::with_prefix("lowmem-").map_err(|error| Error::Fault(format!("no temporary file: {error}")))
    }

    /// The worker's command for work on the CPU, for which libtorch needs the CUDA libraries too.
    pub(super) fn host_command(&self) -> Command {
        let mut command = Command::new(&self.worker);
        command.env_remove(VIRTUAL_GPU).env(LIBRARY_PATH, self.library_path());
        command
    }

    /// The worker's command with its environment.
    pub(super) fn command(&self, target: &Target, allocator: Allocator, report: &Path) -> Result<Command, Error> {
        let mut command = self.host_command();
        // libtorch reads this as it is loaded. What the user has there would be in no record.
        for name in ALLOCATOR {
            command.env_remove(name);
        }
        let setting = match allocator {
            Allocator::Native => None,
            Allocator::ExpandableSegments => Some("expandable_segments:True"),
            Allocator::CudaMallocAsync => Some("backend:cudaMallocAsync"),
        };
        if let Some(setting) = setting {
            command.env(ALLOCATOR[0], setting);
        }
        match target.device {
            Device::Virtual => {
                let profile = target.profile.as_ref().ok_or_else(|| Error::Fault("the virtual GPU has no profile".into()))?;
                let profile =
                    serde_json::to_string(profile).map_err(|error| Error::Fault(format!("the GPU profile is no JSON: {error}")))?;
                command.env(VIRTUAL_GPU, profile).env(VIRTUAL_GPU_REPORT, report).env(VIRTUAL_GPU_QUIET, "1");
                if self.virtual_gpu().is_file() {
                    command.env("LD_PRELOAD", self.virtual_gpu());
                }
                // Nothing is computed, so more threads only get in each other's way.
                command.env("OMP_NUM_THREADS", "1");
            }
            Device::Cpu => {}
            Device::Cuda => {
                if let Some(uuid) = &target.uuid {
                    command.env("CUDA_VISIBLE_DEVICES", uuid);
                }
                // `cargo run` and our own make file put the virtual libraries there.
                command.env(LIBRARY_PATH, self.library_path_without_ours());
            }
        }
        Ok(command)
    }

    fn virtual_gpu(&self) -> PathBuf {
        self.folder.join("libvirtual_gpu.so")
    }

    fn library_path(&self) -> OsString {
        let ours = [self.folder.join("virtual-gpu")].into_iter();
        join(ours.chain(split(env::var_os(LIBRARY_PATH))))
    }

    fn library_path_without_ours(&self) -> OsString {
        join(split(env::var_os(LIBRARY_PATH)).filter(|path| !path.ends_with("virtual-gpu")))
    }
}

/// Reads what the virtual GPU wrote; nothing, where it wrote nothing that can be read.
pub(super) fn read_report(path: &Path) -> DeviceReport {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn split(path: Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<_> = env::split_paths(&path.unwrap_or_default()).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.into_iter()
}

fn join(folders: impl Iterator<Item = PathBuf>) -> OsString {
    // What was split at colons has none.
    env::join_paths(folders).unwrap_or_default()
}
