//! The `lowmem` that was built with these tests, and scripts to put in its worker's place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

/// A worker that answers: level 0 runs out in denoise, the others fit, each in less than the one before.
pub(crate) const ANSWERS: &str = r#"
begun load
ended load 1
begun denoise
case "$request" in *'"low_mem_level":0'*) oom denoise ;; esac
case "$request" in
    *'"low_mem_level":1'*) ended denoise 20 ;;
    *'"low_mem_level":2'*) ended denoise 10 ;;
    *) ended denoise 5 ;;
esac
finished
"#;

/// What every script begins with: the request, and words for the events.
const PRELUDE: &str = r#"#!/bin/sh
request=$(cat)
gib=1073741824
memory() {
    peak=$(($1 * gib))
    printf '{"allocated_bytes":1,"reserved_bytes":2,"peak_allocated_bytes":%s,"peak_reserved_bytes":%s,"peak_device_bytes":%s}' $peak $peak $((peak + gib))
}
begun() { printf '{"event":"stage_begun","stage":"%s"}\n' $1; }
ended() { printf '{"event":"stage_ended","stage":"%s","secs":null,"memory":%s}\n' $1 "$(memory $2)"; }
finished() {
    echo '{"event":"finished","transfers":{"h2d_bytes":1,"d2h_bytes":2,"host_pinned_peak_bytes":3}}'
    exit 0
}
oom() {
    printf '{"event":"out_of_memory","stage":"%s","requested_bytes":%s,"memory":%s,"message":"tried to allocate"}\n' $1 $((30 * gib)) "$(memory 20)"
    exit 0
}
echo '{"event":"started","device_name":"Virtual","torch_version":"2.13.0"}'
"#;

/// A folder of a test's own.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the file");
        path
    }

    /// Writes a worker: the prelude and then `script`.
    pub(crate) fn worker(&self, script: &str) -> PathBuf {
        let path = self.file("worker.sh", &format!("{PRELUDE}{script}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    /// A `lowmem` that runs in this folder with that worker.
    pub(crate) fn lowmem_with(&self, script: &str) -> Command {
        let mut command = lowmem();
        command.env("LOWMEM_WORKER", self.worker(script)).current_dir(self.0.path());
        command
    }

    /// The rows of a run's `results.csv`, as maps from column to cell.
    pub(crate) fn rows(&self, run: &str) -> Vec<Row> {
        read_rows(&self.path(run).join("results.csv"))
    }
}

/// A row of `results.csv`.
pub(crate) struct Row(Vec<(String, String)>);

impl std::ops::Index<&str> for Row {
    type Output = str;

    fn index(&self, column: &str) -> &str {
        let cell = self.0.iter().find(|(name, _)| name == column);
        &cell.unwrap_or_else(|| panic!("no column {column}")).1
    }
}

impl Row {
    /// A column of bytes.
    pub(crate) fn bytes(&self, column: &str) -> u64 {
        self[column].parse().unwrap_or_else(|_| panic!("{column} of {} is `{}`", &self["case"], &self[column]))
    }
}

fn read_rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).expect("results.csv");
    let header = reader.headers().expect("a header").clone();
    let row = |cells: csv::StringRecord| Row(header.iter().map(str::to_owned).zip(cells.iter().map(str::to_owned)).collect());
    reader.records().map(|cells| row(cells.expect("a row"))).collect()
}

/// The `lowmem` beside this test: both are built into the same folder.
pub(crate) fn lowmem() -> Command {
    let path = executable("lowmem");
    assert!(path.is_file(), "{} is not built: run the tests with `make test`", path.display());
    let mut command = Command::new(path);
    // No test shall meet a real GPU, or a worker that was set outside.
    command.env_remove("LOWMEM_WORKER").env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// An executable of this build.
pub(crate) fn executable(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    own.ancestors().nth(2).expect("target/PROFILE").join(name)
}

/// What a command printed on standard output.
pub(crate) fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

/// What a command printed on standard error.
pub(crate) fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}
