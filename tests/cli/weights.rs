//! `plan`, `autotune` and `sweep` for the weights that somebody names: their model and their types, and commands that name them.

use std::path::PathBuf;

use lowmem_tests::root;

use crate::command::{Place, json, lowmem, stderr, stdout};

fn checkpoint() -> PathBuf {
    root().join("tests/fixtures/checkpoint/original")
}

fn lora() -> String {
    format!("{}:0.5", root().join("tests/fixtures/lora/kohya.safetensors").display())
}

#[test]
fn a_plan_is_for_the_weights_that_are_named() {
    let plan = |more: &[&str]| {
        let checkpoint = checkpoint();
        let named = ["plan", "--json", "--checkpoint", checkpoint.to_str().expect("a path"), "low_mem_level=3", "weight_dtype=fp8_e4m3"];
        json(&lowmem().args(named).args(more).assert().success(), "plan")
    };
    let blocks = |plan: &serde_json::Value| {
        let groups = plan["groups"].as_array().expect("groups").clone();
        groups.iter().filter(|group| group["name"] == "blocks 0-1").map(|group| group["bytes"].as_u64().expect("bytes")).sum::<u64>()
    };
    let (plain, with) = (plan(&[]), plan(&["--lora", &lora()]));
    assert_eq!(plain["config"]["model"], "original", "the checkpoint's folder");
    // Weights in 8 bits have the two matrices of each layer beside them, rounded up to where the next tensor may begin.
    assert!(blocks(&with) > blocks(&plain), "{} and {} bytes", blocks(&plain), blocks(&with));
    assert!(blocks(&plain) > 0);
}

#[test]
fn autotune_says_the_files_in_its_command() {
    let place = Place::new();
    let arguments = ["autotune", "--gpu", "24GB", "--device", "virtual", "--resolution", "48x32", "--frames", "5", "--json", "--out"];
    let assert =
        lowmem().args(arguments).arg(place.path("run")).arg("--checkpoint").arg(checkpoint()).args(["--lora", &lora()]).assert().success();
    let answer = json(&assert, "autotune");
    let command = answer["best"]["command"].as_str().expect("a command");
    let wanted = format!("lowmem generate --checkpoint {} --lora {} --prompt", checkpoint().display(), lora());
    assert!(command.starts_with(&wanted), "{command}");
    assert!(!command.contains("--model"), "{command}");
}

#[test]
fn a_sweep_is_over_the_weights_that_are_named() {
    let place = Place::new();
    let definition =
        place.file("a.yaml", "model: wan2.1-t2v-14b\nresolution: 48x32\nframes: 5\nsteps: 2\nsweep:\n  low_mem_level: [0, 3]\n");
    let arguments = ["sweep", definition.to_str().expect("a path"), "--device", "cpu", "--out"];
    let assert = lowmem().args(arguments).arg(place.path("run")).arg("--checkpoint").arg(checkpoint()).assert().success();
    assert!(stdout(&assert).contains("original at 48x32, 5 frames"), "{}", stdout(&assert));
    assert!(stderr(&assert).contains("the model is that of the weights that are named"), "{}", stderr(&assert));
    // The definition may name them too.
    let path = checkpoint().display().to_string();
    let definition = place.file("b.yaml", &format!("model: {path}\nresolution: 48x32\nframes: 5\nsteps: 2\nlow_mem_level: 3\n"));
    let arguments = ["sweep", definition.to_str().expect("a path"), "--device", "cpu", "--out"];
    let assert = lowmem().args(arguments).arg(place.path("named")).assert().success();
    assert!(stdout(&assert).contains("original at 48x32, 5 frames"), "{}", stdout(&assert));
    let model = format!("model={path}");
    let refused = lowmem().args(["plan", &model, "--checkpoint", &path]).assert().code(2);
    assert!(stderr(&refused).contains("names weights, and so do files or --checkpoint"), "{}", stderr(&refused));
    let refused = lowmem().args(["plan", "model=./nowhere"]).assert().code(2);
    assert!(stderr(&refused).contains("./nowhere: no such folder or file"), "{}", stderr(&refused));
    let refused = lowmem().args(["plan", "--checkpoint"]).arg(checkpoint()).args(["--model", "wan2.1-t2v-14b"]).assert().code(2);
    assert!(stderr(&refused).contains("that is original, not wan2.1-t2v-14b: leave the model out"), "{}", stderr(&refused));
}
