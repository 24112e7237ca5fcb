//! What `--json` prints is as the schemas in `docs/schemas` say, of commands whose other tests do not look at it. `json` of `command` checks that.

use std::path::Path;

use crate::command::{ANSWERS, Place, json, lowmem, stderr};

const SWEEP: [&str; 6] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual"];

#[test]
fn a_run_says_what_it_found() {
    let place = Place::new();
    let sweep = |words: &[&str]| json(&place.lowmem_with(ANSWERS).args(SWEEP).args(["--json"]).args(words).assert().success(), "sweep");
    let run = sweep(&["--out", "run"]);
    assert_eq!((&run["cases"], &run["missing"], &run["recommended"]["low_mem_level"]), (&8.into(), &0.into(), &1.into()));
    assert_eq!(run["verdicts"][0]["best"]["case"], run["recommended"]["case"]);
    let mut again = lowmem();
    assert_eq!(json(&again.current_dir(place.path("")).args(["report", "run", "--json"]).assert().success(), "report"), run);
    for shard in ["1/2", "2/2"] {
        sweep(&["--shard", shard, "--out", &shard.replace('/', "-of-")]);
    }
    let merged = lowmem().current_dir(place.path("")).args(["merge", "--out", "merged", "--json", "1-of-2", "2-of-2"]).assert().success();
    let merged = json(&merged, "merge");
    assert_eq!((Path::new(merged["dir"].as_str().expect("a folder")), &merged["verdicts"]), (Path::new("merged"), &run["verdicts"]));

    let nothing = place.lowmem_with("begun load\noom load\n").args(SWEEP).args(["--json", "--out", "nothing"]).assert().success();
    let nothing = json(&nothing, "sweep");
    assert!(nothing["recommended"].is_null() && nothing["verdicts"][0]["nearest_miss"]["missing_bytes"].as_u64() > Some(0), "{nothing:#}");
    let dry = json(&lowmem().args(SWEEP).args(["--dry-run", "--json"]).assert().success(), "sweep --dry-run");
    assert_eq!(dry["cases"].as_array().map(Vec::len), Some(8));
}

#[test]
fn lists_and_documents_are_there_for_programs() {
    let gpus = json(&lowmem().args(["gpus", "--json"]).assert().success(), "gpus");
    assert!(gpus["profiles"].as_array().is_some_and(|all| all.len() > 20) && gpus["why_none"].is_string(), "{gpus:#}");
    let models = json(&lowmem().args(["models", "--json"]).assert().success(), "models");
    assert!(models.as_array().is_some_and(|all| all.iter().any(|model| model["name"] == "wan2.2-t2v-a14b")));
    let flags = json(&lowmem().args(["flags", "--json"]).assert().success(), "flags");
    let of = |key: &str| json(&lowmem().args(["flags", key, "--json"]).assert().success(), "flags KEY");
    assert!(flags.as_array().is_some_and(|all| all.contains(&of("resolution"))));

    let place = Place::new();
    place.lowmem_with(ANSWERS).args(SWEEP).args(["--out", "run"]).assert().success();
    place.file("page.md", "# Low Memory Mode\n\n## Memory Levels\n\n### Level 1\n\n- **VRAM Usage**: To be tested\n");
    let fill = |words: &[&str]| {
        lowmem().current_dir(place.path("")).args(["fill-tables", "page.md", "--from", "run", "--json"]).args(words).assert()
    };
    let before = json(&fill(&["--check"]).code(5), "fill-tables");
    assert!(before["differences"].as_array().is_some_and(|lines| !lines.is_empty()), "{before:#}");
    assert_eq!(json(&fill(&[]).success(), "fill-tables")["places"], before["places"]);
    assert_eq!(json(&fill(&["--check"]).success(), "fill-tables")["differences"], serde_json::json!([]));
}

#[test]
fn a_video_is_a_record_and_its_end_is_told_beside_it() {
    let place = Place::new();
    let words = ["generate", "--model", "wan-tiny", "--device", "virtual", "--gpu", "8GB", "--json"];
    let record = json(&place.lowmem_with(ANSWERS).args(words).arg("low_mem_level=2").assert().success(), "generate");
    assert_eq!(record["outcome"], "ok");
    let assert = place.lowmem_with(ANSWERS).args(words).assert().code(3);
    assert_eq!(json(&assert, "generate")["failed_stage"], "denoise");
    assert!(stderr(&assert).contains("out of memory in denoise"), "{}", stderr(&assert));
}

#[test]
fn what_this_machine_can_do_is_one_answer() {
    let words = ["advise", "--gpu", "8GB", "--ram", "32GB", "--model", "wan2.1-t2v-1.3b", "--json"];
    let advice = json(&lowmem().args(words).assert().success(), "advise");
    let case = &advice["models"][0]["usual"]["best"];
    assert!(case["peak_device_bytes"].as_u64() < advice["capacity_bytes"].as_u64(), "{advice:#}");
    assert!(case["command"].as_str().is_some_and(|line| line.starts_with("lowmem generate ")), "{advice:#}");
}

#[test]
fn a_command_without_json_has_no_schema() {
    let said = stderr(&lowmem().args(["schema", "pln"]).assert().code(2));
    assert!(said.contains("did you mean `plan`?"), "{said}");
}
