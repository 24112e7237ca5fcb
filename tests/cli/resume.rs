//! A sweep that was cut short goes on where it stopped.

use std::fs;

use crate::command::{Place, stderr, stdout};

const ARGUMENTS: [&str; 8] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run"];

/// A worker that counts its runs, and crashes at level 2 while there is a file `broken`.
const COUNTS: &str = r#"echo run >> count
if [ -e broken ]; then case "$request" in *'"low_mem_level":2'*) exit 9 ;; esac; fi
begun denoise
ended denoise 3
finished
"#;

fn runs(place: &Place) -> usize {
    fs::read_to_string(place.path("count")).unwrap_or_default().lines().count()
}

#[test]
fn only_cases_without_an_answer_run_again() {
    let place = Place::new();
    place.file("broken", "");
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().code(4);
    assert_eq!(runs(&place), 8);
    fs::remove_file(place.path("broken")).expect("mended");
    place.lowmem_with(COUNTS).args(ARGUMENTS).arg("--resume").assert().success();
    assert_eq!(runs(&place), 8 + 2, "the two cases of level 2");
    let rows = place.rows("run");
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| &row["outcome"] == "ok"));
    place.lowmem_with(COUNTS).args(ARGUMENTS).arg("--resume").assert().success();
    assert_eq!(runs(&place), 10, "nothing is left to run");
}

#[test]
fn a_torn_record_is_a_case_without_an_answer() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let path = place.path("run/records.jsonl");
    let text = fs::read_to_string(&path).expect("records");
    fs::write(&path, &text[..text.len() - 30]).expect("torn");
    // A report can be made of it as it is.
    place.lowmem_with(COUNTS).args(["report", "run"]).assert().success();
    assert_eq!(place.rows("run").len(), 7);
    place.lowmem_with(COUNTS).args(ARGUMENTS).arg("--resume").assert().success();
    assert_eq!((runs(&place), place.rows("run").len()), (9, 8));
    let whole = fs::read_to_string(&path).expect("records");
    assert!(whole.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "no torn line is left");
}

#[test]
fn a_changed_configuration_runs_again() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "frames=5"]).assert().success();
    assert_eq!(runs(&place), 16);
    assert!(place.rows("run").iter().all(|row| &row["frames"] == "5"));
}

#[test]
fn another_gpu_is_another_run() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let other = ["sweep", "smoke", "--gpu", "80GB", "--device", "virtual", "--out", "run", "--resume"];
    let assert = place.lowmem_with(COUNTS).args(other).assert().code(2);
    assert!(stderr(&assert).contains("run was run on another GPU: name another --out"), "{}", stderr(&assert));
}

#[test]
fn another_budget_of_ram_is_another_run() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let assert = place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "--ram", "32GB"]).assert().code(2);
    assert!(stderr(&assert).contains("run was run with another budget of RAM: name another --out"), "{}", stderr(&assert));
    let assert = place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "--disk", "1GB/s"]).assert().code(2);
    assert!(stderr(&assert).contains("run was run with another rate of the disk"), "{}", stderr(&assert));
}

#[test]
fn a_broken_record_in_the_middle_is_named_with_its_line_and_run_again() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let path = place.path("run/records.jsonl");
    let text = fs::read_to_string(&path).expect("records");
    let mut lines: Vec<_> = text.lines().collect();
    lines[2] = "{";
    fs::write(&path, lines.join("\n") + "\n").expect("broken");
    let assert = place.lowmem_with(COUNTS).args(["report", "run"]).assert().success();
    let said = stdout(&assert);
    assert!(said.contains("records.jsonl:3: ") && said.contains("--resume runs its case again"), "{said}");
    assert_eq!((runs(&place), place.rows("run").len()), (8, 7));
    place.lowmem_with(COUNTS).args(ARGUMENTS).arg("--resume").assert().success();
    assert_eq!((runs(&place), place.rows("run").len()), (9, 8));
}
