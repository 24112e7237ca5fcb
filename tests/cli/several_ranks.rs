//! One video on several GPUs: a worker for each rank, and one outcome of all.

use std::fs;
use std::path::Path;

use engine_protocol::{CpSplit, Home, PlanReport, RankRecord, ResidentBlocks, RunRecord, Secs, Split, Stage};

use crate::command::{Place, Row, lowmem, stderr, stdout};

const FIXED: [&str; 8] = ["generate", "--model", "wan-tiny", "--gpu", "h100", "--device", "virtual", "--json"];

/// The record of two ranks of which one does as `rank_1` says, and the other one as `rank_0` does.
fn of_two(place: &Place, rank_0: &str, rank_1: &str) -> RunRecord {
    let script =
        format!("begun load\nended load 1\nbegun denoise\ncase \"$request\" in *'\"rank\":1'*)\n{rank_1}\n;; *)\n{rank_0}\n;; esac\n");
    let assert = place.lowmem_with(&script).args(FIXED).args(["cp_size=2", "--timeout", "60"]).assert();
    serde_json::from_str(&stdout(&assert)).unwrap_or_else(|error| panic!("{error}: {}", stderr(&assert)))
}

#[test]
fn ranks_run_on_virtual_gpus() {
    for (split, ranks) in
        [("cp_size=2", 2), ("cp_ring=3", 3), ("cfg_size=2", 2), ("flexcache=teacache", 1), ("cp_size=2 flexcache=teacache", 2)]
    {
        let assert = lowmem().args(FIXED).args(split.split(' ')).assert().success();
        let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
        assert_eq!(record.error, None, "{split}");
        assert_eq!(record.ranks.len(), if ranks == 1 { 0 } else { ranks }, "{split}");
        let peaks: Vec<_> = record.ranks.iter().map(|rank| rank.peak_allocated_bytes.expect("it counts")).collect();
        assert_eq!(peaks.iter().max().copied().or(record.peak_allocated_bytes()), record.peak_allocated_bytes(), "{split}: {peaks:?}");
        assert!(peaks.iter().skip(1).all(|&other| other == peaks[1] && other <= peaks[0]), "{split}: {peaks:?}");
        assert!(record.unsupported_calls.is_empty(), "{:?}", record.unsupported_calls);
    }
}

#[test]
fn a_number_of_gpus_is_split_by_the_plan() {
    let plan = |gpu: &[&str], words: &str| {
        let fixed = ["plan", "--model", "wan2.1-t2v-14b", "resolution=720p", "--json"];
        let assert = lowmem().args(fixed).args(gpu).args(words.split(' ')).assert();
        let split = serde_json::from_str(&stdout(&assert)).map(|plan: PlanReport| plan.config.split()).ok();
        (split, stderr(&assert))
    };
    let h100 = ["--gpu", "h100"];
    let ulysses = |cp_ulysses| Some(Split { cp_ulysses, ..Split::ONE });
    let (split, said) = plan(&h100, "--gpus 4");
    assert_eq!(split, Some(Split { cfg_size: 2, cp_ulysses: 2, cp_ring: 1 }), "{said}");
    assert!(
        said.contains("--gpus 4: cfg_size=2 cp_size=2 cp_ulysses=2, of 5 ways the fastest by its plan: a sampler step takes 0.2"),
        "{said}"
    );
    assert_eq!(plan(&h100, "--gpus 4 cfg_size=1").0, ulysses(4));
    // A whole prediction is too large for what is left of the card, and half of one is not.
    assert_eq!(plan(&["--gpu", "4GB"], "--gpus 2 low_mem_level=3 reserve_gib=1").0, ulysses(2));
    assert_eq!(plan(&[], "--gpus 2 guidance_scale=1").0, ulysses(2));
    assert_eq!(plan(&h100, "--gpus 3").0, Some(Split { cp_ring: 3, ..Split::ONE }));
    assert_eq!(plan(&h100, "--gpus 1").0, Some(Split::ONE));
    for (words, message) in [
        ("--gpus 3 cp_size=2", "--gpus 3: cp_size=2 does not make 3 ranks, which are cfg_size times cp_size. Leave it out"),
        ("--gpus 3 attn_type=sage", "attn_type=sage cannot take keys in parts"),
    ] {
        let (split, said) = plan(&h100, words);
        assert!(split.is_none() && said.contains(message), "{words}: {said}");
    }
    let assert = lowmem().args(FIXED).args(["--gpus", "2"]).assert().success();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
    assert_eq!(record.ranks.len(), 2, "{}", stderr(&assert));
}

