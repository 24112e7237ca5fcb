//! Sweeps through the command that people use.

use std::path::PathBuf;
use std::process::Command;

use engine_protocol::RunRecord;
use lowmem_tests::built;
use tempfile::TempDir;

/// Large enough for level 0 of each model.
const GPU: &str = "h100";

/// The folder of a sweep that is over, gone when dropped.
pub(crate) struct Swept(TempDir);

impl Swept {
    /// Runs `definition` on `device` as `gpu`, which may be followed by its slot (`rtx-4090 --pcie 3x8`), with these variables in the environment. Every case ends as an answer.
    pub(crate) fn new(definition: &str, gpu: &str, device: &str, environment: &[(&str, PathBuf)]) -> Self {
        let swept = Self(tempfile::tempdir().expect("a folder"));
        let file = swept.0.path().join("sweep.yaml");
        std::fs::write(&file, definition).expect("written");
        let mut lowmem = Command::new(built("lowmem"));
        lowmem
            .arg("sweep")
            .arg(&file)
            .arg("--gpu")
            .args(gpu.split(' '))
            .args(["--device", device, "--out"])
            .arg(swept.0.path().join("run"));
        let run = lowmem.envs(environment.iter().cloned()).output().expect("lowmem starts");
        assert!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        swept
    }

    /// A file of the run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("run").join(name)
    }
}

/// The records of a sweep, on a GPU large enough for level 0 of each model.
pub(crate) fn sweep(definition: &str) -> Vec<RunRecord> {
    sweep_on(GPU, definition)
}

/// The records of a sweep, in the order of its cases. Always on the virtual GPU: a real one's peaks depend on its kernels.
pub(crate) fn sweep_on(gpu: &str, definition: &str) -> Vec<RunRecord> {
    let swept = Swept::new(definition, gpu, "virtual", &[]);
    let text = std::fs::read_to_string(swept.path("records.jsonl")).expect("records");
    let mut records: Vec<RunRecord> = text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(swept.path("manifest.json")).expect("a manifest")).expect("JSON");
    let cases = manifest["cases"].as_array().expect("cases");
    records.sort_by_key(|record| cases.iter().position(|case| *case == *record.case));
    records
}
