//! `lowmem generate`: what it refuses, and what it makes of its worker.

use serde_json::json;

use crate::command::{ANSWERS, Place, as_its_schema_says, lowmem, stderr, stdout};

/// A worker that writes its output.
const WRITES: &str = r#"begun denoise
progressed denoise
timed denoise
printf '%s' "$request" > request.json
finished
"#;

fn refused(arguments: &[&str]) -> String {
    let place = Place::new();
    let assert = place.lowmem_with(WRITES).arg("generate").args(arguments).assert().code(2);
    assert!(!place.path("request.json").exists(), "a worker was started");
    stderr(&assert)
}

#[test]
fn what_cannot_be_written_or_computed_is_refused() {
    let cpu = ["--model", "wan-tiny", "--device", "cpu"];
    let with = |more: &[&str]| refused(&[&cpu[..], more].concat());
    for (said, part) in [
        (with(&["--output", "cat.avi"]), "unknown kind of video `.avi`: name it .mp4, .gif or .safetensors"),
        (with(&["--output", "cat.mp4", "--size", "4096x2304"]), "4096x2304 is too large for the H.264 encoder"),
        (with(&["--output", "cat.gif", "--steps", "2", "steps=3"]), "steps is given twice, as --steps 2 and as steps=3"),
        (with(&["--output", "cat.gif", "sampler=ddim"]), "sampler=ddim: there is no such value"),
        (with(&["--output", "nowhere/cat.gif"]), "there is no folder nowhere"),
        (with(&[]), "--output is missing"),
        (with(&["--output", "cat.gif", "attn_type=mem_efficient"]), "attn_type=mem_efficient has no CPU kernel"),
        (with(&["--output", "cat.gif", "attn_type=cudnn"]), "attn_type=cudnn has no CPU kernel"),
        (with(&["--output", "cat.gif", "attn_type=flash"]), "attn_type=flash has no fp32 kernel"),
        (with(&["--output", "cat.gif", "cp_ulysses=3"]), "cp_ulysses=3: the 2 heads of wan-tiny do not divide by it"),
        (with(&["--output", "cat.gif", "--config", "smoke"]), "it is a sweep over low_mem_level"),
        (refused(&["--device", "cpu", "--output", "cat.gif"]), "no model is given"),
        (
            refused(&["--model", "wan-tiny", "--device", "virtual", "--gpu", "24GB", "--output", "cat.gif"]),
            "nothing is computed on the virtual GPU",
        ),
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn each_video_is_a_line_of_the_log_with_its_own_peaks() {
    let place = Place::new();
    let generate = |words: &[&str], code: i32| {
        let call =
            ["generate", "--model", "wan-tiny", "--device", "virtual", "--gpu", "24GB", "--prompt", "a secret", "--log", "videos.jsonl"];
        place.lowmem_with(ANSWERS).args(call).args(words).assert().code(code);
    };
    generate(&["low_mem_level=1", "--seed", "7"], 0);
    generate(&["low_mem_level=3"], 0);
    generate(&["low_mem_level=0"], 3);
    let text = std::fs::read_to_string(place.path("videos.jsonl")).expect("a log");
    assert!(text.ends_with('\n') && !text.contains("secret"), "{text}");
    let lines: Vec<_> = text.lines().map(|line| as_its_schema_says(line, "generate --log")).collect();
    let gib = |bytes: u64| json!(bytes << 30);
    let told: Vec<_> = lines.iter().map(|line| [&line["outcome"], &line["peak_allocated_bytes"], &line["peak_device_bytes"]]).collect();
    let (ok, oom) = (json!("ok"), json!("oom"));
    let null = serde_json::Value::Null;
    assert_eq!(told, [[&ok, &gib(20), &gib(21)], [&ok, &gib(5), &gib(6)], [&oom, &null, &null]]);
    assert_eq!(lines[0]["settings"], json!({ "low_mem_level": 1, "seed": 7, "steps_measured": 2 }));
    assert_eq!((&lines[0]["stages"][1]["stage"], &lines[0]["stages"][1]["peak_reserved_bytes"]), (&json!("denoise"), &gib(20)));
    assert_eq!((&lines[2]["failed_stage"], &lines[2]["stages"][1]["peak_allocated_bytes"]), (&json!("denoise"), &gib(20)));

    let refused =
        place.lowmem_with(WRITES).args(["generate", "--model", "wan-tiny", "--device", "virtual", "--gpu", "24GB", "--log", "."]).assert();
    assert!(stderr(&refused.code(2)).contains("--log .: "));
    assert!(!place.path("request.json").exists(), "a worker was started");
}

#[test]
fn settings_come_from_the_file_then_the_flags_then_the_words() {
    let place = Place::new();
    place.file("c.yaml", "model: wan-tiny\nseed: 1\nsteps: 3\nlow_mem_level: 1\n");
    let arguments = ["generate", "--config", "c.yaml", "--device", "cpu", "--prompt", "a dog", "--seed", "2", "--output", "cat.gif"];
    let assert =
        place.lowmem_with(WRITES).args(arguments).args(["infer.diffusion.low_mem_level=2", "resident_blocks=1"]).assert().success();
    let request = std::fs::read_to_string(place.path("request.json")).expect("the request");
    let request: serde_json::Value = serde_json::from_str(&request).expect("JSON");
    let config = &request["config"];
    assert_eq!((&config["seed"], &config["steps"], &config["low_mem_level"]), (&2.into(), &3.into(), &2.into()));
    assert_eq!(
        (&config["prompt"], &config["dtype"], &config["steps_measured"]),
        (&"a dog".into(), &"fp32".into(), &serde_json::Value::Null)
    );
    assert_eq!(request["output"], "cat.gif");
    assert!(stderr(&assert).contains("warning: resident_blocks has no effect"), "{}", stderr(&assert));
    let said = stdout(&assert);
    assert!(said.contains("1.50 s") && said.contains("Written: cat.gif") && said.contains("times are measured"), "{said}");
}

#[test]
fn a_failed_run_is_no_success() {
    let place = Place::new();
    let arguments = ["generate", "--model", "wan-tiny", "--device", "cpu", "--output", "cat.gif"];
    let assert = place.lowmem_with("begun denoise\nkill -11 $$\n").args(arguments).assert().code(1);
    assert!(stderr(&assert).contains("crashed with SIGSEGV in denoise"), "{}", stderr(&assert));
    let virtually = ["generate", "--model", "wan-tiny", "--device", "virtual", "--gpu", "8GB"];
    let assert = place.lowmem_with("begun denoise\noom denoise\n").args(virtually).assert().code(3);
    assert!(stderr(&assert).contains("out of memory in denoise: it needs at least 51.00 of 7.78 GiB"), "{}", stderr(&assert));
    assert!(!stderr(&assert).contains("flexcache"), "{}", stderr(&assert));
    // What a cache keeps on the GPU need not be there.
    let assert = place.lowmem_with("begun denoise\noom denoise\n").args(virtually).arg("flexcache=pab").assert().code(3);
    assert!(stderr(&assert).contains("Try low_mem_level=1, flexcache=none, a smaller --size"), "{}", stderr(&assert));
}

/// A100 with 40 GB: the weights fit, and what denoise needs beside them does not. Going on, the text encoder is not loaded again, so level 1 is enough.
#[test]
fn a_run_that_is_out_of_memory_goes_on_at_a_lower_level() {
    let words = ["generate", "--gpu", "a100-40gb", "--device", "virtual", "--model", "wan2.1-t2v-14b", "--size", "720p", "--steps", "2"];
    let assert = lowmem().args(words).arg("on_oom=lower").assert().success();
    let words_of_it = "denoise ran out of memory at level 0 after 0 steps: it goes on at level 1";
    assert!(stderr(&assert).contains(words_of_it) && stdout(&assert).contains(words_of_it), "{}", stderr(&assert));
    assert!(stdout(&assert).contains("predicted"), "{}", stdout(&assert));
    let said = stderr(&lowmem().args(words).assert().code(3));
    assert!(said.contains("out of memory in denoise") && said.contains("low_mem_level=1"), "{said}");
}

/// The same card at 480p: denoise fits, and decode does not. What is denoised is not denoised again, and of the weights the VAE's alone are loaded.
#[test]
fn what_is_done_is_not_done_again_at_the_lower_level() {
    let words = ["generate", "--gpu", "a100-40gb", "--device", "virtual", "--model", "wan2.1-t2v-14b", "--size", "480p", "--steps", "2"];
    let assert = lowmem().args(words).arg("on_oom=lower").assert().success();
    let (said, table) = (stderr(&assert), stdout(&assert));
    assert!(said.contains("decode ran out of memory at level 0: it goes on at level 1"), "{said}");
    assert_eq!(said.matches("2/2 denoise").count(), 1, "{said}");
    let load = table.lines().find(|line| line.trim_start().starts_with("load")).expect("a row of load");
    let cells: Vec<f64> = load.split_whitespace().skip(1).map(|cell| cell.parse().expect("GiB")).collect();
    assert!(cells[0] < 0.5 && cells[1] < 0.5, "more than the VAE was loaded: {load}");
}

/// Of this pool the high-noise transformer runs without guidance, and the low-noise one with both predictions in one pass, which is twice as large: the
/// card has room for the first steps alone.
#[test]
fn steps_that_are_done_are_not_taken_again() {
    let words = ["generate", "--gpu", "rtx-3060", "--device", "virtual", "--model", "wan2.2-t2v-a14b", "--size", "720p", "--steps", "6"];
    let flags = ["steps_measured=5", "low_mem_level=3", "resident_blocks=6", "guidance_scale=1", "low_noise_guidance_scale=3"];
    let assert = lowmem().args(words).args(flags).args(["guidance_batch=true", "on_oom=lower"]).assert().success();
    let said = stderr(&assert);
    assert!(said.contains("denoise ran out of memory at level 3 after 4 steps: it goes on without resident blocks"), "{said}");
    let steps: Vec<_> = said.lines().filter_map(|line| line.split_once("/5 denoise")).map(|(step, _)| step).collect();
    assert_eq!(steps, ["1", "2", "3", "4", "5"]);
}

#[test]
fn where_nothing_can_be_lowered_that_is_said() {
    let words = ["generate", "--gpu", "24GB", "--device", "virtual", "--model", "wan2.1-t2v-1.3b", "--steps", "1", "--frames", "1"];
    let assert = lowmem().args(words).args(["low_mem_level=3", "on_oom=lower"]).assert().success();
    assert!(stderr(&assert).contains("on_oom has no effect: level 3 without resident blocks takes least already"), "{}", stderr(&assert));
}