#[test]
fn a_sweep_has_a_row_for_each_split() {
    let place = Place::new();
    place.file("s.yaml", "model: wan-tiny\nsweep:\n  cp_size: [1, 2]\n  cfg_size: [1, 2]\n");
    let sweep = ["sweep", "s.yaml", "--gpu", "h100", "--device", "virtual", "--out", "run"];
    let assert = lowmem().current_dir(place.path(".")).args(sweep).assert().success();
    let rows = place.rows("run");
    let found: Vec<_> = rows.iter().map(|row| format!("{} {}", &row["ranks"], &row["outcome"])).collect();
    assert_eq!(found, ["1 ok", "2 ok", "2 ok", "4 ok"], "{}", stderr(&assert));
    assert!(rows[0]["least_rank_peak_device_bytes"].is_empty());
    assert!(rows[1..].iter().all(|row| row.bytes("least_rank_peak_device_bytes") <= row.bytes("peak_device_bytes")));
    assert!(place.path("run/report.html").is_file());
}

/// A rank that waits for others as NCCL does is ended with them, and so is what it started.
#[test]
fn a_rank_that_fails_ends_all_and_is_named() {
    let waits = "echo $$ > \"$0.waits\"\nsleep 600 &\nsleep 600";
    for (fault, outcome, error) in [
        ("kill -9 $$", "killed", "rank 1 of 2: ended from outside by SIGKILL in denoise"),
        ("oom denoise", "oom", "rank 1 of 2: tried to allocate"),
        ("failed denoise", "failed", "rank 1 of 2: no such kernel"),
        ("exit 0", "crashed", "rank 1 of 2: exited with code 0 in denoise without a result"),
    ] {
        let place = Place::new();
        let record = of_two(&place, waits, fault);
        assert_eq!(record.outcome.name(), outcome, "{:?}", record.error);
        assert!(record.error.as_ref().is_some_and(|said| said.starts_with(error)), "{:?}", record.error);
        assert_eq!(record.ranks.len(), 2);
        let waited = fs::read_to_string(place.path("worker.sh.waits")).expect("it began to wait");
        assert!(!Path::new("/proc").join(waited.trim()).exists(), "rank 0 is left");
    }
}

#[test]
fn what_fails_alike_on_all_is_told_of_the_first() {
    let record = of_two(&Place::new(), "oom denoise", "oom denoise");
    assert_eq!((record.outcome.name(), record.error.as_deref()), ("oom", Some("rank 0 of 2: tried to allocate")));
}

#[test]
fn a_rank_that_hangs_after_the_first_is_done_is_named() {
    let record = of_two(&Place::new(), "ended denoise 5\nbegun decode\nended decode 6\nfinished", "sleep 600");
    let wanted = "rank 1 of 2: hangs in denoise: it is not done 20 s after the first rank was";
    assert_eq!((record.outcome.name(), record.error.as_deref()), ("timeout", Some(wanted)));
}

#[test]
fn the_largest_rank_is_the_cases_peak() {
    let record = of_two(&Place::new(), "ended denoise 5\nfinished", "ended denoise 7\nfinished");
    assert_eq!((record.outcome.name(), record.peak_allocated_bytes()), ("ok", Some(7 << 30)));
    let peaks: Vec<_> = record.ranks.iter().map(|rank| rank.peak_device_bytes).collect();
    assert_eq!(peaks, [Some(6 << 30), Some(8 << 30)]);
    assert_eq!((record.h2d_bytes, record.d2h_bytes), (Some(2), Some(4)), "of all ranks");
}

