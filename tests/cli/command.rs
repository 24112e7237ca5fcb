//! The `lowmem` that was built with these tests, and scripts to put in its worker's place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use engine_protocol::{Event, Secs, Stage, StageMemory, StageTime, Transfers};
use lowmem_tests::root;
use serde_json::Value;
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

/// What every script begins with: the request, and words for the events, whose lines are in a file beside it.
const PRELUDE: &str = r#"#!/bin/sh
request=$(cat)
say() { sed -n "s/^$*:	//p" "$0.events"; }
begun() { say begun $1; }
progressed() { say progressed $1; }
ended() { say ended $1 $2; }
timed() { say timed $1; }
stepped() { say stepped; }
finished() { say finished; exit 0; }
oom() { say oom $1 ${2:-20}; exit 0; }
failed() { say failed $1; exit 1; }
say started
"#;

/// The lines of all events that a script may say, each after what the script calls it.
fn events() -> String {
    let memory = |gib: u64| StageMemory {
        allocated_bytes: 1,
        reserved_bytes: 2,
        peak_allocated_bytes: gib << 30,
        peak_reserved_bytes: gib << 30,
        peak_device_bytes: (gib + 1) << 30,
        parts: None,
    };
    let transfers = Transfers { h2d_bytes: 1, d2h_bytes: 2, not_page_locked: None };
    let started = Event::Started { device_name: "Virtual".into(), torch_version: "2.13.0".into() };
    let mut events = vec![("started".to_owned(), started), ("finished".to_owned(), Event::Finished { transfers: Some(transfers) })];
    events.push(("stepped".to_owned(), Event::StepEnded { parts: None, secs: Some(Secs::measured(0.5)), reused: false, course: None }));
    for stage in Stage::ALL {
        let ended = |time, memory| Event::StageEnded {
            stage,
            time,
            memory,
            host: None,
            attention: Vec::new(),
            operations: Vec::new(),
            course: None,
        };
        let time = StageTime { secs: Secs::measured(1.5), copy_stall: None, exchange: None, waiting: None, work: None };
        let oom = |gib| Event::OutOfMemory {
            stage,
            requested_bytes: Some(30 << 30),
            memory: Some(memory(gib)),
            parts_at_failure: None,
            course: None,
            message: "tried to allocate".into(),
        };
        let mut add = |word: &str, event| events.push((format!("{word} {}", stage.name()), event));
        add("begun", Event::StageBegun { stage });
        add("progressed", Event::Progress { stage, done: 1, total: 1 });
        add("timed", ended(Some(time), None));
        add("failed", Event::Failed { stage: Some(stage), message: "no such kernel".into() });
        for gib in 1..=20 {
            events.push((format!("ended {} {gib}", stage.name()), ended(None, Some(memory(gib)))));
            events.push((format!("oom {} {gib}", stage.name()), oom(gib)));
        }
    }
    events.iter().map(|(words, event)| format!("{words}:\t{}\n", serde_json::to_string(event).expect("an event is JSON"))).collect()
}

/// A folder of a test's own.
pub(crate) struct Place {
    folder: PathBuf,
    _around: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let around = tempfile::tempdir().expect("a temporary folder");
        Self { folder: around.path().to_owned(), _around: around }
    }

    /// The same with a folder of that name in it.
    pub(crate) fn inside(self, name: &str) -> Self {
        let folder = self.path(name);
        fs::create_dir(&folder).expect("a folder");
        Self { folder, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
        self.file("worker.sh.events", &events());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    /// A `lowmem` that runs in this folder with that worker.
    pub(crate) fn lowmem_with(&self, script: &str) -> Command {
        let mut command = lowmem();
        command.env("LOWMEM_WORKER", self.worker(script)).current_dir(&self.folder);
        command
    }

    /// `lowmem autotune` with these words, on the virtual GPU, which leaves its run here.
    pub(crate) fn autotune(&self, run: &str, words: &str) -> Command {
        let mut command = lowmem();
        command.args(["autotune", "--device", "virtual", "--out"]).arg(self.path(run)).args(words.split(' '));
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

pub(crate) fn read_rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).expect("results.csv");
    let header = reader.headers().expect("a header").clone();
    let row = |cells: csv::StringRecord| Row(header.iter().map(str::to_owned).zip(cells.iter().map(str::to_owned)).collect());
    reader.records().map(|cells| row(cells.expect("a row"))).collect()
}

/// The `lowmem` beside this test: both are built into the same folder.
pub(crate) fn lowmem() -> Command {
    let mut command = Command::from_std(lowmem_tests::lowmem());
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

/// What a command printed with `--json`, which is as the command's schema in `docs/schemas` says, and has nothing that stands in none.
pub(crate) fn json(assert: &assert_cmd::assert::Assert, command: &str) -> Value {
    as_its_schema_says(&stdout(assert), command)
}

/// A text that is JSON as the schema of that command says, as a value.
pub(crate) fn as_its_schema_says(text: &str, command: &str) -> Value {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"));
    let path = root().join(schema_path(command));
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a schema")).expect("JSON");
    allow_nothing_else(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{command}: {errors:#?}");
    value
}

/// Where the schema of what a command prints lies.
pub(crate) fn schema_path(command: &str) -> String {
    format!("docs/schemas/{}.json", command.replace(" --", "-").replace(' ', "-").to_lowercase())
}

/// A newer version may say more; this one says what stands in its schemas.
fn allow_nothing_else(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".into(), false.into());
            }
            fields.values_mut().for_each(allow_nothing_else);
        }
        Value::Array(items) => items.iter_mut().for_each(allow_nothing_else),
        _ => {}
    }
}

/// What a command printed on standard error.
pub(crate) fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}
