//! `lowmem plan`: the table, the same as JSON, and what is refused.

use engine_protocol::{BufferUse, Home, Moves, PlanReport, Stage};

use crate::command::{Place, json, lowmem, stderr, stdout};

fn report(words: &[&str]) -> PlanReport {
    let assert = lowmem().args(["plan", "--json"]).args(words).assert().success();
    serde_json::from_str(&stdout(&assert)).expect("a plan")
}

#[test]
fn rows_of_equal_blocks_are_one_and_say_where_they_live() {
    let report = report(&["--model", "wan2.1-t2v-14b", "low_mem_level=3", "resident_blocks=8"]);
    let rows: Vec<_> = report
        .groups
        .iter()
        .filter(|groups| groups.component == "transformer")
        .map(|g| (g.name.as_str(), g.count, g.home, g.moves))
        .collect();
    assert_eq!(
        rows,
        [
            ("embeddings", 1, Home::Pinned, Moves::EachPass),
            ("32 of blocks 0-38", 32, Home::Pinned, Moves::EachPass),
            ("8 of blocks 4-39", 8, Home::Gpu, Moves::Never),
            ("output layer", 1, Home::Pinned, Moves::EachPass),
        ]
    );
    let stages: Vec<_> = report.buffers.iter().map(|buffers| (buffers.stage, buffers.purpose, buffers.count)).collect();
    // The VAE waits in ordinary memory, and passes through page-locked memory on its way.
    let staging = [Stage::Denoise, Stage::Decode].map(|stage| (stage, BufferUse::Staging));
    assert_eq!(stages, [(staging[0].0, staging[0].1, 2), (staging[1].0, staging[1].1, 1), (Stage::Decode, BufferUse::Passing, 1)]);
    assert_eq!(report.peak().map(|(stage, _)| stage), Some(Stage::Denoise));
}

/// The whole score matrix of 12 heads over 32,760 tokens in fp32, its softmax, and a byte for each.
#[test]
fn a_score_matrix_is_part_of_the_plan_and_of_what_is_said() {
    const SCORES: u64 = 9 * 12 * 32_760 * 32_760;
    let plan = |gpu: &str, words: &[&str]| {
        let fixed = ["plan", "--json", "--model", "wan2.1-t2v-1.3b", "--gpu", gpu, "resolution=480p", "sequence_chunk=0"];
        let assert = lowmem().args(fixed).args(words).assert();
        let report: PlanReport = serde_json::from_str(&stdout(&assert)).expect("a plan");
        (report.peak().expect("a peak"), stderr(&assert))
    };
    let advice = "warning: compute capability 7.5 (t4) has no attention for bf16 without the whole score matrix";
    // Asked for; because the card has nothing else; and not.
    for (gpu, words, has_scores, is_said) in [
        ("h100", ["attn_type=math"].as_slice(), true, false),
        ("t4", &[], true, true),
        ("t4", &["dtype=fp16"], false, false),
        ("h100", &[], false, false),
    ] {
        let ((stage, bytes), said) = plan(gpu, words);
        assert_eq!(
            (stage == Stage::Denoise && bytes > SCORES, said.contains(advice)),
            (has_scores, is_said),
            "{gpu} {words:?}: {bytes} {said}"
        );
        assert_eq!(said.contains("use dtype=fp16"), is_said, "{said}");
    }
}

/// Before anything is loaded, in each command.
#[test]
fn attention_that_a_card_has_no_kernel_for_is_refused() {
    for (words, wanted) in [
        (["attn_type=flash", "dtype=fp16"], "has no attn_type=flash: use attn_type=sdpa with dtype=fp16"),
        (["attn_type=cudnn", "dtype=fp16"], "has no attn_type=cudnn: use attn_type=sdpa with dtype=fp16"),
        (["attn_type=mem_efficient", "dtype=bf16"], "has no attn_type=mem_efficient for bf16: use dtype=fp16"),
    ] {
        for command in ["plan", "generate", "profile"] {
            let fixed = ["--model", "wan2.1-t2v-1.3b", "--gpu", "t4", "--device", "virtual"];
            let fixed = &fixed[..if command == "plan" { 4 } else { 6 }];
            let said = stderr(&lowmem().arg(command).args(fixed).args(words).assert().code(2));
            assert_eq!(said.matches(wanted).count(), 1, "{command}: {said}");
        }
    }
}

#[test]
fn the_table_says_what_sets_the_peak_and_whether_it_fits() {
    let plan = |level: &str| stdout(&lowmem().args(["plan", "--model", "wan2.1-t2v-14b", "--gpu", "24GB", level]).assert());
    let resident = plan("low_mem_level=0");
    for part in ["blocks 0-39", "allocated, in decode", "Does not fit: decode allocates"] {
        assert!(resident.contains(part), "`{part}` is missing in: {resident}");
    }
    let streamed = plan("low_mem_level=3");
    for part in ["host, pinned", "in each pass of a step", "once, before decode", "2 staging buffers", "allocated, in denoise", "Fits: "] {
        assert!(streamed.contains(part), "`{part}` is missing in: {streamed}");
    }
}

#[test]
fn room_for_others_is_taken_off_the_budget() {
    let plan = |reserve: &str| {
        let words = ["plan", "--model", "wan2.1-t2v-14b", "--gpu", "24GB", "low_mem_level=3", reserve];
        stdout(&lowmem().args(words).assert())
    };
    let (all, most) = (plan("reserve_gib=0"), plan("reserve_gib=21"));
    assert!(all.contains("23.65 GiB of the GPU") && all.contains("Fits: "), "{all}");
    assert!(most.contains("2.65 GiB of the GPU") && most.contains("Does not fit: "), "{most}");
}