#[test]
fn what_ranks_cannot_do_is_refused() {
    let refused = |words: &[&str]| stderr(&lowmem().args(["generate", "--model", "wan-tiny"]).args(words).assert().code(2));
    let on_virtual = ["--gpu", "h100", "--device", "virtual", "cp_size=2"];
    for (words, message) in [
        (&["on_oom=lower"][..], "one rank would go on at a lower level"),
        (&["shard_weights=true", "low_mem_level=3"], "where all ranks of a machine have one copy already: use a memory level below 3"),
        (&["shard_weights=true", "cp_size=1", "cfg_size=2"], "each GPU has a whole token sequence"),
    ] {
        let said = refused(&[&on_virtual[..], words].concat());
        assert!(said.contains(message), "{said}");
    }
    let said = stderr(&lowmem().args(["plan", "--model", "wan-tiny", "shard_weights=true"]).assert().success());
    assert!(said.contains("shard_weights has no effect: there is one GPU"), "{said}");
}

/// What each rank does is said where the VAE decodes in tiles, and where it decodes whole frames.
#[test]
fn who_decodes_is_planned() {
    let plan = |level: &str| {
        let words = ["plan", "--model", "wan2.1-t2v-14b", "--gpu", "h100", "cp_size=4"];
        stdout(&lowmem().args(words).arg(format!("low_mem_level={level}")).assert().success())
    };
    for (level, wanted) in [("0", "each  denoise "), ("1", "each  denoise, decode tiles ")] {
        let said = plan(level);
        let line = said.lines().find(|line| line.contains("1 to 3, each")).expect("a row for the others");
        assert!(line.contains(wanted), "level {level}: {line}");
    }
}

/// Of the blocks' weights each rank has a part, which is planned, and less is held; what it gets of others crosses the link while it computes.
#[test]
fn weights_in_parts_take_less() {
    let run = |words: &[&str]| {
        let fixed =
            ["generate", "--model", "wan2.1-t2v-1.3b", "--gpu", "h100", "--device", "virtual", "--json", "resolution=480p", "cp_size=4"];
        let assert = lowmem().args(fixed).args(["low_mem_level=2", "steps_measured=2"]).args(words).assert().success();
        serde_json::from_str::<RunRecord>(&stdout(&assert)).expect("a record")
    };
    let (whole, parts) = (run(&[]), run(&["shard_weights=true"]));
    let [before, after] = [&whole, &parts].map(|record| record.ranks.iter().map(|rank| rank.peak_allocated_bytes).collect::<Vec<_>>());
    assert!(after.iter().zip(&before).all(|(after, before)| after < before), "{after:?}, with whole weights {before:?}");
    let secs = |record: &RunRecord| record.stage_secs(Stage::Denoise).expect("a time").expected;
    assert!(secs(&parts) < 1.1 * secs(&whole), "{} s, with whole weights {}", secs(&parts), secs(&whole));
    assert!(parts.unsupported_calls.is_empty(), "{:?}", parts.unsupported_calls);

    let words = ["plan", "--model", "wan2.1-t2v-1.3b", "--gpu", "h100", "cp_size=4", "shard_weights=true"];
    let said = stdout(&lowmem().args(words).assert().success());
    assert!(
        said.contains("GPUs of ranks") && said.contains("each holds one of 4 parts, and gets the others ahead of their turn"),
        "{said}"
    );
}

/// A rank begins an exchange when the last one is there: what the first one did before, on its GPU, the others need to do as well. It is the same each time.
#[test]
fn waiting_is_told_from_the_link() {
    let run = || {
        let fixed =
            ["generate", "--model", "wan2.1-t2v-1.3b", "--gpu", "h100", "--device", "virtual", "--json", "resolution=480p", "cp_size=3"];
        let assert = lowmem().args(fixed).args(["steps_measured=2"]).assert().success();
        serde_json::from_str::<RunRecord>(&stdout(&assert)).expect("a record")
    };
    let record = run();
    let secs =
        |of: fn(&RankRecord) -> Option<Secs>| record.ranks.iter().map(|rank| of(rank).expect("it is known").expected).collect::<Vec<_>>();
    let (all, exchange, waiting) = (secs(|rank| rank.denoise_secs), secs(|rank| rank.exchange_secs), secs(|rank| rank.waiting_secs));
    // cuBLAS makes itself ready as the others begin.
    assert!(waiting[0] > 0.05 && waiting[1..].iter().all(|secs| *secs < waiting[0] / 10.0), "{waiting:?}");
    let is_alike = |secs: &[f64]| secs.iter().all(|one| (one - secs[0]).abs() < 0.01 * secs[0]);
    assert!(is_alike(&all) && is_alike(&exchange) && exchange[0] > 0.0, "{all:?}, {exchange:?}");
    // Nobody has the prompt embeddings before the first one.
    let encode = record.stage_secs(Stage::Encode).expect("a time").expected;
    assert!(encode > 0.0, "{encode}");
    assert_eq!(run().ranks, record.ranks);
}

