//! Ranks that torchrun, mpirun or srun start: a process of `lowmem generate` for each, of which the first one speaks for all.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use engine_protocol::RunRecord;

use crate::command::{Place, executable, stderr, stdout};
use crate::python::{PYTHON, path_to_torch};

const FIXED: [&str; 7] = ["generate", "--model", "wan-tiny", "--gpu", "h100", "--device", "virtual"];

/// What a launcher sets for a rank of two, `#` standing for it; `JOB` is the test's own.
const LAUNCHERS: [(&str, &str); 3] = [
    ("torchrun", "RANK=# WORLD_SIZE=2 LOCAL_RANK=# LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=JOB"),
    ("mpirun", "OMPI_COMM_WORLD_RANK=# OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=# PMIX_NAMESPACE=JOB"),
    ("srun", "SLURM_PROCID=# SLURM_NTASKS=2 SLURM_LOCALID=# SLURM_JOB_ID=JOB SLURM_STEP_ID=0"),
];

/// Starts a rank as a launcher does.
fn start(place: &Place, variables: &str, rank: u8, words: &[&str]) -> Child {
    let mut command = Command::new(executable("lowmem"));
    let job = place.path("").display().to_string();
    let pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
    command.envs(pairs.map(|(name, value)| (name, value.replace('#', &rank.to_string()).replace("JOB", &job))));
    let worker = place.path("worker.sh");
    if worker.is_file() {
        command.env("LOWMEM_WORKER", worker);
    }
    command.current_dir(place.path("")).args(FIXED).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lowmem")
}

fn start_both(place: &Place, variables: &str, words: &[&str]) -> [Child; 2] {
    [0, 1].map(|rank| start(place, variables, rank, words))
}

fn end(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("lowmem ends");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Waits until the worker of rank 1, which is one of [`WAITS`], has begun to wait.
fn wait_for_rank_1(place: &Place) {
    assert!(fs::read_to_string(place.path("waits")).expect("the pipe").starts_with("waiting"));
}

/// Rank 1 says that it waits, and then both do.
const WAITS: &str =
    "begun load\nended load 1\nbegun denoise\ncase \"$request\" in *'\"rank\":1'*) echo waiting > waits ;; esac\nsleep 600\n";

fn with_waiting_workers() -> Place {
    let place = Place::new();
    place.worker(WAITS);
    assert!(Command::new("mkfifo").arg(place.path("waits")).status().expect("mkfifo").success());
    place
}

#[test]
fn the_first_rank_speaks_for_all() {
    for (launcher, variables) in LAUNCHERS {
        let [first, second] = start_both(&Place::new(), variables, &["--json", "cp_size=2"]).map(end);
        assert_eq!((first.0, second.0), (Some(0), Some(0)), "{launcher}: {} {}", first.2, second.2);
        assert_eq!((second.1.as_str(), second.2.as_str()), ("", ""), "{launcher}");
        let record: RunRecord = serde_json::from_str(&first.1).expect("a record");
        assert_eq!((record.outcome.name(), record.ranks.len()), ("ok", 2), "{launcher}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn torchrun_starts_them() {
    let mut torchrun = assert_cmd::Command::new(PYTHON);
    torchrun.args(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]).arg(executable("lowmem"));
    // It imports PyTorch, which wants CUDA's libraries.
    torchrun.env("PYTHONPATH", path_to_torch()).env("LD_LIBRARY_PATH", executable("virtual-gpu"));
    let assert = torchrun.env("CUDA_VISIBLE_DEVICES", "").args(FIXED).assert().success();
    assert!(stderr(&assert).contains("torchrun started 2 ranks: cfg_size=2"), "{}", stderr(&assert));
    assert_eq!(stdout(&assert).matches("From prompt to video").count(), 1, "{}", stdout(&assert));
}

#[test]
fn a_split_for_another_number_of_ranks_is_refused_once() {
    let (_, torchrun) = LAUNCHERS[0];
    let refused = |words: &[&str], message: &str| {
        let [first, second] = start_both(&Place::new(), torchrun, words).map(end);
        assert_eq!((first.0, second.0), (Some(2), Some(2)), "{}", first.2);
        assert!(first.2.contains(message), "{}", first.2);
        assert_eq!(second.2, "");
    };
    refused(&["cp_size=4"], "torchrun started 2 ranks: cp_size=4 does not make 2 ranks");
    refused(&["--gpus", "3"], "--gpus 3: torchrun started 2 ranks");
    let several = torchrun.replace("LOCAL_WORLD_SIZE=2", "LOCAL_WORLD_SIZE=1");
    let (code, _, said) = end(start(&Place::new(), &several, 0, &["cp_size=2"]));
    assert_eq!(code, Some(2));
    assert!(said.contains("ranks of one video are on one machine"), "{said}");
}

#[test]
fn a_process_that_is_killed_ends_all_and_is_named() {
    let place = with_waiting_workers();
    let [first, mut second] = start_both(&place, LAUNCHERS[2].1, &["--json", "cp_size=2"]);
    wait_for_rank_1(&place);
    second.kill().expect("killed");
    let (code, record, _) = end(first);
    let record: RunRecord = serde_json::from_str(&record).expect("a record");
    assert_eq!((code, record.outcome.name(), record.error.as_deref()), (Some(1), "killed", Some("rank 1 of 2: its process is gone")));
    end(second);
}

#[test]
fn the_first_ones_end_is_that_of_all() {
    let place = with_waiting_workers();
    let [mut first, second] = start_both(&place, LAUNCHERS[1].1, &["--json", "cp_size=2"]);
    wait_for_rank_1(&place);
    first.kill().expect("killed");
    assert_eq!(end(second).0, Some(1));
    end(first);
}

#[test]
fn an_interrupt_ends_all() {
    let place = with_waiting_workers();
    let ranks = start_both(&place, LAUNCHERS[0].1, &["cp_size=2"]);
    wait_for_rank_1(&place);
    assert!(Command::new("kill").args(["-INT", &ranks[1].id().to_string()]).status().expect("kill").success());
    let [first, second] = ranks.map(end);
    assert_eq!((first.0, second.0), (Some(130), Some(130)), "{}", first.2);
    assert!(first.2.contains("Interrupted: no video was made."), "{}", first.2);
    assert_eq!(second.2, "");
}
