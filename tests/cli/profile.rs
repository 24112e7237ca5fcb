//! `lowmem profile`: where the time of a configuration goes.

use engine_protocol::{RunRecord, Secs, Stage, WorkKind};

use crate::command::{Place, lowmem, stderr, stdout};

const MODEL: [&str; 3] = ["model=wan2.1-t2v-1.3b", "resolution=480p", "steps=2"];

fn profile(settings: &[&str], arguments: &[&str]) -> String {
    let assert =
        lowmem().arg("profile").args(MODEL).args(settings).args(["--gpu", "rtx-4090", "--device", "virtual"]).args(arguments).assert();
    stdout(&assert.success())
}

fn record(settings: &[&str]) -> RunRecord {
    serde_json::from_str(&profile(settings, &["--json"])).expect("a record")
}

#[test]
fn a_breakdown_says_what_holds_a_run_up() {
    let place = Place::new();
    let trace = place.path("trace.json");
    let said = profile(&["low_mem_level=3"], &["--trace", trace.to_str().expect("a path")]);
    for part in [
        "text encoder",
        "transformer",
        "VAE",
        "_flash_attention_forward",
        "addmm",
        "copy to device",
        "arithmetic",
        "The bottleneck is arithmetic:",
        "Trace: ",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let events: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(trace).expect("a trace")).expect("JSON");
    // Two names of rows; the layers' weights go on a row of their own, while arithmetic goes on.
    let [arithmetic, copies] = [1, 2].map(|row| events.iter().filter(|event| event["tid"] == row && event["ph"] == "X").count());
    assert!(arithmetic > 1000 && copies > 100, "{arithmetic} operations, {copies} copies");
    // On each row one thing comes after another.
    for row in [1, 2] {
        let times = events.iter().filter(|event| event["tid"] == row && event["ph"] == "X");
        let mut times: Vec<_> =
            times.map(|event| (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a time"))).collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(times.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 + 1e-3), "row {row}");
    }
}

/// Of several GPUs the operations are the first one's; what it waits for the others is no host's, and each has a row.
#[test]
fn of_several_gpus_each_has_a_row() {
    let said = profile(&["low_mem_level=3"], &["cp_size=2"]);
    for part in [", level 3 on 2 GPUs: ", " rank  GPU ", " 1     rtx-4090 ", "of rank 0", "The bottleneck is"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let words = ["profile", "--gpu", "rtx-3060,rtx-4090", "--device", "virtual", "cp_size=2", "cp_split=speed", "--json"];
    let assert = lowmem().args(words).args(MODEL).assert().success();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
    let gpus: Vec<_> = record.ranks.iter().filter_map(|rank| rank.gpu.as_deref()).collect();
    assert_eq!(gpus, ["rtx-4090", "rtx-3060"], "{}", stderr(&assert));
    assert!(record.stage(Stage::Denoise).is_some_and(|stage| !stage.operations.is_empty()));
    let alone = lowmem().args(&words[..5]).args(MODEL).assert().code(2);
    assert!(stderr(&alone).contains("--gpu names 2 GPUs, and the video is split over 1"), "{}", stderr(&alone));
}

#[test]
fn its_parts_add_up_to_the_stage() {
    for settings in [&["low_mem_level=0"][..], &["low_mem_level=3"]] {
        let record = record(settings);
        for stage in record.stages.iter().filter(|stage| [Stage::Denoise, Stage::Decode].contains(&stage.stage)) {
            let time = stage.time.expect("modelled");
            let on_gpu = stage.operations.iter().filter(|sum| sum.kind != WorkKind::Copy);
            let busy: Secs = on_gpu.clone().map(|sum| sum.secs).sum();
            let stall = time.copy_stall.expect("on the GPU");
            assert!(busy.expected + stall.expected <= time.secs.expected * 1.0001, "{settings:?}, {}", stage.stage.name());
            assert!(busy.expected + stall.expected > time.secs.expected * 0.95, "{settings:?}, {}", stage.stage.name());
            // The same operations and bytes as the stage's own sums.
            let work = time.work.expect("on the GPU");
            let operations: f64 = on_gpu.clone().map(|sum| sum.operations).sum();
            let bytes: f64 = on_gpu.map(|sum| sum.bytes).sum();
            assert!((operations / work.operations - 1.0).abs() < 1e-9 && (bytes / work.bytes - 1.0).abs() < 1e-9);
        }
        assert!(
            record.stages.iter().any(|stage| stage.operations.iter().any(|sum| sum.kind == WorkKind::Copy))
                == (settings == ["low_mem_level=3"])
        );
    }
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    for (arguments, part) in [
        (&["--device", "cpu"][..], "--device cpu: operations are timed on a GPU"),
        (&["--gpu", "rtx-4090", "--device", "virtual", "steps=two"], "steps"),
    ] {
        let said = stderr(&lowmem().arg("profile").args(MODEL).args(arguments).assert().code(2));
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    // Level 0 of 14 billion parameters is too much for 24 GB: an answer, and not this command's.
    let assert = lowmem().args(["profile", "model=wan2.1-t2v-14b", "low_mem_level=0", "--gpu", "rtx-4090", "--device", "virtual"]).assert();
    assert!(stderr(&assert.code(3)).contains("oom in load: "));
}