/// The first rank has the text encoder beside the transformer, for which the card is too small; the other one waits for it, and is ended.
#[test]
fn who_waits_for_one_that_is_out_of_memory_is_ended() {
    let words =
        ["generate", "--model", "wan2.1-t2v-14b", "--gpu", "rtx-5090", "--device", "virtual", "--json", "resolution=480p", "cp_size=2"];
    let assert = lowmem().args(words).args(["--timeout", "120"]).assert();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).unwrap_or_else(|error| panic!("{error}: {}", stderr(&assert)));
    assert_eq!(record.outcome.name(), "oom", "{:?}", record.error);
    assert!(record.error.as_ref().is_some_and(|said| said.starts_with("rank 0 of 2: ")), "{:?}", record.error);
    assert!(record.wall_secs < 60.0, "{} s", record.wall_secs);
}

/// A GPU for each rank: the one with most memory is the first one's, each placement follows its own, and the faster card waits for the slower one.
#[test]
fn cards_may_differ() {
    let video =
        ["--model", "wan2.1-t2v-14b", "resolution=480p", "frames=5", "low_mem_level=3", "resident_blocks=auto", "cp_size=2", "--json"];
    let cards = ["--gpu", "rtx-3060,rtx-4090"];
    let assert = lowmem().arg("plan").args(video).args(cards).assert().success();
    let plan: PlanReport = serde_json::from_str(&stdout(&assert)).expect("a plan");
    assert!(stderr(&assert).contains("2 GPUs are named: cp_size=2 cp_ulysses=2."), "{}", stderr(&assert));
    let json: serde_json::Value = serde_json::from_str(&stdout(&assert)).expect("JSON");
    let others: Vec<PlanReport> = serde_json::from_value(json["other_ranks"].clone()).expect("a plan of the other");
    let [other] = others.as_slice() else { panic!("{others:?}") };
    let resident = |plan: &PlanReport| plan.config.resident_blocks.and_then(ResidentBlocks::count).expect("settled");
    assert!(resident(&plan) > resident(other), "{} and {} blocks", resident(&plan), resident(other));
    // Blocks that the first one has on its GPU wait for the other one in RAM.
    let waiting = other.bytes_in(Home::Pinned) - plan.bytes_in(Home::Pinned);
    assert_eq!(json["ram_peak_bytes"].as_u64(), Some(plan.host().peak_bytes.expect("told") + waiting));
    let secs = |plan: &PlanReport| plan.ranks.as_ref().and_then(|ranks| ranks.pass_secs).expect("rates").arithmetic;
    assert!(secs(other) > 2.0 * secs(&plan), "{} and {}", secs(other), secs(&plan));

    let words = ["generate", "--device", "virtual", "steps_measured=2"];
    let assert = lowmem().args(words).args(video).args(cards).assert().success();
    let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
    let gpus: Vec<_> = record.ranks.iter().map(|rank| rank.gpu.clone().expect("told")).collect();
    assert_eq!(gpus, ["rtx-4090", "rtx-3060"]);
    for (rank, plan) in record.ranks.iter().zip([&plan, other]) {
        let (counted, (_, predicted)) = (rank.peak_allocated_bytes.expect("it counts"), plan.peak().expect("an estimate"));
        // On older cards than an H100 a prediction is 24 MiB too high.
        assert!(counted.abs_diff(predicted) < (24 << 20) + counted / 100, "{gpus:?}: {counted} bytes counted, {predicted} predicted");
    }
    let waiting: Vec<f64> = record.ranks.iter().map(|rank| rank.waiting_secs.expect("it is known").expected).collect();
    let all = record.ranks[0].denoise_secs.expect("a time").expected;
    assert!(waiting[0] > 0.3 * all && waiting[1] < 0.05 * all, "{waiting:?} of {all} s");
    let said = stdout(&lowmem().arg("plan").args(&video[..7]).args(cards).assert().success());
    assert!(said.contains("Ranks differ:") && said.contains("rtx-3060"), "{said}");
}

