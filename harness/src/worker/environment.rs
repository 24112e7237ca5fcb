//! Where the worker is and what a program finds in its environment: which CUDA libraries it meets is decided here and nowhere else.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, process};

use clap::ValueEnum;
use engine_protocol::{Allocator, Device, GpuProfile};
use virtual_gpu_protocol::environment as virtual_gpu_variable;

use crate::error::Error;
use crate::pytorch;
use crate::stand_in;
use crate::testbed::Testbed;

/// Where the observer of PyTorch's operations is, which Python programs load.
const OBSERVER: &str = "LOWMEM_OBSERVER";
/// What libtorch 2.13 configures its allocator by: the name for every kind of device, and the older one.
const ALLOCATOR: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];
/// CUDA's own variable: which devices a program sees, by their numbers or UUIDs.
pub(crate) const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const PRELOAD: &str = "LD_PRELOAD";
/// The folder in which the virtual GPU goes by the names of the CUDA libraries.
const LIBRARIES: &str = "virtual-gpu";

/// Starts workers.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    worker: PathBuf,
    /// Where this program and its libraries are.
    folder: PathBuf,
    /// Where PyTorch is.
    pytorch: pytorch::Folders,
}

impl Launcher {
    /// Finds the worker, and the virtual GPU where it is needed.
    pub(crate) fn find(device: Device) -> Result<Self, Error> {
        let folder = own_folder()?;
        let replaced = stand_in::worker();
        let worker = replaced.clone().unwrap_or_else(|| folder.join("lowmem-worker"));
        let mut launcher = Self { worker, folder, pytorch: pytorch::Folders::default() };
        let mut needed = vec![launcher.worker.clone()];
        // Another program in the worker's place brings its own device.
        if device == Device::Virtual && replaced.is_none() {
            needed.push(virtual_gpu(&launcher.folder));
        }
        needed.iter().try_for_each(|path| must_be_built(path))?;
        if replaced.is_none() {
            launcher.pytorch = pytorch::find(&launcher.folder)?;
        }
        Ok(launcher)
    }

    /// Whether another program is in the worker's place.
    pub(crate) fn is_replaced(&self) -> bool {
        stand_in::worker().is_some()
    }

    /// The worker's command for work on the CPU, for which libtorch needs the CUDA libraries too.
    pub(super) fn host_command(&self) -> Command {
        let mut command = Command::new(&self.worker);
        command.env_remove(virtual_gpu_variable::PROFILE).env(LIBRARY_PATH, self.library_path());
        command
    }

    /// The worker's command with its environment.
    pub(super) fn command(&self, testbed: &Testbed, allocator: Allocator, report: &Path) -> Result<Command, Error> {
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
        match testbed.device {
            Device::Virtual => {
                let profile = testbed.profile.as_ref().ok_or_else(|| Error::Fault("the virtual GPU has no profile".into()))?;
                give_virtual_gpu(&mut command, &self.folder, profile, report)?;
                // It names the real GPUs that may be seen.
                command.env_remove(VISIBLE_DEVICES);
                // Nothing is computed, so more threads only get in each other's way.
                command.env("OMP_NUM_THREADS", "1");
            }
            Device::Cpu => {}
            Device::Cuda => {
                if let Some(uuid) = &testbed.uuid {
                    command.env(VISIBLE_DEVICES, uuid);
                }
                // `cargo run` and our own make file put the virtual libraries there.
                command.env(LIBRARY_PATH, self.library_path_without_ours());
            }
        }
        Ok(command)
    }

    fn library_path(&self) -> OsString {
        join([self.folder.join(LIBRARIES)].into_iter().chain(self.pytorch.torch.clone()).chain(split(env::var_os(LIBRARY_PATH))))
    }

    fn library_path_without_ours(&self) -> OsString {
        let pytorch::Folders { torch, cuda } = self.pytorch.clone();
        join(torch.into_iter().chain(cuda).chain(split(env::var_os(LIBRARY_PATH))).filter(|path| !path.ends_with(LIBRARIES)))
    }
}

/// When events of the virtual GPU count as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventOrder {
    /// When the virtual clock says so
    Clock,
    /// At once: the least that memory can be held
    Eager,
    /// When the program has waited for them: the longest that memory can be held
    Lazy,
}

impl EventOrder {
    /// As the virtual GPU is told.
    fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Eager => "eager",
            Self::Lazy => "lazy",
        }
    }
}

/// How `lowmem on` wants the virtual GPU to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guise {
    /// How many devices there are.
    pub(crate) devices: u16,
    /// It goes by the real GPU's name.
    pub(crate) masks_name: bool,
    /// What it does not support fails for good.
    pub(crate) is_strict: bool,
    /// It goes on where its memory is at an end.
    pub(crate) goes_beyond: bool,
    /// When events count as passed.
    pub(crate) events: EventOrder,
}

