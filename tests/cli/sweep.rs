//! A sweep from its definition to its run directory.

use std::collections::HashSet;
use std::fs;

use virtual_gpu_protocol::ProcessReport;

use crate::command::{ANSWERS, Place, stderr, stdout};

/// A worker at whose every case the memory runs out.
const NEVER_FITS: &str = "begun load\noom load\n";

#[test]
fn the_full_sweep_runs_each_distinct_case_once() {
    let place = Place::new();
    let mut cases = Vec::new();
    for run in ["first", "second"] {
        place.lowmem_with(NEVER_FITS).args(["sweep", "full", "--gpu", "24GB", "--device", "virtual", "--out", run]).assert().success();
        let rows = place.rows(run);
        assert_eq!(rows.len(), 80);
        assert_eq!(rows.iter().filter(|row| &row["low_mem_level"] == "0").count(), 8);
        assert!(rows.iter().all(|row| &row["steps_measured"] == "2" && &row["steps"] == "50"));
        cases.push(rows.iter().map(|row| row["case"].to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(cases[0].iter().collect::<HashSet<_>>().len(), 80, "a case has its own name");
    assert_eq!(cases[0], cases[1], "names and order are the same every time");
}

#[test]
fn an_out_of_memory_is_a_row_everywhere() {
    let place = Place::new();
    let arguments = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "attn_type=sdpa"];
    let assert = place.lowmem_with(ANSWERS).args(arguments).assert().success();
    let rows = place.rows("run");
    let seen: Vec<_> = rows.iter().map(|row| format!("{} {} {}", &row["case"], &row["outcome"], &row["failed_stage"])).collect();
    assert_eq!(seen, ["level0 oom denoise", "level1 ok ", "level2 ok ", "level3 ok "]);
    // 20 GiB allocated, 30 GiB asked for, 1 GiB beside the allocator.
    assert_eq!(rows[0].bytes("needed_bytes"), 51 << 30);
    assert_eq!((&rows[0]["error"], &rows[0]["gpu"], &rows[0]["memory_source"]), ("tried to allocate", "rtx-4090", "virtual"));
    for empty in ["time_source", "total_secs", "denoise_secs", "step_secs", "text_encode_secs", "vae_decode_secs", "copy_stall_secs"] {
        assert!(rows.iter().all(|row| row[empty].is_empty()), "{empty}");
    }
    let said = stdout(&assert);
    for part in [
        "oom in denoise",
        "≥ 51.00",
        "Virtual GPU rtx-4090 (NVIDIA GeForce RTX 4090)",
        "times are not known",
        "wan-tiny at 96x64, 9 frames: level 1",
        "Fits: 21.00 of 23.65 GiB (virtual).",
        "run/report.html",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert!(stderr(&assert).contains("GPU=24GB is rtx-4090"), "{}", stderr(&assert));
    // The answer comes first, and the table last.
    let table: Vec<&str> = said.lines().skip_while(|line| !line.starts_with(" level")).collect();
    assert!(said.starts_with("Recommended:\n") && table.iter().any(|line| line.contains("oom in denoise")), "{said}");
    assert!(table.iter().all(|line| line.chars().count() <= 80), "the table is wider than a terminal: {said}");
    for file in ["report.html", "tables.md"] {
        let text = fs::read_to_string(place.path("run").join(file)).expect(file);
        assert!(text.contains("oom in denoise") && text.contains("≥ 51.00"), "{file}");
    }
    assert!(place.path("run/plots/peak-by-level.svg").is_file());
}

#[test]
fn the_recommended_configuration_is_a_definition_of_one_case() {
    let place = Place::new();
    place
        .lowmem_with(ANSWERS)
        .args(["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "attn_type=sdpa"])
        .assert()
        .success();
    let again = ["sweep", "run/recommended.yaml", "--gpu", "24GB", "--device", "virtual", "--out", "again"];
    place.lowmem_with(ANSWERS).args(again).assert().success();
    let rows = place.rows("again");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["case"], &rows[0]["outcome"]), ("level1-tile8-sdpa-96x64", "ok"));
}

#[test]
fn the_worker_meets_the_virtual_gpu_through_its_environment() {
    let place = Place::new();
    let report = ProcessReport { unsupported: [("cudaThing".into(), 3)].into(), ..ProcessReport::default() };
    let report = serde_json::to_string(&report).expect("JSON");
    let script = format!("env > environment\nprintf '%s' '{report}' > \"$LOWMEM_VIRTUAL_GPU_REPORT\"\nfinished\n");
    let one_case = ["low_mem_level=0", "attn_type=sdpa"];
    let virtually = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run"];
    place.lowmem_with(&script).args(virtually).args(one_case).assert().success();
    let environment = fs::read_to_string(place.path("environment")).expect("the environment");
    let value = |name: &str| environment.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or_default().to_owned();
    assert!(value("LOWMEM_VIRTUAL_GPU").starts_with(r#"{"name":"rtx-4090","title":"NVIDIA GeForce RTX 4090""#));
    assert_eq!((value("LOWMEM_VIRTUAL_GPU_QUIET"), value("OMP_NUM_THREADS")), ("1".into(), "1".into()));
    assert!(value("LD_LIBRARY_PATH").split(':').next().is_some_and(|first| first.ends_with("/virtual-gpu")));
    let rows = place.rows("run");
    assert_eq!((&rows[0]["unsupported_calls"], &rows[0]["unsupported_names"]), ("3", "cudaThing"));

    let on_the_cpu = ["sweep", "smoke", "--device", "cpu", "--out", "cpu"];
    let mut command = place.lowmem_with("env > environment\nfinished\n");
    command.env("LOWMEM_VIRTUAL_GPU", "left over").args(on_the_cpu).args(one_case).assert().success();
    let environment = fs::read_to_string(place.path("environment")).expect("the environment");
    assert!(!environment.contains("LOWMEM_VIRTUAL_GPU"), "the CPU meets no virtual GPU");
}

#[test]
fn a_budget_between_two_sizes_caps_the_larger_one() {
    let place = Place::new();
    let script = r#"case "$request" in *'"memory_limit_bytes":null'*) exit 1 ;; esac
finished
"#;
    let assert =
        place.lowmem_with(script).args(["sweep", "smoke", "--gpu", "20GB", "--device", "virtual", "--out", "run"]).assert().success();
    assert!(stderr(&assert).contains("capped to 20.00 GiB"), "{}", stderr(&assert));
}

#[test]
fn a_run_is_never_written_over() {
    let place = Place::new();
    let arguments = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "attn_type=sdpa"];
    place.lowmem_with(ANSWERS).args(arguments).assert().success();
    let assert = place.lowmem_with(ANSWERS).args(arguments).assert().code(2);
    assert!(stderr(&assert).contains("run holds a run already: add --resume"), "{}", stderr(&assert));
}

#[test]
fn lists_are_walked_together_ranges_are_lists_and_combinations_are_left_out() {
    let place = Place::new();
    let text = "model: wan-tiny\nzip:\n  frames: 5..9 step 4\n  steps: [3, 4]\nsweep:\n  low_mem_level: [0, 1]\nexclude:\n  - {low_mem_level: 1, frames: 9}\n";
    place.file("s.yaml", text);
    let words = ["sweep", "s.yaml", "--gpu", "24GB", "--device", "virtual"];
    let said = stdout(&place.lowmem_with(ANSWERS).args(words).arg("--dry-run").assert().success());
    let names: Vec<_> = said.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(names, ["5frames-3steps-level0", "5frames-3steps-level1", "9frames-4steps-level0"]);
    assert!(said.contains("s: 3 cases. Nothing was run."), "{said}");
    assert!(!place.path("lowmem-runs").exists(), "a run directory was made");
    // What comes out the same is said.
    let said =
        stdout(&place.lowmem_with(ANSWERS).args(["sweep", "full", "--gpu", "24GB", "--device", "virtual", "--dry-run"]).assert().success());
    assert!(said.contains("full: 80 cases") && said.contains("16 combinations come out the same"), "{said}");
    assert!(said.contains("low_mem_level=0 vae_tile_size=8 attn_type=sdpa resolution=832x480 is level0-sdpa-832x480"), "{said}");
}

#[test]
fn parts_of_a_sweep_make_the_whole() {
    let place = Place::new();
    let words = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out"];
    place.lowmem_with(ANSWERS).args(words).arg("whole").assert().success();
    let parts = ["1/3", "2/3", "3/3"];
    for part in parts {
        place.lowmem_with(ANSWERS).args(words).args([&part.replace('/', "-of-"), "--shard", part]).assert().success();
    }
    place.lowmem_with(ANSWERS).args(["merge", "--out", "merged", "1-of-3", "2-of-3", "3-of-3"]).assert().success();
    let cells = |run: &str| {
        let mut cells: Vec<_> =
            place.rows(run).iter().map(|row| ["case", "outcome", "peak_device_bytes"].map(|name| row[name].to_owned())).collect();
        cells.sort();
        cells
    };
    assert_eq!(cells("merged"), cells("whole"));
    let other = ["sweep", "smoke", "--gpu", "8GB", "--device", "virtual", "--out", "other"];
    place.lowmem_with(ANSWERS).args(other).assert().success();
    let assert = place.lowmem_with(ANSWERS).args(["merge", "--out", "mixed", "1-of-3", "other"]).assert().code(2);
    assert!(stderr(&assert).contains("other is a run of another GPU than 1-of-3"), "{}", stderr(&assert));
    // A word of the command line is part of what was run.
    place.lowmem_with(ANSWERS).args(words).args(["longer", "frames=5", "--shard", "2/3"]).assert().success();
    let assert = place.lowmem_with(ANSWERS).args(["merge", "--out", "mixed", "1-of-3", "longer"]).assert().code(2);
    assert!(stderr(&assert).contains("longer is a run of another frames than 1-of-3"), "{}", stderr(&assert));
    place.lowmem_with(ANSWERS).args(words).args(["wrong", "--shard", "4/3"]).assert().code(2);
}
