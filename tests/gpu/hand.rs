//! The GPU at hand: a real one where LOWMEM_TEST_DEVICE=cuda, else a virtual card of 8 GB, with the CPU for what has to be computed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use engine_protocol::{GpuProfile, PlanReport, gib};
use lowmem_tests::{built, root};
use tempfile::TempDir;
use virtual_gpu_protocol::environment as virtual_gpu_variable;

/// The card that the virtual GPU stands in for: the smallest that `make test-gpu` is for.
const VIRTUAL: &str = "rtx-4060";

/// What checks run on.
pub(crate) struct Hand {
    is_real: bool,
    /// In place of the user's own: nothing that was calibrated here counts, and what is calibrated is not kept.
    settings: TempDir,
}

/// The end of a command: its exit code, and what it said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Said {
    /// Why a command that should have succeeded did not: its last words.
    pub(crate) fn fault(&self) -> Option<String> {
        (self.code != Some(0)).then(|| format!("exit code {:?}: {}", self.code, self.stderr.trim()))
    }
}

impl Hand {
    pub(crate) fn new() -> Self {
        let is_real = std::env::var("LOWMEM_TEST_DEVICE").is_ok_and(|device| device == "cuda");
        Self { is_real, settings: tempfile::tempdir().expect("a folder") }
    }

    /// Whether it is a real GPU.
    pub(crate) fn is_real(&self) -> bool {
        self.is_real
    }

    /// In words.
    pub(crate) fn title(&self) -> String {
        if self.is_real { "the real GPU at hand".into() } else { format!("a virtual {VIRTUAL}; what has to be computed is, on the CPU") }
    }

    /// The arguments that name it, and what of it may be used.
    pub(crate) fn capped<'a>(&self, budget: &'a str) -> Vec<&'a str> {
        vec!["--gpu", budget, "--device", self.device()]
    }

    /// The arguments that name it.
    pub(crate) fn whole(&self) -> Vec<&'static str> {
        if self.is_real { vec!["--device", "cuda"] } else { vec!["--gpu", VIRTUAL, "--device", "virtual"] }
    }

    /// The arguments that name what computes.
    pub(crate) fn computing(&self) -> [&'static str; 2] {
        ["--device", if self.is_real { "cuda" } else { "cpu" }]
    }

    fn device(&self) -> &'static str {
        if self.is_real { "cuda" } else { "virtual" }
    }

    /// Runs `lowmem`.
    pub(crate) fn lowmem(&self, arguments: &[&str]) -> Said {
        let mut lowmem = lowmem_tests::lowmem();
        lowmem.args(arguments).envs(self.environment());
        lowmem.output().expect("lowmem starts").into()
    }

    /// Why a case cannot be tried: its weights take more of the host's memory than is free. Of the virtual GPU's none take any.
    pub(crate) fn lacks_memory_for(&self, settings: &[&str]) -> Option<String> {
        if !self.is_real {
            return None;
        }
        let plan: PlanReport = serde_json::from_str(&self.lowmem(&[&["plan", "--json"], settings].concat()).stdout).ok()?;
        let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
        let free =
            memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())?
                << 10;
        let needed = plan.host_bytes();
        (needed > free).then(|| format!("its weights take {:.1} GiB of the host's memory, of which {:.1} are free", gib(needed), gib(free)))
    }

    /// Has a program that is linked to libtorch, and is not started by `lowmem`, find the GPU.
    pub(crate) fn give_gpu(&self, command: &mut Command) {
        if self.is_real {
            // Cargo puts the virtual libraries there.
            let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
            let real: Vec<_> = std::env::split_paths(&paths).filter(|path| !path.ends_with("virtual-gpu")).collect();
            let nvidia = root().join(".libtorch/torch").canonicalize().map(|torch| torch.join("../nvidia/cu13/lib"));
            command.env("LD_LIBRARY_PATH", std::env::join_paths(real.into_iter().chain(nvidia.ok())).expect("paths"));
        } else {
            let profile = root().join(format!("sweeps/gpus/{VIRTUAL}.yaml"));
            let profile: GpuProfile = serde_yaml::from_str(&std::fs::read_to_string(profile).expect("a profile")).expect("a profile");
            let profile = serde_json::to_string(&profile).expect("plain data");
            command.env(virtual_gpu_variable::PROFILE, profile).env("LD_PRELOAD", built("libvirtual_gpu.so"));
        }
    }

    /// Where settings of its own are.
    pub(crate) fn settings(&self) -> &Path {
        self.settings.path()
    }

    /// What its environment has beside ours.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 1] {
        [("XDG_CONFIG_HOME", self.settings.path().to_owned())]
    }
}
