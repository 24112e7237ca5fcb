//! `lowmem compare`, `cards`, `max` and `advise`: answers that set things side by side.

use std::fs;

use serde_json::Value;

use crate::command::{ANSWERS, Place, json, lowmem, stderr, stdout};

const SWEEP: [&str; 6] = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual"];

#[test]
fn two_runs_are_held_against_each_other() {
    let place = Place::new();
    place.lowmem_with(ANSWERS).args(SWEEP).args(["--out", "before"]).assert().success();
    let grown = ANSWERS.replace("ended denoise 10", "ended denoise 11");
    place.lowmem_with(&grown).args(SWEEP).args(["--out", "after"]).assert().success();
    let words = ["compare", "before", "after"];
    let said = stdout(&place.lowmem_with(ANSWERS).args(words).assert().success());
    assert!(said.contains("+9.1%") && said.contains('='), "{said}");
    // Device memory of level 2 went from 11 to 12 GiB.
    place.lowmem_with(ANSWERS).args(words).args(["--fail-above", "10%"]).assert().success();
    let assert = place.lowmem_with(ANSWERS).args(words).args(["--fail-above", "2%", "--json"]).assert().code(5);
    let found = json(&assert, "compare");
    let failed: Vec<_> = found["failed"].as_array().expect("cases").iter().filter_map(Value::as_str).collect();
    assert_eq!(failed, ["level2-sdpa", "level2-math"]);
    let [before, after] = ["before", "after"].map(|run| found["cases"][4]["peak_device_bytes"][run].as_f64().expect("bytes"));
    assert_eq!([before, after], [11.0, 12.0].map(|gib| gib * f64::from(1 << 30)));
    place.lowmem_with(ANSWERS).args(words).args(["--fail-above", "2%", "--html", "page.html"]).assert().code(5);
    let page = fs::read_to_string(place.path("page.html")).expect("a page");
    assert!(page.contains("2 of 8 cases got worse") && page.matches("<tr class=\"failure\">").count() == 2, "{page}");
    // What does not fit any more is worse, whatever its figures are.
    let worse = ANSWERS.replace("*) ended denoise 5", "*) oom denoise");
    place.lowmem_with(&worse).args(SWEEP).args(["--out", "worse"]).assert().success();
    place.lowmem_with(ANSWERS).args(["compare", "before", "worse", "--fail-above", "1000%"]).assert().code(2);
    place.lowmem_with(ANSWERS).args(["compare", "before", "worse", "--fail-above", "99%"]).assert().code(5);
    let assert = place.lowmem_with(ANSWERS).args(["compare", "before", "nowhere"]).assert().code(2);
    assert!(stderr(&assert).contains("nowhere is not a run directory"), "{}", stderr(&assert));
}

#[test]
fn cards_stand_side_by_side_with_what_they_cost() {
    let place = Place::new();
    place.file("prices.yaml", "rtx-3060: 0.10\nrtx-4090: 0.40\n");
    let words = ["cards", "--model", "wan2.1-t2v-1.3b", "--resolution", "480p", "--gpu", "rtx-3060,rtx-4090", "--prices", "prices.yaml"];
    let said = stdout(&lowmem().current_dir(place.path("")).args(words).assert().success());
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    let rows = json(&lowmem().current_dir(place.path("")).args(words).arg("--json").assert().success(), "cards");
    let figure = |row: usize, key: &str| rows[row][key].as_f64().unwrap_or_else(|| panic!("{key}: {rows:#}"));
    assert!(figure(1, "videos_a_day") > figure(0, "videos_a_day"), "{rows:#}");
    let secs = rows[0]["best"]["total_secs"]["expected"].as_f64().expect("a time");
    assert!((figure(0, "cost_a_video") - 0.10 * secs / 3600.0).abs() < 1e-9);
    assert!(rows[1]["largest_resolution"].is_string());
    place.file("prices.yaml", "rtx-9999: 1\n");
    let assert = lowmem().current_dir(place.path("")).args(words).assert().code(2);
    assert!(stderr(&assert).contains("`rtx-9999` is no GPU profile"), "{}", stderr(&assert));
}