/// By speed the faster card has more of the sequence and of the heads, and neither waits long. On cards of one kind parts are alike.
#[test]
fn a_faster_card_has_more() {
    let video = ["--model", "wan2.1-t2v-14b", "resolution=480p", "frames=33", "low_mem_level=3", "cp_size=2", "--json"];
    let run = |gpu: &str, way: &str| {
        let words = ["generate", "--device", "virtual", "steps_measured=2", "--gpu", gpu, way];
        let assert = lowmem().args(words).args(video).assert().success();
        let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
        (record, stderr(&assert))
    };
    let ((even, _), (by_speed, said)) = (run("rtx-4090,rtx-3090", "cp_split=even"), run("rtx-4090,rtx-3090", "cp_split=speed"));
    let shares = by_speed.config_run().cp_split.as_ref().and_then(CpSplit::shares).expect("settled").to_vec();
    assert!(shares.len() == 2 && shares[0] > shares[1] && shares.iter().sum::<u32>() == 40, "{shares:?}");
    assert!(said.contains(&format!("cp_split=speed: {}:{} of the sequence", shares[0], shares[1])), "{said}");
    assert_eq!(by_speed.config.cp_split, Some(CpSplit::Speed), "a case is known by what was asked for");
    let secs = |record: &RunRecord| record.ranks[0].denoise_secs.expect("a time").expected;
    let waiting =
        |record: &RunRecord| record.ranks.iter().map(|rank| rank.waiting_secs.expect("known").expected / secs(record)).fold(0.0, f64::max);
    assert!(secs(&by_speed) < 0.85 * secs(&even), "{} s, evenly {} s", secs(&by_speed), secs(&even));
    assert!(waiting(&by_speed) < 0.1 && waiting(&even) > 0.2, "{} and evenly {}", waiting(&by_speed), waiting(&even));

    let assert = lowmem().args(["plan", "--gpu", "rtx-4090,rtx-3090", "cp_split=speed"]).args(&video[..6]).assert().success();
    assert!(stdout(&assert).contains(&format!("{} of 40", shares[0])), "{}", stdout(&assert));
    let alike = run("rtx-4090", "cp_split=speed").0;
    assert_eq!(alike.config_run().cp_split, None);
    let shares_by_hand = run("rtx-4090", "cp_split=3:1").0;
    let peaks: Vec<_> = shares_by_hand.ranks.iter().map(|rank| rank.peak_allocated_bytes).collect();
    assert!(peaks[0] > peaks[1], "{peaks:?}");
    for (words, message) in [
        (&["cp_split=2:1:1"][..], "3 shares for 2 parts of the sequence: give as many as cp_size"),
        (&["cp_split=fast"], "or shares such as 3:1"),
        (&["cp_split=1:100"], "rank 0 would have none of the 40 heads"),
        (&["cp_split=1:7", "head_chunk=4"], "rank 0 would have none of the 4 heads that are taken at a time"),
        (&["cp_split=2:1", "cfg_size=2", "cp_size=3"], "2 shares for 3 parts of the sequence: give as many as cp_size"),
        (&["cp_split=speed"], "cp_split=speed goes by the GPUs: add --gpu A,B"),
    ] {
        let said = stderr(&lowmem().arg("plan").args(&video[..6]).args(words).assert().code(2));
        assert!(said.contains(message), "{words:?}: {said}");
    }
}

