//! `lowmem autotune`.

use serde_json::Value;

use crate::command::{ANSWERS, Place, as_its_schema_says, json, lowmem, stderr, stdout};

const ARGUMENTS: [&str; 9] = ["autotune", "--gpu", "24GB", "--device", "virtual", "--model", "wan-tiny", "--out", "run"];

#[test]
fn the_fastest_that_fits_is_recommended() {
    let place = Place::new();
    let said = stdout(&place.lowmem_with(ANSWERS).args(ARGUMENTS).assert().success());
    for part in [
        "Fastest, recommended: level 1",
        "vae_tile_size=512",
        "Fits: 21.00 of 23.65 GiB (virtual)",
        "Peak: 20.00 GiB allocated, 20.00 GiB reserved, 21.00 GiB device, in denoise",
        "Time: not known",
        "Run it: lowmem generate --model wan-tiny --prompt 'a cat' --output video.mp4",
        "low_mem_level=1",
        "Smallest: level 3",
        "the lowest level that fits wins",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn the_smallest_peak_is_best_for_memory() {
    let place = Place::new();
    let said = stdout(&place.lowmem_with(ANSWERS).args(ARGUMENTS).args(["--objective", "memory", "--json"]).assert().success());
    let answer = as_its_schema_says(&said, "autotune");
    assert_eq!((&answer["best"], &answer["best"]["low_mem_level"]), (&answer["smallest"], &3.into()));
    assert_eq!(answer["fastest"]["low_mem_level"], 1);
    assert_eq!(answer["best"]["peak_device_bytes"], 6u64 << 30);
    assert_eq!((&answer["best"]["total_secs"], &answer["nearest_miss"]), (&Value::Null, &Value::Null));
    // Each placement once, and level 0 again with every head at once and with fewer: it runs out in denoise.
    let rows = place.rows("run");
    assert!(rows.iter().filter(|row| &row["outcome"] == "ok").all(|row| row.bytes("low_mem_level") > 0));
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
        "ran out of memory in denoise and needs at least 33.00 of 23.65 GiB: at least 9.35 GiB are missing.",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let rows = place.rows("run");
    assert!(rows.iter().all(|row| ["", "512"].contains(&&row["vae_tile_size"])), "a smaller tile does not help denoise");
}

/// Each placement follows its own card, and the faster one has more to do where that is shorter.
#[test]
fn a_split_over_unlike_cards_is_found() {
    let place = Place::new();
    let video = "--model wan2.1-t2v-1.3b --resolution 832x480 --frames 21 --gpu rtx-3060,rtx-4090 cfg_size=1 low_mem_level=3 --json";
    let found = json(&place.autotune("run", video).assert().success(), "autotune");
    let fastest = found["fastest"]["command"].as_str().expect("a command");
    assert!(fastest.starts_with("lowmem generate --gpu rtx-4090,rtx-3060 ") && fastest.contains(" cp_split=speed "), "{fastest}");
    let rows = place.rows("run");
    assert!(rows.iter().all(|row| (&row["ranks"], &row["outcome"]) == ("2", "ok")), "each is predicted to fit, and does");
    let words = ["advise", "--model", "wan2.1-t2v-1.3b", "--gpu", "rtx-3060,rtx-4090", "--json"];
    let advice = json(&lowmem().args(words).assert().success(), "advise");
    let best = &advice["models"][0]["usual"]["best"];
    assert!(best["command"].as_str().is_some_and(|command| command.contains("--gpu rtx-4090,rtx-3060")), "{best}");
}

#[test]
fn the_split_over_several_gpus_is_found() {
    let place = Place::new();
    let words = "--model wan2.1-t2v-1.3b --resolution 832x480 --frames 21 --gpu h100 --gpus 2 low_mem_level=1";
    let said = stdout(&place.autotune("run", words).assert().success());
    for part in ["Fastest, recommended: level 1 on 2 GPUs", "GiB on the fullest GPU (virtual)", "cfg_size=2", "--output video.mp4"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let rows = place.rows("run");
    let ok: Vec<_> = rows.iter().filter(|row| &row["outcome"] == "ok").collect();
    // The one that is fastest by the plan, and the one that takes least.
    assert!(ok.iter().any(|row| &row["cfg_size"] == "2") && ok.iter().any(|row| &row["cp_ulysses"] == "2"), "{}", ok.len());
    for row in ok {
        let [peaks, steps, exchanges] =
            ["peak_device_bytes_by_rank", "denoise_secs_by_rank", "exchange_secs_by_rank"].map(|column| row[column].split(' '));
        assert_eq!([peaks.count(), steps.count(), exchanges.count()], [2, 2, 2], "{}", &row["case"]);
        assert!(row["exchange_secs"].parse::<f64>().is_ok_and(|secs| secs > 0.0), "{}", &row["exchange_secs"]);
    }
    let text = |name: &str| std::fs::read_to_string(place.path("run").join(name)).expect("it is written");
    assert!(text("recommended.yaml").contains("level 1 on 2 GPUs (") && text("recommended.yaml").contains("cfg_size: 2\n"));
    assert!(text("report.html").contains("<b>Level 1 on 2 GPUs</b>") && text("report.html").contains("<summary>GPU by GPU</summary>"));
    let refused = Place::new().autotune("run", &format!("{words} cp_size=3")).assert().code(2);
    assert!(stderr(&refused).contains("--gpus 2: cp_size=3 does not make 2 ranks"), "{}", stderr(&refused));
}

/// What takes least does not fit as it is: then heads are taken in parts.
#[test]
fn what_fits_by_cutting_denoise_is_found() {
    let best = |words: &str| {
        let said = stdout(&Place::new().autotune("run", words).arg("--json").assert().success());
        let answer = as_its_schema_says(&said, "autotune");
        let peak = answer["best"]["peak_device_bytes"].as_u64().expect("a peak");
        assert!(peak <= answer["capacity_bytes"].as_u64().expect("a capacity"), "{answer:#}");
        answer["best"]["settings"]["head_chunk"].as_u64().unwrap_or(0)
    };
    assert!(best("--model wan2.1-t2v-14b --resolution 1280x720 --frames 81 --gpu 2.8GB") > 0);
    assert!(best("--model wan2.1-t2v-1.3b --resolution 832x480 --frames 81 --gpu 8GB") == 0, "nothing is cut where there is room");
}

#[test]
fn where_nothing_fits_what_would_is_said() {
    let place = Place::new();
    let words = "--model wan2.1-t2v-14b --resolution 1280x720 --gpu 2GB";
    let assert = place.autotune("run", words).arg("--json").assert().code(3);
    let answer = json(&assert, "autotune");
    let [needed, missing] = ["needed_bytes", "missing_bytes"].map(|key| answer["nearest_miss"][key].as_u64().expect(key));
    assert_eq!(needed - missing, answer["capacity_bytes"].as_u64().expect("a capacity"), "{answer:#}");
    let would_fit = &answer["would_fit"];
    assert!(would_fit["frames"].as_u64().is_some_and(|frames| frames < 81 && frames % 4 == 1), "{answer:#}");
    assert_eq!((&would_fit["resolution"], would_fit["card"].is_string()), (&"832x480".into(), true), "{answer:#}");
    // What is said to fit does.
    place.autotune("again", words).args(["--frames", &would_fit["frames"].to_string()]).assert().success();
}

#[test]
fn a_deadline_and_a_margin_are_kept() {
    let place = Place::new();
    let words = "--model wan2.1-t2v-1.3b --resolution 480p --gpu rtx-4090 --json";
    let asked = |name: &str, more: &[&str]| place.autotune(name, words).args(more).assert();
    let answer = json(&asked("margin", &["--margin", "50%", "--reserve", "1GB"]).success(), "autotune");
    let [peak, capacity] = [&answer["best"]["peak_device_bytes"], &answer["capacity_bytes"]].map(|bytes| bytes.as_u64().expect("bytes"));
    assert!(peak <= capacity / 2 - (1 << 30), "{answer:#}");
    let answer = json(&asked("deadline", &["--deadline", "1s"]).code(3), "autotune");
    assert!(answer["best"].is_null() && answer["too_slow"]["total_secs"]["expected"].as_f64().is_some_and(|secs| secs > 1.0), "{answer:#}");
    for (option, wrong) in [("--deadline", "soon"), ("--margin", "120%"), ("--reserve", "much")] {
        asked("wrong", &[option, wrong]).code(2);
    }
}

#[test]
fn a_search_without_an_answer_is_no_miss() {
    let place = Place::new();
    place.lowmem_with("exit 1").args(ARGUMENTS).assert().code(4);
}

#[test]
fn cards_of_the_size_that_was_named_which_hold_less_are_named() {
    let fits = |gpu: &str| {
        let words =
            "--model wan2.1-t2v-14b --resolution 1408x800 --frames 121 low_mem_level=0 load_weights=at_start offload_text_encoder=off";
        stdout(&Place::new().autotune("run", words).args(["--gpu", gpu]).assert().success())
    };
    // 45 GiB: an RTX 6000 Ada holds that, an L40S does not.
    let said = fits("48GB");
    assert!(said.contains("Does not fit l40s (44.53 GiB), l20 (44.53 GiB), sold with as much memory: name the card"), "{said}");
    assert!(!fits("rtx-6000-ada").contains("Does not fit"), "its own memory is known");
}

/// What gives up quality is tried where that is allowed alone, upon the fastest that does not, and its answer says so.
#[test]
fn lossy_ways_are_tried_and_named_where_they_are_allowed() {
    let place = Place::new();
    let fixed = ["low_mem_level=3", "resident_blocks=0", "vae_tile_size=8", "head_chunk=0", "prefetch_blocks=1", "guidance_batch=false"];
    let fixed = [&fixed[..], &["offload_text_encoder=cpu", "weight_dtype=as_stored"]].concat();
    let autotune = |out: &str, more: &[&str]| {
        let mut command = lowmem();
        command.current_dir(place.path("")).args(["autotune", "--device", "virtual", "--model", "wan2.1-t2v-1.3b", "--out", out]);
        command.args(more).args(&fixed);
        command
    };
    let names = |out: &str| place.rows(out).iter().map(|row| row["case"].to_owned()).collect::<Vec<_>>();
    let exact = json(&autotune("exact", &["--gpu", "rtx-4090", "--json"]).assert().success(), "autotune");
    let lossy = json(&autotune("lossy", &["--gpu", "rtx-4090", "--allow-lossy", "--json"]).assert().success(), "autotune");
    let more = names("lossy").into_iter().filter(|name| !names("exact").contains(name)).collect::<Vec<_>>();
    assert_eq!(more.len(), 3, "each of the two ways, and both: {more:?}");
    let secs = |answer: &Value| answer["fastest"]["total_secs"]["expected"].as_f64().expect("a time");
    assert!(secs(&lossy) < secs(&exact), "{lossy} and {exact}");
    let said = stdout(&autotune("said", &["--gpu", "rtx-4090", "--allow-lossy"]).assert().success());
    for part in [
        "It gives up quality for that: ",
        "flexcache=magcache",
        "Fastest wins.",
        "a cache of sampler steps may be used: they change the video.",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    // Turing has no kernel for attention in 8 bits, and what is fixed is not tried otherwise.
    let cache_alone = autotune("turing", &["--gpu", "t4", "--allow-lossy", "dtype=fp16", "attn_type=math"]).assert();
    assert!(names("turing").iter().all(|name| !name.contains("sage")), "{:?} {}", names("turing"), stdout(&cache_alone));
}