/// Sees to it that `command`, any program at all, and all that it starts find the virtual GPU of this profile wherever they look for CUDA. Each
/// process that uses it leaves a report in the folder `reports`.
pub(crate) fn onto_virtual_gpu(command: &mut Command, profile: &GpuProfile, guise: Guise, reports: &Path) -> Result<(), Error> {
    let folder = own_folder()?;
    must_be_built(&virtual_gpu(&folder))?;
    give_virtual_gpu(command, &folder, profile, reports)?;
    command.env(LIBRARY_PATH, library_path(&folder)).env(virtual_gpu_variable::COUNT, guise.devices.to_string());
    command.env(virtual_gpu_variable::EVENTS, guise.events.name()).env(OBSERVER, folder.join("liblowmem_observer.so"));
    for (name, wanted) in [
        (virtual_gpu_variable::MASK_NAME, guise.masks_name),
        (virtual_gpu_variable::STRICT, guise.is_strict),
        (virtual_gpu_variable::BEYOND, guise.goes_beyond),
    ] {
        command.env(name, if wanted { "1" } else { "0" });
    }
    Ok(())
}

/// Has the loader of `command`, which was led to the virtual GPU, look into that folder first.
pub(crate) fn put_first(command: &mut Command, folder: &Path) {
    let path = command.get_envs().find(|(name, _)| *name == LIBRARY_PATH).and_then(|(_, value)| value).map(OsStr::to_owned);
    command.env(LIBRARY_PATH, join([folder.to_owned()].into_iter().chain(split(path))));
}

/// What makes a virtual GPU of the shared object in that folder, and puts it before every other library.
fn give_virtual_gpu(command: &mut Command, folder: &Path, profile: &GpuProfile, report: &Path) -> Result<(), Error> {
    let profile = serde_json::to_string(profile).map_err(|error| Error::Fault(format!("the GPU profile is no JSON: {error}")))?;
    command.env(virtual_gpu_variable::PROFILE, profile).env(virtual_gpu_variable::REPORT, report).env(virtual_gpu_variable::QUIET, "1");
    let library = virtual_gpu(folder);
    if library.is_file() {
        // The loader takes colons and spaces between names; what was to be preloaded anyway still is.
        let others = env::var_os(PRELOAD).filter(|others| !others.is_empty());
        let names = [library.into_os_string()].into_iter().chain(others).collect::<Vec<_>>();
        command.env(PRELOAD, names.join(OsStr::new(":")));
    }
    Ok(())
}

/// Where this program and its libraries are.
fn own_folder() -> Result<PathBuf, Error> {
    let own = env::current_exe().map_err(|error| Error::Fault(format!("cannot tell where this program is: {error}")))?;
    Ok(for_the_loader(own.parent().map(Path::to_owned).unwrap_or_default()))
}

/// The folder by a name that the loader takes: it splits what it is given at colons, semicolons and white space. One that has some goes by its place among this
/// process's open files, for as long as the process lives.
fn for_the_loader(folder: PathBuf) -> PathBuf {
    static OPENED: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());
    let splits = |byte: &u8| byte.is_ascii_whitespace() || b":;".contains(byte);
    if !folder.as_os_str().as_encoded_bytes().iter().any(splits) {
        return folder;
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let number = match opened.entry(folder.clone()) {
        Entry::Occupied(known) => known.get().as_raw_fd(),
        // One that cannot be opened is of no use by any name.
        Entry::Vacant(place) => match File::open(&folder) {
            Ok(file) => place.insert(file).as_raw_fd(),
            Err(_) => return folder,
        },
    };
    PathBuf::from(format!("/proc/{}/fd/{number}", process::id()))
}

fn must_be_built(path: &Path) -> Result<(), Error> {
    if path.is_file() {
        Ok(())
    } else {
        Err(Error::Fault(format!("{} is not there: run `make build`, or unpack the archive again", path.display())))
    }
}

fn virtual_gpu(folder: &Path) -> PathBuf {
    folder.join("libvirtual_gpu.so")
}

fn library_path(folder: &Path) -> OsString {
    let ours = [folder.join(LIBRARIES)].into_iter();
    join(ours.chain(split(env::var_os(LIBRARY_PATH))))
}

fn split(path: Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<_> = env::split_paths(&path.unwrap_or_default()).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.into_iter()
}

fn join(folders: impl Iterator<Item = PathBuf>) -> OsString {
    // What could not be joined has no colon any more.
    env::join_paths(folders.map(for_the_loader)).unwrap_or_default()
}