/// Of heads that are taken four at a time each rank has whole ones of each four, whatever its share: the plan counts them as they run.
#[test]
fn a_plan_counts_heads_as_they_are_taken() {
    let video = "--model wan2.1-t2v-14b --gpu h100 resolution=480p frames=33 low_mem_level=2 cp_size=2 cp_split=28:12 head_chunk=4 --json";
    let said = stdout(&lowmem().arg("plan").args(video.split(' ')).assert().success());
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let mut plans: Vec<PlanReport> = serde_json::from_value(json["other_ranks"].clone()).expect("a plan of the other");
    plans.insert(0, serde_json::from_str(&said).expect("a plan"));
    let planned: Vec<f64> =
        plans.iter().map(|plan| plan.ranks.as_ref().and_then(|ranks| ranks.pass_secs).expect("rates").arithmetic).collect();
    let words = "generate --device virtual steps_measured=2";
    let said = stdout(&lowmem().args(words.split(' ')).args(video.split(' ')).assert().success());
    let record: RunRecord = serde_json::from_str(&said).expect("a record");
    let secs = |secs: Option<Secs>| secs.expect("known").expected;
    let ran: Vec<f64> =
        record.ranks.iter().map(|rank| secs(rank.denoise_secs) - secs(rank.waiting_secs) - secs(rank.exchange_secs)).collect();
    let [planned, ran] = [planned, ran].map(|each| each[0] / each[1]);
    // With 28 of 40 heads it would be 2.3.
    assert!(planned < 2.0 && (planned / ran - 1.0).abs() < 0.05, "{planned} planned, {ran} as it ran");
}

/// A search holds each rank against its own card: that the first one is smaller is no reason to pass over what fits, and that it is larger none to take what does not.
#[test]
fn a_search_holds_each_rank_against_its_own_card() {
    let place = Place::new();
    let found = |cards: &str, rest: &str| {
        let words = format!("autotune --device virtual --gpu {cards} --out {} cp_size=2 low_mem_level=3 {rest}", cards.replace(',', "-"));
        let assert = lowmem().current_dir(place.path(".")).args(words.split(' ')).assert();
        let code = assert.get_output().status.code();
        (code, place.rows(&cards.replace(',', "-")), stdout(&assert))
    };
    let peaks = |row: &Row| -> Vec<f64> {
        row["peak_device_bytes_by_rank"].split(' ').map(|bytes| bytes.parse::<f64>().expect("bytes") / f64::from(1 << 30)).collect()
    };
    // Of as many GiB the first rank's is the one that is named first. The second one has five sixths of the sequence.
    let video = "--model wan2.1-t2v-1.3b resolution=720p cp_split=1:5 head_chunk=6 sequence_chunk=8192 vae_tile_size=16 resident_blocks=0 prefetch_blocks=1";
    let (code, rows, said) = found("1.02GB,1.9GB", video);
    assert_eq!(code, Some(0), "{said}");
    let fitting: Vec<_> = rows.iter().filter(|row| &row["outcome"] == "ok").map(peaks).collect();
    assert!(fitting.iter().all(|each| each[0] <= 1.02 && (1.02..=1.9).contains(&each[1])), "{fitting:?}");
    let told = |each: &Vec<f64>| format!("Fits: {:.2} of 1.02 GiB on rtx-3070, {:.2} of 1.90 GiB on rtx-3070", each[0], each[1]);
    assert!(fitting.iter().any(|each| said.contains(&told(each))), "{fitting:?}: {said}");
    let (code, _, said) = found("1.9GB,1.02GB", video);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Nothing fits into 1.90 and 1.02 GiB."), "{said}");
    for cards in ["rtx-3060,rtx-4090", "rtx-4090,rtx-3060", "rtx-3090,rtx-4090"] {
        let (code, rows, said) =
            found(cards, "--model wan2.1-t2v-14b resolution=480p frames=5 vae_tile_size=16 resident_blocks=auto prefetch_blocks=1");
        assert_eq!(code, Some(0), "{cards}: {said}");
        let held = if cards.contains("3060") { [23.65, 11.77] } else { [23.69, 23.65] };
        let fitting: Vec<_> = rows.iter().filter(|row| &row["outcome"] == "ok").map(peaks).collect();
        assert!(!fitting.is_empty() && fitting.iter().all(|each| each[0] <= held[0] && each[1] <= held[1]), "{cards}: {fitting:?}");
    }
}

