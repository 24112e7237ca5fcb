//! `lowmem report`, and the lists.

use std::fs;

use crate::command::{ANSWERS, Place, lowmem, stdout};

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

#[test]
fn gpus_and_models_are_listed() {
    let gpus = stdout(&lowmem().arg("gpus").assert().success());
    for name in ["rtx-4060", "rtx-3060", "rtx-4080", "rtx-3090", "rtx-4090", "l4", "rtx-5090", "a100-40gb", "a100-80gb", "h100", "h20"] {
        assert!(gpus.contains(&format!(" {name} ")), "{gpus}");
    }
    let models = stdout(&lowmem().arg("models").assert().success());
    for name in ["wan-tiny", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"] {
        assert!(models.contains(name), "{models}");
    }
}
