//! A sweep over several GPUs: one run, in which each GPU has its own answer.

use std::fs;

use crate::command::{ANSWERS, Place, stderr, stdout};

const DEFINITION: &str = "model: wan-tiny\nsteps: 2\ngpu: [rtx-3060, 24GB]\nsweep:\n  low_mem_level: [1, 2, 3]\n";

#[test]
fn each_gpu_has_its_own_answer() {
    let place = Place::new();
    place.file("two.yaml", DEFINITION);
    // The worker is one of the card that it is started as: what takes 20 GiB runs out on the smaller one.
    let script = ANSWERS.replace(
        "finished\n",
        "case \"$LOWMEM_VIRTUAL_GPU$request\" in *'\"rtx-3060\"'*'\"low_mem_level\":1'*) oom decode ;; esac\nfinished\n",
    );
    let assert = place.lowmem_with(&script).args(["sweep", "two.yaml", "--out", "run"]).assert().success();
    let rows = place.rows("run");
    let found: Vec<_> = rows.iter().map(|row| format!("{} {} {}", &row["case"], &row["gpu"], &row["outcome"])).collect();
    let wanted = [
        "rtx-3060-level1 rtx-3060 oom",
        "rtx-3060-level2 rtx-3060 ok",
        "rtx-3060-level3 rtx-3060 ok",
        "24GB-level1 rtx-4090 ok",
        "24GB-level2 rtx-4090 ok",
        "24GB-level3 rtx-4090 ok",
    ];
    assert_eq!(found, wanted);
    assert_ne!(rows[0].bytes("capacity_bytes"), rows[3].bytes("capacity_bytes"));
    let said = stdout(&assert);
    for part in ["GPU", "9 frames on rtx-3060: level 2", "9 frames on 24GB: level 1", "Virtual GPUs rtx-3060"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let recommended = fs::read_to_string(place.path("run/recommended.yaml")).expect("it is written");
    assert!(recommended.contains("Several GPUs: each has its own answer above."), "{recommended}");
    assert!(place.path("run/report.html").is_file());
    // Resumed, nothing is left to run; other GPUs are another run.
    let again = ["sweep", "two.yaml", "--out", "run", "--resume"];
    let assert = place.lowmem_with("failed load\n").args(again).assert().success();
    assert!(stderr(&assert).contains("6 cases, 0 to run"), "{}", stderr(&assert));
    let assert = place.lowmem_with(ANSWERS).args(again).args(["--gpu", "8GB,24GB"]).assert().code(2);
    assert!(stderr(&assert).contains("GPU: rtx-3060 (rtx-3060, "), "{}", stderr(&assert));
}

#[test]
fn gpus_of_the_command_take_the_place_of_the_definitions() {
    let place = Place::new();
    place.file("two.yaml", DEFINITION);
    let sweep = |arguments: &[&str]| place.lowmem_with(ANSWERS).args(["sweep", "two.yaml"]).args(arguments).assert();
    let said = stdout(&sweep(&["--gpu", "8GB,RTX 3090", "--dry-run", "low_mem_level=1"]).success());
    assert!(said.starts_with("8GB\nRTX-3090\n"), "{said}");
    let said = stdout(&sweep(&["--gpu", "8GB", "--dry-run"]).success());
    assert!(said.starts_with("level1\nlevel2\nlevel3\n"), "{said}");
    for (arguments, message) in [
        (["--device", "cuda"], "two.yaml:3:1: several GPUs in one sweep are virtual ones: name one GPU"),
        (["--device", "cpu"], "two.yaml:3:1: several GPUs in one sweep are virtual ones"),
        (["--gpu", "24GB,rtx-4090"], "gpu=rtx-4090 and 24GB are the same GPU: remove one"),
        (["--gpu", "24GB,rtx-9999"], "rtx-9999"),
    ] {
        let error = stderr(&sweep(&arguments).code(2));
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
    place.file("two.yaml", &DEFINITION.replace("24GB", "RTX 9999"));
    let error = stderr(&sweep(&[]).code(2));
    assert!(error.contains("two.yaml:3:1: ") && error.contains("RTX 9999"), "{error}");
    place.file("two.yaml", "model: wan-tiny\ncases:\n  - gpu: 8GB\n  - frames: 5\n");
    let error = stderr(&sweep(&[]).code(2));
    assert!(error.contains("two.yaml:3:5: frames5") || error.contains("names no GPU, and others do"), "{error}");
}

#[test]
fn parts_of_a_sweep_over_several_gpus_are_put_together() {
    let place = Place::new();
    place.file("two.yaml", DEFINITION);
    for part in ["1", "2"] {
        let shard = format!("{part}/2");
        place.lowmem_with(ANSWERS).args(["sweep", "two.yaml", "--shard", &shard, "--out", part]).assert().success();
    }
    let assert = place.lowmem_with(ANSWERS).args(["merge", "--out", "all", "1", "2"]).assert().success();
    assert!(stdout(&assert).contains("9 frames on rtx-3060: level"), "{}", stdout(&assert));
    assert_eq!(place.rows("all").len(), 6);
}