/// The end that is found fits as it runs, and a little more does not, with heads taken as finely.
#[test]
fn the_largest_video_is_where_the_next_does_not_fit() {
    let words = ["max", "--gpu", "1.5GB", "--model", "wan2.1-t2v-1.3b", "--resolution", "480p", "--json"];
    let found = json(&lowmem().args(words).assert().success(), "max");
    let largest = &found["largest"][0];
    let frames = largest["frames"].as_u64().expect("frames");
    assert!(frames % 4 == 1 && frames > 21, "{found:#}");
    let fits = |frames: u64| {
        let words = "--gpu 1.5GB --model wan2.1-t2v-1.3b --resolution 480p head_chunk=4 --frames";
        Place::new().autotune("run", words).arg(frames.to_string()).ok().is_ok()
    };
    assert!(fits(frames) && !fits(frames + 20), "{found:#}");
    // Each of two GPUs of that kind holds half of a longer one.
    let found = json(&lowmem().args(words).args(["--gpus", "2"]).assert().success(), "max");
    let largest = &found["largest"][0];
    assert!(largest["settings"]["cp_size"] == 2 && largest["frames"].as_u64() > Some(frames), "{found:#}");
    // Of the largest of each ratio one runs, and what the others take is predicted.
    let words = ["max", "--gpu", "1.5GB", "--gpus", "2", "--model", "wan2.1-t2v-1.3b", "--frames", "5", "--json"];
    let found = json(&lowmem().args(words).assert().success(), "max");
    let largest = found["largest"].as_array().expect("rows");
    let pixels = |row: &Value| {
        let (width, height) = row["resolution"].as_str().and_then(|size| size.split_once('x')).expect("a size");
        width.parse::<u64>().expect("a number") * height.parse::<u64>().expect("a number")
    };
    let (ran, predicted): (Vec<_>, Vec<_>) = largest.iter().partition(|row| row["predicted"].is_null());
    assert!(ran.len() == 1 && ran[0]["peak_device_bytes"].is_u64() && predicted.len() == 4, "{found:#}");
    assert!(predicted.iter().all(|row| row["predicted"]["gpu_bytes"].is_u64() && pixels(row) <= pixels(ran[0])), "{found:#}");
    let both = ["max", "--gpu", "1.5GB", "--resolution", "480p", "--frames", "5"];
    assert!(stderr(&lowmem().args(both).assert().code(2)).contains("and not both"));
}

#[test]
fn advice_is_for_as_many_gpus_as_are_asked_for() {
    let words = ["advise", "--gpu", "12GB", "--gpus", "4", "--model", "wan-tiny"];
    let said = stdout(&lowmem().args(words).assert().success());
    assert!(said.contains("on 4 GPUs: cp_size=2, cfg_size=2") && said.contains("GiB on the fullest GPU"), "{said}");
}

#[test]
fn advice_is_for_the_machine_that_is_named() {
    let words = ["advise", "--gpu", "12GB", "--ram", "32GB", "--model", "wan2.1-t2v-1.3b"];
    let said = stdout(&lowmem().args(words).assert().success());
    for part in [
        "wan2.1-t2v-1.3b (832x480, 81 frames)",
        "Use      level ",
        "Memory   GPU ",
        " of 11.5 GiB, RAM ",
        "Time     ",
        "Run      lowmem generate",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    // Where there is no GPU, it is asked for.
    let said = stderr(&lowmem().assert().code(2));
    assert!(said.contains("lowmem advise --gpu 12GB --ram 32GB"), "{said}");
    let nothing = ["advise", "--gpu", "1GB", "--model", "wan2.1-t2v-14b"];
    assert!(stdout(&lowmem().args(nothing).assert().code(3)).contains("Does not fit: it needs "));
}
