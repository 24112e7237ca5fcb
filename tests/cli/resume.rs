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
fn a_changed_configuration_is_refused_and_runs_again_where_both_are_wanted() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let said = stderr(&place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "frames=5"]).assert().code(2));
    assert!(
        said.contains("run was run otherwise:\n  frames: 9 then, 5 now\n") && said.contains("\nName another --out, or add --keep-both"),
        "{said}"
    );
    assert_eq!(runs(&place), 8);
    place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "--keep-both", "frames=5"]).assert().success();
    assert_eq!(runs(&place), 16);
    assert!(place.rows("run").iter().all(|row| &row["frames"] == "5"));
    // What was mixed is said, and goes on by itself.
    let said = stdout(&place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "frames=5"]).assert().success());
    assert!(said.contains("Mixed: ") && said.contains("frames: 9 then, 5 now"), "{said}");
}

#[test]
fn another_definition_is_named_by_what_differs() {
    let place = Place::new();
    let fewer = [&ARGUMENTS[..], &["low_mem_level=0,1"]].concat();
    place.lowmem_with(COUNTS).args(&fewer).assert().success();
    let said = stderr(&place.lowmem_with(COUNTS).args(&fewer[..8]).args(["low_mem_level=0,1,2", "--resume"]).assert().code(2));
    assert!(said.contains("  low_mem_level: [0, 1] then, [0, 1, 2] now"), "{said}");
    place.lowmem_with(COUNTS).args(&fewer[..8]).args(["low_mem_level=0,1,2", "--resume", "--keep-both"]).assert().success();
    assert_eq!((runs(&place), place.rows("run").len()), (6, 6), "the two cases of level 2");
}

#[test]
fn another_version_is_refused() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let path = place.path("run/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("JSON");
    let now = manifest["version"].clone();
    manifest["version"] = "0.0.9".into();
    fs::write(&path, manifest.to_string()).expect("written");
    let said = stderr(&place.lowmem_with(COUNTS).args(ARGUMENTS).arg("--resume").assert().code(2));
    assert!(said.contains(&format!("  version: 0.0.9 then, {} now", now.as_str().expect("text"))), "{said}");
}

#[test]
fn another_gpu_is_another_run() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let other = ["sweep", "smoke", "--gpu", "80GB", "--device", "virtual", "--out", "run", "--resume"];
    let said = stderr(&place.lowmem_with(COUNTS).args(other).assert().code(2));
    assert!(said.contains("  GPU: rtx-4090 then, h100 now"), "{said}");
}

#[test]
fn another_budget_of_ram_is_another_run() {
    let place = Place::new();
    place.lowmem_with(COUNTS).args(ARGUMENTS).assert().success();
    let said = stderr(&place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "--ram", "32GB"]).assert().code(2));
    assert!(said.contains("  RAM: no limit then, "), "{said}");
    let said = stderr(&place.lowmem_with(COUNTS).args(ARGUMENTS).args(["--resume", "--disk", "1GB/s"]).assert().code(2));
    assert!(said.contains("  disk: "), "{said}");
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
