//! Sweeps through the command that people use.

use std::path::{Path, PathBuf};
use std::process::Output;

use reports::Run;
use tempfile::TempDir;

use crate::lowmem;

/// The folder of a sweep that is over, gone when dropped.
pub struct Swept(TempDir);

impl Swept {
    /// Runs `definition` on `device` as `gpu`, which may be followed by its slot (`rtx-4090 --pcie 3x8`), with these variables in the environment. Every case
    /// ends as an answer.
    ///
    /// # Panics
    /// When it does not.
    pub fn new(definition: &str, gpu: &str, device: &str, environment: &[(&str, PathBuf)]) -> Self {
        let arguments: Vec<&str> = ["--gpu"].into_iter().chain(gpu.split(' ')).chain(["--device", device]).collect();
        let (swept, run) = Self::try_new(definition, &arguments, environment);
        assert!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        swept
    }

    /// Runs `definition` with these arguments, and gives what came of the command too.
    ///
    /// # Panics
    /// When `lowmem` does not start.
    pub fn try_new(definition: &str, arguments: &[&str], environment: &[(&str, PathBuf)]) -> (Self, Output) {
        let swept = Self(tempfile::tempdir().expect("a folder"));
        let file = swept.0.path().join("sweep.yaml");
        std::fs::write(&file, definition).expect("written");
        let mut lowmem = lowmem();
        lowmem.arg("sweep").arg(&file).args(arguments).arg("--out").arg(swept.folder());
        let run = lowmem.envs(environment.iter().cloned()).output().expect("lowmem starts");
        (swept, run)
    }

    /// A file of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The run, its records in the order of its cases.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn run(&self) -> Run {
        reports::load(&self.folder()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn folder(&self) -> PathBuf {
        Path::new(self.0.path()).join("run")
    }
}
