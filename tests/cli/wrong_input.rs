//! Wrong usage and input: exit code 2, and a message that says what, where, and what to do. No worker is started.

use crate::command::{Place, stderr};

/// A worker that leaves a trace.
const TRACE: &str = "touch started\nfinished\n";

/// Runs `lowmem ARGS` with these files, and gives what it says.
fn refused(files: &[(&str, &str)], arguments: &[&str]) -> String {
    let place = Place::new();
    files.iter().for_each(|(name, text)| drop(place.file(name, text)));
    let assert = place.lowmem_with(TRACE).args(arguments).assert().code(2);
    assert!(!place.path("started").exists(), "a worker was started: {arguments:?}");
    assert!(!place.path("run").exists(), "a run directory was made: {arguments:?}");
    stderr(&assert)
}

/// What `lowmem sweep` says of a definition.
fn definition_refused(text: &str) -> String {
    refused(&[("s.yaml", text)], &["sweep", "s.yaml", "--gpu", "24GB", "--device", "virtual", "--out", "run"])
}

/// What `lowmem sweep --gpu GPU` says.
fn gpu_refused(gpu: &str) -> String {
    refused(&[], &["sweep", "smoke", "--gpu", gpu, "--device", "virtual", "--out", "run"])
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_the_nearest_one() {
    let said = definition_refused("model: wan-tiny\nsweep:\n  low_mem_levle: [0, 1]\n");
    assert_says(&said, &["s.yaml:3:3: unknown key `low_mem_levle`: did you mean `low_mem_level`?", "`lowmem flags` lists all"]);
    let said = definition_refused("model: wan-tiny\ninfer.diffusion.low_mem_levl: 1\n");
    assert_says(&said, &["s.yaml:2:1: unknown key `infer.diffusion.low_mem_levl`", "did you mean `low_mem_level`?"]);
    let said = definition_refused("model: wan-tiny\nsweeps:\n  low_mem_level: [0, 1]\n");
    assert_says(&said, &["s.yaml:2:1: unknown key `sweeps`"]);
    let said = refused(&[], &["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "vae_tile_siez=4"]);
    assert_says(&said, &["unknown key `vae_tile_siez`: did you mean `vae_tile_size`?"]);
}

#[test]
fn an_unknown_model_lists_the_known_ones() {
    let said = definition_refused("model: wan2.1-t2v-15b\n");
    assert_says(&said, &["unknown model `wan2.1-t2v-15b`", "did you mean `wan2.1-t2v-14b`?", "known models: wan-tiny"]);
    let said = definition_refused("frames: 81\n");
    assert_says(&said, &["s.yaml: no model is given"]);
}

#[test]
fn a_gpu_that_makes_no_sense_lists_what_there_is() {
    assert_says(&gpu_refused("0"), &["GPU=0 is no size", "Known sizes: 8GB, 10GB, 11GB, 12GB, 16GB, 24GB", "rtx-4090"]);
    assert_says(&gpu_refused("-8GB"), &["GPU=-8GB is no size"]);
    assert_says(&gpu_refused("potato"), &["GPU=potato is neither a size nor a known GPU.", "`lowmem gpus` lists the known GPUs"]);
    assert_says(&gpu_refused("rtx-5090-ti"), &["Did you mean `rtx-5090`?", "known GPUs"]);
    assert_says(&gpu_refused("Radeon RX 7900 XTX"), &["GPU=Radeon RX 7900 XTX is a GPU of AMD: lowmem needs CUDA"]);
    assert_says(&gpu_refused("NVIDIA GeForce RTX 3060 Laptop GPU"), &["It has 6 GB: the nearest by memory is GPU=6GB"]);
    assert_says(&gpu_refused("1000GB"), &["GPU=1000GB is more than any known GPU has"]);
    let said = refused(&[], &["sweep", "smoke", "--device", "virtual", "--out", "run"]);
    assert_says(&said, &["--gpu 24GB"]);
}

#[test]
fn a_value_out_of_range_is_named_with_its_place() {
    let said = definition_refused("model: wan-tiny\nlow_mem_level: 1\nsweep:\n  vae_tile_size: [8, -4]\n");
    assert_says(&said, &["s.yaml:4:3: vae_tile_size=-4 is out of range: use 2 to"]);
    let said = definition_refused("model: wan-tiny\nlow_mem_level: 7\n");
    assert_says(&said, &["s.yaml:2:1: low_mem_level=7 is out of range"]);
    let said = definition_refused("model: wan-tiny\nattn_type: xformers\n");
    assert_says(&said, &["s.yaml:2:1: attn_type=xformers", "sdpa"]);
    let said = refused(&[], &["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "vae_tile_size=-1"]);
    assert_says(&said, &["vae_tile_size=-1 is out of range"]);
    let said = definition_refused("model: wan-tiny\nresolution: 100x64\n");
    assert_says(&said, &["s.yaml:2:1: width=100 does not fit the model"]);
}

#[test]
fn an_unreadable_definition_is_named_with_its_place() {
    let said = definition_refused("model: wan-tiny\nsweep:\n  low_mem_level: [0, 1\n");
    assert_says(&said, &["s.yaml:3:18: "]);
    let said = definition_refused("- a list\n");
    assert_says(&said, &["s.yaml:1:1: "]);
    let said = refused(&[], &["sweep", "nowhere.yaml", "--gpu", "24GB"]);
    assert_says(&said, &["nowhere.yaml: no such sweep definition"]);
    let said = refused(&[("s.yaml", "model: wan-tiny\n")], &["sweep", "s.yaml", "smoke", "--gpu", "24GB", "--device", "virtual"]);
    assert_says(&said, &["one sweep definition at a time"]);
}

#[test]
fn usage_is_shown_where_it_is_wrong() {
    assert_says(&refused(&[], &["sweep", "--gpu", "24GB", "--resume"]), &["--out <DIR>"]);
    assert_says(&refused(&[], &["sweep", "--gpu", "24GB", "--jobs", "0"]), &["--jobs"]);
    assert_says(&refused(&[], &["no-such-command"]), &["no-such-command"]);
    assert_says(&refused(&[], &["report", "nowhere"]), &["nowhere is not a run directory"]);
    assert_says(&refused(&[], &["autotune", "--device", "cpu", "--model", "wan-tiny"]), &["--device virtual"]);
}

#[test]
fn a_worker_that_is_not_there_is_our_fault_and_says_what_to_do() {
    let place = Place::new();
    let assert = place.lowmem_with("").env("LOWMEM_WORKER", "/nowhere/worker").args(["sweep", "smoke", "--device", "cpu"]).assert().code(1);
    assert_says(&stderr(&assert), &["/nowhere/worker is not there", "make build"]);
}
