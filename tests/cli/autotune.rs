//! `lowmem autotune`.

use serde_json::Value;

use crate::command::{ANSWERS, Place, lowmem, stdout};

const ARGUMENTS: [&str; 9] = ["autotune", "--gpu", "24GB", "--device", "virtual", "--model", "wan-tiny", "--out", "run"];

#[test]
fn the_lowest_level_that_fits_is_best() {
    let place = Place::new();
    let said = stdout(&place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success());
    for part in [
        "Best: level 1",
        "vae_tile_size=16",
        "Fits: 21.00 of 23.65 GiB (virtual)",
        "Peak: 20.00 GiB allocated, 20.00 GiB reserved, 21.00 GiB device, in denoise",
        "Time: not known",
        "Run it: lowmem generate --model wan-tiny --prompt 'a cat' --output video.mp4",
        "low_mem_level=1",
        "Second: level 1",
        "the lowest level that fits wins",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    // Levels 2 and 3 could not be better.
    assert!(place.rows("run").iter().all(|row| row.bytes("low_mem_level") <= 1));
}

#[test]
fn the_smallest_peak_is_best_for_memory() {
    let place = Place::new();
    let said = stdout(&place.lowmem_with(ANSWERS).args(ARGUMENTS).args(["--objective", "memory", "--json"]).assert().success());
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["best"]["low_mem_level"], 3);
    assert_eq!(answer["best"]["peak_device_bytes"], 6u64 << 30);
    assert_eq!(answer["best"]["total_secs"], Value::Null);
    assert_eq!(answer["nearest_miss"], Value::Null);
    // Level 0 has no tiles; it ran out before the VAE, but was the only one of its level.
    assert_eq!(place.rows("run").len(), 13);
}

#[test]
fn nothing_fits_is_exit_3_with_the_nearest_miss() {
    let place = Place::new();
    // Level 3 asks for least; all run out in denoise, where no tile size helps.
    let script = r#"begun denoise
case "$request" in *'"low_mem_level":3'*) oom denoise 2 ;; esac
oom denoise
"#;
    let said = stdout(&place.lowmem_with(script).args(ARGUMENTS).args(["--jobs", "1"]).assert().code(3));
    for part in [
        "Nothing fits into 23.65 GiB",
        "Nearest: level3",
        "ran out of memory in denoise and needs at least 33.00 of 23.65 GiB. At least 9.35 GiB are missing.",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert_eq!(place.rows("run").len(), 5, "one case a level, and at level 3 one with resident blocks and one without");
}

#[test]
fn a_search_without_an_answer_is_no_miss() {
    let place = Place::new();
    place.lowmem_with("exit 1").args(ARGUMENTS).assert().code(4);
}

#[test]
fn cards_of_the_size_that_was_named_which_hold_less_are_named() {
    let fits = |gpu: &str| {
        let place = Place::new();
        let mut command = lowmem();
        command.args([
            "autotune",
            "--device",
            "virtual",
            "--gpu",
            gpu,
            "--model",
            "wan2.1-t2v-14b",
            "--resolution",
            "1408x800",
            "--frames",
            "121",
        ]);
        stdout(&command.args(["low_mem_level=0", "--out"]).arg(place.path("run")).assert().success())
    };
    // 45 GiB: an RTX 6000 Ada holds that, an L40S does not.
    let said = fits("48GB");
    assert!(said.contains("Does not fit l40s (44.53 GiB), l20 (44.53 GiB), sold with as much memory: name the card"), "{said}");
    assert!(!fits("rtx-6000-ada").contains("Does not fit"), "its own memory is known");
}
