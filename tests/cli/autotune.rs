//! `lowmem autotune`.

use serde_json::Value;

use crate::command::{ANSWERS, Place, stdout};

const ARGUMENTS: [&str; 9] = ["autotune", "--gpu", "24GB", "--device", "virtual", "--model", "wan-tiny", "--out", "run"];

#[test]
fn the_lowest_level_that_fits_is_best() {
    let place = Place::new();
    let said = stdout(&place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success());
    for part in [
        "Best: level 1",
        "vae_tile_size=16",
        "peak: 20.00 GiB allocated, 20.00 GiB reserved, 21.00 GiB of the device of 23.65 GiB (virtual), in denoise",
        "time: not known",
        "run it: lowmem generate --model wan-tiny --prompt 'a cat' --output video.mp4",
        "low_mem_level=1",
        "Second: level 1",
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
        "Nearest miss: level3",
        "out of memory in denoise: it needs at least 33.00 GiB, at least 9.35 GiB more",
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
