//! `lowmem report`, and the lists.

use std::fs;

use engine_protocol::SCHEMA;
use lowmem_tests::root;

use crate::command::{ANSWERS, Place, lowmem, stderr, stdout};

#[test]
fn a_report_is_made_anew_from_the_records() {
    let place = Place::new();
    place.lowmem_with(ANSWERS).args(["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run"]).assert().success();
    let files = ["results.csv", "tables.md", "report.html", "recommended.yaml", "plots/peak-by-level.svg", "plots/peak-by-stage.svg"];
    let read = |file: &&str| fs::read(place.path("run").join(file)).expect(file);
    let before: Vec<_> = files.iter().map(read).collect();
    for file in files {
        fs::remove_file(place.path("run").join(file)).expect(file);
    }
    place.lowmem_with(ANSWERS).args(["report", "run"]).assert().success();
    assert_eq!(before, files.iter().map(read).collect::<Vec<_>>());
}

/// A run directory of schema 1: `lowmem sweep` of wan2.1-t2v-14b at 480p with 5 frames, level 0 and level 3 with resident_blocks=auto, on 24GB.
fn written_in_schema_1() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("run")).expect("a folder");
    for file in ["manifest.json", "records.jsonl"] {
        fs::copy(root().join("tests/fixtures/run-schema-1").join(file), place.path("run").join(file)).expect(file);
    }
    place
}

#[test]
fn a_run_of_the_first_schema_is_read_and_what_it_lacks_is_empty() {
    let place = written_in_schema_1();
    let said = stdout(&lowmem().current_dir(place.path("")).args(["report", "run"]).assert().success());
    assert!(said.contains("Fits: 18.52 of 23.65 GiB (virtual). Estimated: 1 min 10 s (1 min 5 to 1 min 20)."), "{said}");
    let rows = place.rows("run");
    let of = |column: &str| [&rows[0][column], &rows[1][column]];
    assert_eq!([of("outcome"), of("resident_blocks"), of("stream_from")], [["oom", "ok"], ["", "24"], ["", "memory"]]);
    assert_eq!([of("version"), of("began")], [["", ""]; 2], "schema 1 has neither");
    assert_eq!(of("capacity_bytes"), ["25393364992"; 2]);
}

#[test]
fn a_schema_of_a_later_program_is_refused_by_name() {
    for (file, line, place_of_it) in [("manifest.json", 0, "run/manifest.json:1"), ("records.jsonl", 1, "run/records.jsonl:2")] {
        let place = written_in_schema_1();
        let path = place.path("run").join(file);
        let text = fs::read_to_string(&path).expect(file);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[line] = lines[line].replacen('{', r#"{"schema":99,"version":"7.1.0","#, 1);
        // The manifest names its version already.
        lines.retain(|line| line != r#" "version": "0.1.0","#);
        fs::write(&path, lines.join("\n") + "\n").expect(file);
        let said = stderr(&lowmem().current_dir(place.path("")).args(["report", "run"]).assert().code(2));
        let refusal = format!(
            "{place_of_it}: written by lowmem 7.1.0 with record schema 99; this program reads schema 1 to {SCHEMA}: use lowmem 7.1.0"
        );
        assert!(said.contains(&refusal), "{said}");
    }
}

#[test]
fn a_record_says_its_schema_the_program_and_when_it_ran() {
    let place = Place::new();
    place.lowmem_with(ANSWERS).args(["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run"]).assert().success();
    let records = fs::read_to_string(place.path("run/records.jsonl")).expect("records");
    assert!(records.lines().all(|line| line.starts_with(&format!(r#"{{"schema":{SCHEMA},"#))), "{records}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("run/manifest.json")).expect("a manifest")).expect("JSON");
    for row in place.rows("run") {
        assert_eq!(&row["version"], manifest["version"]);
        let began: Vec<_> = row["began"].split('T').map(str::len).collect();
        assert_eq!(began, ["2026-11-27".len(), "12:00:00+00:00".len()], "{}", &row["began"]);
    }
}

#[test]
fn gpus_and_models_are_listed() {
    let gpus = stdout(&lowmem().arg("gpus").assert().success());
    for name in ["rtx-4060", "rtx-3060", "t4", "rtx-3090", "rtx-4090", "l4", "rtx-5090", "a100-40gb", "a100-80gb", "b200", "h20"] {
        assert!(gpus.contains(&format!(" {name} ")), "{gpus}");
    }
    let models = stdout(&lowmem().arg("models").assert().success());
    for name in ["wan-tiny", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"] {
        assert!(models.contains(name), "{models}");
    }
}