#[test]
fn what_makes_no_plan_is_refused() {
    for (words, part) in [
        (&["--model", "wan2.1-t2v-14b", "model=wan-tiny"][..], "model is given twice"),
        (&["--model", "wan3"], "unknown model `wan3`"),
        (&["--model", "wan-tiny", "--gpu", "rtx-9"], "neither a size nor a known GPU"),
        (&["--model", "wan-tiny", "low_mem_level=4"], "low_mem_level=4 is out of range"),
        (&["--model", "wan-tiny", "low_mem_level=3", "resident_blocks=auto"], "resident_blocks=auto goes by the GPU's memory: add --gpu"),
        (&[], "no model is given"),
    ] {
        let said = stderr(&lowmem().arg("plan").args(words).assert().code(2));
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn what_does_not_fit_is_exit_3_and_the_json_says_so() {
    let plan = |words: &[&str]| lowmem().args(["plan", "--json", "--model", "wan2.1-t2v-14b"]).args(words).assert();
    let verdict = |assert: &assert_cmd::assert::Assert| {
        let plan = json(assert, "plan");
        assert!(plan["peak_allocated_bytes"].as_u64().is_some() && plan["ram_peak_bytes"].as_u64().is_some(), "{plan:#}");
        (plan["fits"].as_bool(), plan["capacity_bytes"].as_u64())
    };
    assert_eq!(verdict(&plan(&["--gpu", "24GB", "low_mem_level=0"]).code(3)), (Some(false), Some(25_393_364_992)));
    assert_eq!(verdict(&plan(&["--gpu", "24GB", "low_mem_level=3"]).success()).0, Some(true));
    let in_ram = ["--gpu", "24GB", "--ram", "32GB", "low_mem_level=3", "load_weights=at_start", "stream_from=memory"];
    assert_eq!(verdict(&plan(&in_ram).code(3)).0, Some(false));
    assert_eq!(verdict(&plan(&["low_mem_level=0"]).success()), (None, None), "without a budget nothing is judged");
}

#[test]
fn a_file_gives_its_preset_and_options_count_over_it() {
    let place = Place::new();
    let text = "model: wan2.1-t2v-1.3b\nframes: 9\npresets:\n  small: {low_mem_level: 3, head_chunk: 4}\npreset: small\n";
    let file = place.file("video.yaml", text);
    let plan = json(&lowmem().args(["plan", "--json", "--frames", "5", "--config"]).arg(file).assert().success(), "plan");
    let of = |key: &str| plan["config"][key].as_u64();
    assert_eq!((of("low_mem_level"), of("head_chunk"), of("frames")), (Some(3), Some(4), Some(5)), "{:#}", plan["config"]);
}

/// What several GPUs would hold and send: heads of 40 are exchanged by four ranks, three quarters of queries, keys, values and results, in each of 40 layers.
#[test]
fn several_gpus_are_planned_and_not_searched() {
    let fixed = ["--model", "wan2.1-t2v-14b", "--gpu", "h100", "resolution=720p"];
    let of = |words: &[&str]| report(&[&fixed, words].concat());
    let (one, four) = (of(&[]), of(&["cp_size=4"]));
    let ranks = four.ranks.as_ref().expect("four ranks");
    let (part, values) = (75_600 / 4 * 5120 * 2, 75_600 / 4 * 64 * 2);
    assert_eq!((ranks.count, ranks.parts, ranks.sent_bytes), (4, 4, 40 * 4 * part / 4 * 3 + 3 * values));
    let denoise = |report: &PlanReport| {
        let stage = report.stages.iter().find(|stage| stage.stage == Stage::Denoise).expect("a stage");
        (stage.resident_bytes, stage.activation_bytes.expect("an estimate"))
    };
    let ((weights, alone), (same_weights, of_four)) = (denoise(&one), denoise(&four));
    assert!(one.ranks.is_none() && weights == same_weights && of_four < alone / 2, "{of_four} of {alone}");
    // Without the text encoder and a VAE that decodes whole frames.
    assert_eq!(ranks.of_first, ["text encoder", "VAE"]);
    let of_first: u64 = four.groups.iter().filter(|groups| ranks.of_first.contains(&groups.component)).map(|groups| groups.bytes).sum();
    let wanted = same_weights + of_four - of_first;
    assert!(ranks.others_peak_allocated_bytes.is_some_and(|bytes| bytes.abs_diff(wanted) < 8 << 20), "{ranks:?}, and not {wanted}");
    let secs = ranks.pass_secs.expect("rates");
    assert!(secs.is_nvlink && secs.arithmetic > 0.24 * secs.alone && secs.arithmetic < 0.26 * secs.alone, "{secs:?}");
    // The two predictions on two GPUs: each has the whole sequence, and sends its prediction in fp32.
    let guidance = of(&["cfg_size=2"]);
    assert_eq!((denoise(&guidance), guidance.ranks.expect("two ranks").sent_bytes), ((weights, alone), 4 * 16 * 21 * 90 * 160));

    let said = stdout(&lowmem().arg("plan").args(fixed).arg("cp_size=4").assert().success());
    assert!(
        said.contains("4 ranks, a GPU each: cp_size=4 cp_ulysses=4.") && said.contains("no figure for more than one GPU was measured"),
        "{said}"
    );
    let place = Place::new();
    let fixed = ["autotune", "model=wan2.1-t2v-14b", "--gpu", "h100", "--device", "virtual", "cp_size=4"];
    let said = stderr(&lowmem().current_dir(place.path(".")).args(fixed).assert().code(2));
    assert!(said.contains("cp_size=4 cp_ulysses=4: that is for 4 GPUs, and the search is for 1: add --gpus 4, or leave it out"), "{said}");
}
