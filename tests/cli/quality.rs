//! `lowmem quality`, and `lowmem sweep --quality`: what a case that gives up quality costs of it.

use serde_json::Value;

use crate::command::{Place, json, lowmem, stderr, stdout};

const SWEEP: [&str; 10] = [
    "sweep",
    "smoke",
    "--device",
    "cpu",
    "--out",
    "run",
    "low_mem_level=0",
    "attn_type=sdpa",
    "steps=8",
    "flexcache=none,taylorseer,magcache",
];

/// The quality of the run's cases, by their names.
fn of<'a>(quality: &'a Value, case: &str) -> &'a Value {
    quality.as_array().expect("a list").iter().find(|of| of["case"].as_str().is_some_and(|name| name.contains(case))).expect("measured")
}

#[test]
fn cases_with_a_cache_are_held_against_those_without() {
    let place = Place::new();
    // With this threshold magcache leaves no step out, and then nothing is lost.
    lowmem().current_dir(place.path("")).args(SWEEP).args(["flexcache_threshold=0", "flexcache_interval=2"]).assert().success();
    let quality = json(&lowmem().current_dir(place.path("")).args(["quality", "run", "--json"]).assert().success(), "quality");
    assert_eq!(quality.as_array().map(Vec::len), Some(2), "{quality}");
    let (same, other) = (of(&quality, "magcache"), of(&quality, "taylorseer"));
    assert!(same["psnr_db"].is_null() && same["ssim"] == 1.0 && same["latents_error"] == 0.0, "{same}");
    let psnr = other["psnr_db"].as_f64().expect("it differs");
    assert!((5.0..80.0).contains(&psnr) && other["ssim"].as_f64().is_some_and(|ssim| ssim < 1.0), "{other}");
    assert!(other["device"] == "cpu" && other["latents_error"].as_f64().is_some_and(|error| error > 0.0), "{other}");
    // What is known is not measured again, and the tables have it.
    let again = lowmem().current_dir(place.path("")).args(["quality", "run"]).assert().success();
    assert!(!stderr(&again).contains("Quality, 1 of"), "{}", stderr(&again));
    assert!(stdout(&again).contains(&format!("{psnr:.1}")), "{}", stdout(&again));
    let results = std::fs::read_to_string(place.path("run/results.csv")).expect("results");
    assert!(results.lines().next().is_some_and(|header| header.contains("psnr_db")) && results.contains(&psnr.to_string()), "{results}");
}

#[test]
fn a_sweep_measures_it_where_it_is_asked_to() {
    let place = Place::new();
    let said = stdout(&lowmem().current_dir(place.path("")).args(SWEEP).arg("--quality").assert().success());
    assert!(said.contains("taylorseer") && said.contains("PSNR") && said.contains("against the same seed without loss"), "{said}");
    assert!(place.path("run/quality.json").exists());
}

#[test]
fn where_nothing_is_computed_nothing_is_compared() {
    let place = Place::new();
    let words = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--quality", "--out", "run"];
    let said = stderr(&lowmem().current_dir(place.path("")).args(words).assert().code(2));
    assert!(said.contains("no videos to compare") && said.contains("--device cpu"), "{said}");
    assert!(!place.path("run").exists());
    lowmem().current_dir(place.path("")).args(["quality", "nowhere"]).assert().code(2);
}
