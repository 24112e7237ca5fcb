//! Ctrl-C: workers end, what is recorded stays, and the way on is said.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

use crate::command::{Place, executable};

/// A worker that answers at level 0 and else says its process's id into the pipe `begun`, and hangs.
const HANGS: &str = r#"case "$request" in *'"low_mem_level":0'*) finished ;; esac
echo $$ > begun
sleep 600
"#;

fn signal(name: &str, id: &str) -> bool {
    let status = Command::new("kill").args([name, id]).stderr(Stdio::null()).status();
    status.expect("kill").success()
}

#[test]
fn an_interrupted_sweep_leaves_no_worker_and_goes_on_later() {
    let place = Place::new();
    let worker = place.worker(HANGS);
    assert!(Command::new("mkfifo").arg(place.path("begun")).status().expect("mkfifo").success());
    let arguments = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--jobs", "1", "attn_type=sdpa"];
    let lowmem = Command::new(executable("lowmem"))
        .args(arguments)
        .env("LOWMEM_WORKER", worker)
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lowmem");
    let mut worker = String::new();
    // Opening waits for the worker, reading for its word.
    File::open(place.path("begun")).expect("the pipe").read_to_string(&mut worker).expect("the worker's id");
    assert!(signal("-INT", &lowmem.id().to_string()));
    let output = lowmem.wait_with_output().expect("lowmem ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("3 of 4 cases have not run") && said.contains("--out run --resume"), "{said}");
    assert!(!signal("-0", worker.trim()), "the worker still runs");
    assert_eq!(place.rows("run").len(), 1);
    let recommended = fs::read_to_string(place.path("run/recommended.yaml")).expect("recommended.yaml");
    assert!(recommended.contains("# No answer yet: 3 of 4 not run.\n") && !recommended.contains("othing fits"), "{recommended}");

    place.lowmem_with("finished\n").args(arguments).arg("--resume").assert().success();
    assert_eq!(fs::read_to_string(place.path("run/records.jsonl")).expect("records").lines().count(), 4);
}
