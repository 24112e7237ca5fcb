//! Where the machine's own memory runs out, that is what is said: nothing of the GPU, of frames or of sizes.

use std::fs;

use crate::command::{Place, executable, json, lowmem, stderr, stdout};
use assert_cmd::Command;
use assert_cmd::assert::Assert;

/// `lowmem` with those arguments, in 33 GB of address space: less than level 3 of the 14B model keeps on the host.
fn in_little_memory(arguments: &[&str]) -> Assert {
    let mut command = Command::new("sh");
    command.env_remove("LOWMEM_WORKER").env("CUDA_VISIBLE_DEVICES", "");
    command.args(["-c", "ulimit -v 33000000; exec \"$@\"", "sh"]).arg(executable("lowmem")).args(arguments);
    command.assert()
}

fn generate(settings: &[&str]) -> Assert {
    let fixed = ["generate", "--model", "wan2.1-t2v-14b", "--device", "virtual", "--prompt", "x", "resolution=480p", "steps_measured=1"];
    in_little_memory(&[&fixed, settings].concat())
}

#[test]
fn what_lacks_is_named_with_what_helps() {
    let level3 = ["--gpu", "rtx-3060", "low_mem_level=3"];
    for more in [&["pinned_memory=true"][..], &["pinned_memory=false"], &["pinned_memory=require"]] {
        let said = stderr(&generate(&[&level3, more].concat()).code(3));
        for part in
            ["out of host memory in load", "machine's own memory (RAM)", "were asked for", "stream_from=file", "weight_dtype=fp8_e4m3"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        for part in ["--frames", "--size", "frame #", "0.00 GiB", "CUDA out of memory"] {
            assert!(!said.contains(part), "{part}: {said}");
        }
    }
    generate(&[&level3[..], &["stream_from=file"]].concat()).success();
    generate(&[&level3[..], &["weight_dtype=fp8_e4m3"]].concat()).success();
}

#[test]
fn what_the_virtual_gpu_lacks_of_this_machine_is_not_the_cards() {
    let said = stderr(&generate(&["--gpu", "h100", "low_mem_level=0"]).code(3));
    assert!(said.contains("out of host memory in load") && said.contains("ulimit -v"), "{said}");
    assert!(!said.contains("it needs at least"), "{said}");
}

#[test]
fn a_sweep_has_it_as_an_outcome_of_its_own() {
    let place = Place::new();
    let out = place.path("run");
    let fixed = ["sweep", "model=wan2.1-t2v-14b", "resolution=480p", "low_mem_level=3", "attn_type=sdpa", "vae_tile_size=32", "frames=5"];
    let on = ["--gpu", "rtx-3060", "--device", "virtual", "--out", out.to_str().expect("a path")];
    let said = in_little_memory(&[&fixed[..], &on].concat()).success();
    let said = stdout(&said);
    assert!(said.contains("oom_host in load") && said.contains("nothing fits this machine") && said.contains("stream_from=file"), "{said}");
    assert!(!said.contains("0.00 GiB"), "{said}");
    let rows = place.rows("run");
    assert_eq!((&rows[0]["outcome"], &rows[0]["requested_bytes"], &rows[0]["needed_bytes"]), ("oom_host", "", ""));
    assert!(rows[0].bytes("host_requested_bytes") > rows[0].bytes("host_available_bytes"));
    // Another time the machine may have more: resuming runs it again.
    lowmem().args(fixed).args(on).arg("--resume").assert().success();
    assert_eq!(&place.rows("run")[0]["outcome"], "ok");
}

#[test]
fn what_is_not_page_locked_waits_in_ordinary_memory_with_a_warning() {
    let generate = |bytes: &str, settings: &[&str]| {
        let mut command = lowmem();
        command.env("LOWMEM_VIRTUAL_GPU_PINNED_LIMIT", bytes);
        command.args(["generate", "--model", "wan2.1-t2v-1.3b", "--gpu", "rtx-3060", "--device", "virtual", "--prompt", "x"]);
        command.args(["resolution=480p", "frames=5", "steps_measured=1", "low_mem_level=3"]).args(settings).assert()
    };
    let said = |bytes: &str| stdout(&generate(bytes, &[]).success());
    assert!(!said("100000000000").contains("Warning"));
    // A gigabyte and the ring; then next to nothing.
    for (bytes, rate) in [("1000000000", "at some 20 GB/s"), ("1000000", "at some 9 GB/s")] {
        let said = said(bytes);
        assert!(said.contains("Warning: the machine did not page-lock") && said.contains(rate), "{bytes}: {said}");
    }
    let said = stderr(&generate("1000000000", &["pinned_memory=require"]).code(3));
    assert!(said.contains("of page-locked memory more were asked for") && said.contains("pinned_memory=true"), "{said}");
    generate("100000000000", &["pinned_memory=require"]).success();

    // Of weights from files the ring alone is page-locked, and of those that wait in memory what passes by way of one.
    let from_file = ["stream_from=file"];
    let said = crate::command::stdout(&generate("1000000", &from_file).success());
    assert!(said.contains("Warning: the machine did not page-lock") && said.contains("at some 9 GB/s"), "{said}");
    let required = |bytes: &str, settings: &[&str]| generate(bytes, &[settings, &["pinned_memory=require"]].concat());
    let streamed_encoder = ["resident_blocks=30", "offload_text_encoder=stream", "max_pinned_gib=0.3"];
    // The second has room for what waits in page-locked memory, and not for the ring.
    for (bytes, settings) in [("1000000", &from_file[..]), ("100000000", &streamed_encoder)] {
        let said = stderr(&required(bytes, settings).code(3));
        assert!(said.contains("of page-locked memory more were asked for") && said.contains("pinned_memory=true"), "{settings:?}: {said}");
        required("400000000", settings).success();
    }
}

/// What `lowmem autotune` answers for A14B at level 3 on a card of 12 GB in a machine of so much memory.
fn autotune_in(ram: &str) -> serde_json::Value {
    let words = "--gpu rtx-3060 --model wan2.2-t2v-a14b --resolution 480p --frames 5 low_mem_level=3 vae_tile_size=8 --json";
    let place = Place::new();
    let mut command = place.autotune("run", words);
    command.args(["--ram", ram]);
    json(&command.assert().success(), "autotune")
}

#[test]
fn autotune_goes_by_the_machines_memory_too() {
    let best = |ram: &str| {
        let answer = autotune_in(ram);
        let bytes = |value: &serde_json::Value| value.as_u64().expect("bytes");
        assert!(bytes(&answer["best"]["ram_peak_bytes"]) <= bytes(&answer["ram_bytes"]), "{ram}: {answer}");
        answer["best"]["settled"].as_str().expect("told").to_owned()
    };
    // Weights wait in memory, all or one model at a time; or they are read from their files.
    for (ram, settled) in [("96GB", "stream_from=memory"), ("32GB", "stream_from=memory"), ("16GB", "stream_from=file")] {
        let said = best(ram);
        assert!(said.contains(settled), "{ram}: {said}");
    }
}

#[test]
fn nothing_that_ram_does_not_hold_is_recommended() {
    let place = Place::new();
    let on = ["--device", "virtual", "--gpu", "rtx-3060"];
    let autotune = |place: &Place| {
        let mut command = lowmem();
        command
            .args(["autotune", "--ram", "3GB", "--model", "wan2.1-t2v-14b", "--frames", "5", "low_mem_level=3", "stream_from=memory"])
            .args(on);
        command.arg("--out").arg(place.path("tuned")).assert()
    };
    let said = stdout(&autotune(&place).code(3));
    assert!(said.contains("Nothing fits the machine's memory (RAM): level3") && said.contains(" GiB, and there are 1.41."), "{said}");

    fs::write(
        place.path("two.yaml"),
        "model: wan2.1-t2v-14b\nframes: 5\nlow_mem_level: 3\nstream_from: memory\ncases:\n  - {load_weights: at_start}\n  - {load_weights: as_used}\n",
    )
    .expect("written");
    let mut sweep = lowmem();
    sweep.arg("sweep").arg(place.path("two.yaml")).args(on).args(["--ram", "32GB", "--out"]).arg(place.path("run"));
    let said = stdout(&sweep.assert().success());
    assert!(said.contains("Does not fit 29.54 GiB of RAM, and is not recommended: load_weights-at_start"), "{said}");
    assert!(said.contains("level 3 (load_weights=as_used") && said.contains("of 29.54 GiB, 26."), "{said}");
    let rows = place.rows("run");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert!(row.bytes("predicted_host_peak_bytes") > row.bytes("host_pinned_peak_bytes"));
        assert_eq!(&row["host_pinned_peak_bytes"], &row["predicted_host_pinned_peak_bytes"]);
        assert_eq!(&row["host_peak_bytes"], "", "on the virtual GPU no weight is written");
        assert_eq!(&row["denoise_host_pinned_peak_bytes"], &row["denoise_predicted_host_pinned_peak_bytes"]);
    }
}

#[test]
fn a_plan_holds_ram_against_its_budget() {
    let plan = |settings: &[&str]| {
        let mut command = lowmem();
        command.args(["plan", "--model", "wan2.1-t2v-14b", "low_mem_level=3"]).args(settings);
        stdout(&command.assert())
    };
    assert!(plan(&[]).contains("RAM is assumed unlimited: --ram 32GB plans for a machine's own. 38."));
    assert!(plan(&["--ram", "32GB"]).contains("Fits: 27."), "one model at a time");
    assert!(plan(&["--ram", "32GB", "load_weights=at_start", "stream_from=memory"]).contains("Does not fit: 38."));
    let said = stderr(&lowmem().args(["plan", "--model", "wan-tiny", "--ram", "lots"]).assert().code(2));
    assert!(said.contains("--ram lots: say how much memory the machine has, such as 32GB"), "{said}");
}