#[test]
fn a_card_for_each_rank() {
    let place = Place::new();
    place.file("s.yaml", "model: wan-tiny\nsweep:\n  cp_size: [1, 3]\n");
    place.file("t.yaml", "model: wan-tiny\nsweep:\n  cp_size: [1, 2]\n");
    for (words, message) in [
        ("generate --model wan-tiny --gpu rtx-3060,rtx-4090 --device virtual --gpus 3", "--gpus 3: --gpu names 2 GPUs."),
        ("plan --model wan-tiny --gpu rtx-3060,rtx-4090 cp_size=3", "2 GPUs are named: cp_size=3 does not make 2 ranks"),
        ("generate --model wan-tiny --gpu rtx-3060,rtx-4090 --device cpu --output a.gif", "ranks are threads on the CPU"),
        ("autotune --model wan-tiny --gpu rtx-3060,rtx-4090 --device virtual --gpus 3", "--gpus 3: --gpu names 2 GPUs."),
        ("cards --model wan-tiny --gpu rtx-3060+rtx-4090", "see `lowmem autotune --gpu rtx-3060+rtx-4090`"),
        ("cards --model wan-tiny --gpu rtx-4090 cp_size=2", "see `lowmem autotune --gpu NAME --gpus 2`"),
        ("max --model wan-tiny --gpu rtx-4090 cp_size=2", "that is for 2 GPUs, and the search is for 1: add --gpus 2, or leave it out"),
        (
            "sweep s.yaml --gpu rtx-3060+rtx-4090 --device virtual",
            "--gpu names 2 GPUs, and the video is split over 3: name one for each rank",
        ),
    ] {
        let said = stderr(&lowmem().current_dir(place.path(".")).args(words.split(' ')).assert().code(2));
        assert!(said.contains(message), "{words}: {said}");
    }
    // In a sweep a comma stands between GPUs of different cases.
    let words = "sweep t.yaml --gpu rtx-3060+rtx-4090 --device virtual --out run cp_split=speed";
    let assert = lowmem().current_dir(place.path(".")).args(words.split(' ')).assert().success();
    let found: Vec<_> = place.rows("run").iter().map(|row| format!("{} {} {}", &row["ranks"], &row["outcome"], &row["gpu"])).collect();
    assert_eq!(found, ["1 ok rtx-4090", "2 ok rtx-4090"], "{}", stderr(&assert));
}

/// On the CPU ranks are threads, and what they make can be looked at.
#[test]
fn a_video_of_several_ranks_is_that_of_one() {
    let place = Place::new();
    let made = |name: &str, words: &[&str]| {
        let output = place.path(name);
        let fixed = ["generate", "--model", "wan-tiny", "--device", "cpu", "--steps", "3", "--json", "dtype=fp32"];
        let assert = lowmem().args(fixed).arg("--output").arg(&output).args(words).assert().success();
        let record: RunRecord = serde_json::from_str(&stdout(&assert)).expect("a record");
        let file = fs::read(output).expect("the video");
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("tensors");
        let numbers =
            |bytes: &[u8]| bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four"))).collect::<Vec<f32>>();
        (record.config.split(), ["latents", "video"].map(|name| numbers(tensors.tensor(name).expect("it is there").data())))
    };
    let of_one = |name: &str, words: &[&str]| made(name, words).1;
    let (whole, in_tiles) = (of_one("one.safetensors", &[]), of_one("tiles.safetensors", &["vae_tiling=true"]));
    for (name, words, wanted) in [
        ("ulysses", &["cp_size=2"][..], &whole),
        ("ring", &["cp_ring=3", "low_mem_level=3"], &in_tiles),
        ("both", &["--gpus", "4", "cp_ulysses=2", "cfg_size=2", "load_weights=as_used"], &whole),
        ("chosen", &["--gpus", "2", "low_mem_level=1"], &in_tiles),
        ("parts", &["--gpus", "4", "cfg_size=2", "shard_weights=true"], &whole),
        ("unlike", &["cp_size=2", "cp_split=2:1", "sequence_chunk=2"], &whole),
        ("unlike_ring", &["cp_ring=3", "cp_split=1:3:2", "shard_weights=true"], &whole),
    ] {
        let (split, found) = made(&format!("{name}.safetensors"), words);
        assert!(split.ranks() > 1, "{name}");
        // A VAE of weights by chance makes more of a difference.
        for ((found, wanted), most_off) in found.iter().zip(wanted).zip([1e-5, 1e-3]) {
            let most = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            let off = found.iter().zip(wanted).fold(0.0_f32, |off, (found, wanted)| off.max((found - wanted).abs()));
            assert!(found.len() == wanted.len() && most > 0.0 && off / most < most_off, "{name}: {split} is off by {}", off / most);
        }
    }
}
