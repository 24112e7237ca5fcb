//! `lowmem plan`: the table, the same as JSON, and what is refused.

use engine_protocol::{BufferUse, Home, Moves, PlanReport, Stage};

use crate::command::{lowmem, stderr, stdout};

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
        let assert = lowmem().args(fixed).args(words).assert().success();
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
    let (_, said) = plan("t4", &["attn_type=flash", "dtype=fp16"]);
    assert!(said.contains("has no attn_type=flash: use attn_type=sdpa with dtype=fp16"), "{said}");
    let (_, said) = plan("t4", &["attn_type=mem_efficient"]);
    assert!(said.contains("has no attn_type=mem_efficient for bf16: use dtype=fp16"), "{said}");
}

#[test]
fn the_table_says_what_sets_the_peak_and_whether_it_fits() {
    let plan = |level: &str| stdout(&lowmem().args(["plan", "--model", "wan2.1-t2v-14b", "--gpu", "24GB", level]).assert().success());
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
        stdout(&lowmem().args(words).assert().success())
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
