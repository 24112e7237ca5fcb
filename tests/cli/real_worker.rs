//! The same commands with the real worker and the virtual GPU.

use std::fs;

use crate::command::{Place, lowmem, stderr, stdout};

#[test]
fn the_same_seed_makes_the_same_video() {
    let place = Place::new();
    let make = |name: &str, seed: &str| {
        let output = place.path(name);
        let mut command = lowmem();
        command.args(["generate", "--model", "wan-tiny", "--device", "cpu", "--prompt", "a cat", "--seed", seed, "--output"]).arg(&output);
        let assert = command.assert().success();
        assert!(stdout(&assert).contains("times are measured"), "{}", stdout(&assert));
        fs::read(output).expect("a video")
    };
    let first = make("first.gif", "7");
    assert!(first.starts_with(b"GIF89a"));
    assert_eq!(first, make("second.gif", "7"), "same seed, same bytes");
    assert_ne!(first, make("third.gif", "8"), "another seed, another video");
}

#[test]
fn a_sweep_on_the_cpu_has_times_and_no_gpu_memory() {
    let place = Place::new();
    let assert = lowmem().args(["sweep", "smoke", "attn_type=sdpa", "--device", "cpu", "--out"]).arg(place.path("run")).assert().success();
    let rows = place.rows("run");
    assert_eq!(rows.len(), 4, "{}", stderr(&assert));
    for row in rows {
        assert_eq!((&row["outcome"], &row["time_source"], &row["memory_source"]), ("ok", "measured", ""), "{}", &row["error"]);
        assert!(row["total_secs"].parse::<f64>().is_ok_and(|secs| secs > 0.0));
        assert_eq!((&row["peak_allocated_bytes"], &row["gpu"], &row["dtype"]), ("", "", "fp32"));
    }
}

#[test]
fn a_sweep_on_the_virtual_gpu_has_memory_and_modelled_times() {
    let place = Place::new();
    let assert =
        lowmem().args(["sweep", "smoke", "--device", "virtual", "--gpu", "24GB", "--out"]).arg(place.path("run")).assert().success();
    let rows = place.rows("run");
    assert_eq!(rows.len(), 8, "{}", stderr(&assert));
    for row in rows {
        assert_eq!((&row["outcome"], &row["memory_source"], &row["time_source"]), ("ok", "virtual", "modelled"), "{}", &row["error"]);
        let [allocated, reserved, device] =
            ["peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"].map(|column| row.bytes(column));
        assert!(0 < allocated && allocated <= reserved && reserved < device, "{allocated} {reserved} {device}");
        let secs = |column: &str| row[column].parse::<f64>().unwrap_or_else(|_| panic!("{column}: {}", &row[column]));
        let [low, expected, high] = ["total_secs_low", "total_secs", "total_secs_high"].map(secs);
        assert!(0.0 < low && low < expected && expected < high, "{low} {expected} {high}");
        let parts = ["text_encode_secs", "denoise_secs", "vae_decode_secs"].map(secs);
        assert!((parts.iter().sum::<f64>() - expected).abs() < 1e-9 * expected, "{parts:?} {expected}");
    }
}

#[test]
fn the_14b_model_runs_out_at_level_0_on_24_gb_and_fits_at_level_3() {
    let place = Place::new();
    let arguments = ["sweep", "--device", "virtual", "--gpu", "24GB", "attn_type=sdpa", "vae_tile_size=8", "resolution=480p", "--out"];
    lowmem().args(arguments).arg(place.path("run")).assert().success();
    let rows = place.rows("run");
    assert_eq!(rows.len(), 4);
    assert_eq!(&rows[0]["outcome"], "oom");
    assert!(!rows[0]["failed_stage"].is_empty());
    assert_eq!(&rows[3]["outcome"], "ok", "{}", &rows[3]["error"]);
}
