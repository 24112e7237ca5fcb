//! `lowmem plan`: the table, the same as JSON, and what is refused.

use engine_protocol::{Home, Moves, PlanReport, Stage};

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
    let stages: Vec<_> = report.buffers.iter().map(|buffers| (buffers.stage, buffers.count)).collect();
    assert_eq!(stages, [(Stage::Denoise, 2), (Stage::Decode, 1)]);
    assert_eq!(report.peak().map(|(stage, _)| stage), Some(Stage::Denoise));
}

#[test]
fn a_stage_without_an_estimate_is_empty_and_so_is_the_peak() {
    let report = report(&["--model", "wan2.1-t2v-1.3b", "attn_type=math"]);
    let unknown: Vec<_> = report.stages.iter().filter(|stage| stage.peak_allocated_bytes().is_none()).map(|stage| stage.stage).collect();
    assert_eq!(unknown, [Stage::Denoise]);
    assert_eq!(report.peak(), None);
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
