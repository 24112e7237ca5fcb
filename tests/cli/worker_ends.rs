//! Every end of a worker is a row, and the sweep goes on.

use crate::command::{Place, stderr, stdout};

/// Runs a sweep over levels 0 to 3 in which level 1's worker ends as `fault` says; gives what the row of level 1 and the exit code are.
fn with_fault(fault: &str) -> (String, String, String) {
    let place = Place::new();
    place.file("s.yaml", "model: wan-tiny\nsweep:\n  low_mem_level: [0, 1, 2, 3]\n");
    let script = format!(
        "begun load\nended load 1\nbegun denoise\ncase \"$request\" in *'\"low_mem_level\":1'*)\n{fault}\n;; esac\nended denoise 5\nfinished\n"
    );
    let arguments = ["sweep", "s.yaml", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--case-timeout", "2"];
    let assert = place.lowmem_with(&script).args(arguments).assert().code(4);
    let rows = place.rows("run");
    let outcomes: Vec<_> = rows.iter().map(|row| row["outcome"].to_owned()).collect();
    assert_eq!(outcomes.len(), 4, "{}", stderr(&assert));
    assert!([0, 2, 3].into_iter().all(|other| outcomes[other] == "ok"), "{outcomes:?}");
    assert!(stdout(&assert).contains(&format!("{} in denoise", outcomes[1])) || outcomes[1] == "failed", "{}", stdout(&assert));
    assert_eq!(&rows[1]["allocated_bytes"], "1", "what it said before stays");
    assert_eq!(&rows[1]["peak_allocated_bytes"], "", "the peak of a run that did not end is not known");
    (outcomes[1].clone(), rows[1]["failed_stage"].to_owned(), rows[1]["error"].to_owned())
}

#[test]
fn a_killed_worker() {
    let (outcome, stage, error) = with_fault("kill -9 $$");
    assert_eq!((outcome.as_str(), stage.as_str()), ("killed", "denoise"));
    assert!(error.contains("SIGKILL"), "{error}");
}

#[test]
fn a_hanging_worker_and_what_it_started() {
    let (outcome, stage, error) = with_fault("sleep 600 &\nsleep 600");
    assert_eq!((outcome.as_str(), stage.as_str()), ("timeout", "denoise"));
    assert!(error.contains("time limit"), "{error}");
}

#[test]
fn a_worker_that_ignores_its_input_and_never_speaks() {
    let (outcome, _, _) = with_fault("trap '' TERM INT HUP\nwhile :; do sleep 600; done");
    assert_eq!(outcome, "timeout");
}

#[test]
fn a_crashing_worker_with_its_last_words() {
    let (outcome, stage, error) = with_fault("echo 'tensor of doom' >&2\nkill -11 $$");
    assert_eq!((outcome.as_str(), stage.as_str()), ("crashed", "denoise"));
    assert!(error.contains("SIGSEGV") && error.contains("tensor of doom"), "{error}");
    let (outcome, _, error) = with_fault("kill -6 $$");
    assert_eq!(outcome, "crashed");
    assert!(error.contains("SIGABRT"), "{error}");
}

#[test]
fn a_worker_whose_report_of_the_virtual_gpu_cannot_be_read() {
    let (outcome, _, error) = with_fault("printf '{\"unsupported\":' > \"$LOWMEM_VIRTUAL_GPU_REPORT\"\nfinished");
    assert_eq!(outcome, "failed");
    assert!(error.contains("the virtual GPU's report of the worker cannot be read"), "{error}");
}

#[test]
fn a_worker_that_leaves_without_a_result() {
    let (outcome, stage, error) = with_fault("exit 0");
    assert_eq!((outcome.as_str(), stage.as_str()), ("crashed", "denoise"));
    assert!(error.contains("exited with code 0 in denoise without a result"), "{error}");
}

#[test]
fn a_worker_that_talks_nonsense() {
    let (outcome, _, error) = with_fault("echo 'Segmentation fault {'\nfinished");
    assert_eq!(outcome, "crashed");
    assert!(error.contains("is not an event") && error.contains("Segmentation fault {"), "{error}");
    let (outcome, _, _) = with_fault("printf '\\377\\376\\n'\nfinished");
    assert_eq!(outcome, "crashed");
}

#[test]
fn a_worker_that_says_what_went_wrong() {
    let (outcome, stage, error) = with_fault("failed denoise");
    assert_eq!((outcome.as_str(), stage.as_str(), error.as_str()), ("failed", "denoise", "no such kernel"));
}
