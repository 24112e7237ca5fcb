//! What a configuration leaves to the machine: resident blocks by rates and by the room on the GPU, and where streamed weights wait.

use engine_protocol::{GIB, Outcome, ResidentBlocks, RunRecord, Stage, StreamFrom, gib};
use rstest::rstest;

use super::sweep::sweep_on;

fn run(gpu: &str, flags: &str) -> RunRecord {
    let definition = format!("model: wan2.1-t2v-14b\nlow_mem_level: 3\nsteps_measured: 2\n{flags}");
    sweep_on(gpu, &definition).pop().expect("one case")
}

/// How many blocks `auto` came to.
fn resident_blocks(record: &RunRecord) -> u32 {
    assert_eq!(record.config.resident_blocks, Some(ResidentBlocks::Auto), "what was asked for stays known");
    record.config_run().resident_blocks.and_then(ResidentBlocks::count).expect("settled")
}

/// In a slot so slow that no copy hides, with few frames where the GPU would take long enough for that. What is left free is less than a block (0.65 GiB), twice where two batches make activations large, and what is kept for the allocator's gaps: a
/// quarter of what a decoder without tiles holds.
#[rstest]
#[case("rtx-4060", 7.63, 1.0, "resolution: 480p\n")]
#[case("rtx-3060", 11.76, 1.2, "resolution: 480p\nframes: 17\nguidance_batch: true\n")]
#[case("rtx-3060", 11.76, 1.0, "resolution: 480p\nframes: 17\nweight_dtype: fp8_e4m3\nprefetch_blocks: 3\n")]
#[case("rtx-4090", 23.65, 1.2, "resolution: 720p\nsequence_chunk: 0\n")]
#[case("rtx-4090", 23.65, 2.0, "resolution: 480p\nvae_tiling: false\n")]
fn as_many_blocks_stay_as_there_is_room_for(#[case] gpu: &str, #[case] capacity_gib: f64, #[case] most_left_gib: f64, #[case] flags: &str) {
    let record = run(&format!("{gpu} --pcie 1x1"), &format!("{flags}resident_blocks: auto\n"));
    assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
    let count = resident_blocks(&record);
    let left_gib = capacity_gib - gib(record.peak_device_bytes().expect("it ran"));
    assert!((1..40).contains(&count), "{count} blocks: nothing was to be decided");
    assert!((0.0..most_left_gib).contains(&left_gib), "{count} blocks leave {left_gib:.2} GiB free");
}

/// Seconds of denoise, and for how many of them arithmetic waited for a copy.
fn denoised(record: &RunRecord) -> (f64, f64) {
    assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
    let stage = record.stages.iter().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
    let time = stage.time.expect("modelled");
    (time.secs.expected, time.copy_stall.expect("on the GPU").expected)
}

#[rstest]
#[case("rtx-4090 --pcie 4x16", 720, 0)]
#[case("rtx-4090 --pcie 4x16", 480, 0)]
#[case("rtx-4090 --pcie 3x8", 480, 0)]
#[case("rtx-4090 --pcie 3x2", 480, 1)]
fn as_few_blocks_stay_as_let_copies_hide(#[case] gpu: &str, #[case] resolution: u32, #[case] fewest: u32) {
    let run = |blocks: &str| run(gpu, &format!("resolution: {resolution}p\nresident_blocks: {blocks}\n"));
    let record = run("auto");
    let (secs, stalled) = denoised(&record);
    assert!(stalled < 0.01 * secs, "{stalled} of {secs} s");
    let count = resident_blocks(&record);
    assert!(count >= fewest && count < 30, "{count} blocks");
    // Without, it takes longer where the slot is slow.
    let (slow_secs, slow_stalled) = denoised(&run("0"));
    assert_eq!(slow_stalled > 0.01 * slow_secs, gpu != "rtx-4090 --pcie 4x16", "{slow_stalled} of {slow_secs} s");
    assert!(secs <= slow_secs, "{secs} s, {slow_secs} s without");
}

/// On the same rates; the RTX 4090's own memory is too small for level 0.
#[test]
fn streaming_takes_a_fiftieth_longer_at_most() {
    let secs = |level: u8| {
        let definition = format!("model: wan2.1-t2v-14b\nsteps_measured: 2\nresolution: 720p\nlow_mem_level: {level}\n");
        denoised(&sweep_on("h100 --pcie 4x16", &definition)[0]).0
    };
    let (streamed, resident) = (secs(3), secs(0));
    assert!(streamed <= 1.02 * resident, "{streamed} s, {resident} s");
}

#[test]
fn from_the_file_no_more_is_page_locked_than_a_ring() {
    let record = run("rtx-4090", "resolution: 480p\nstream_from: file\n");
    assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
    let pinned = record.host_pinned_peak_bytes.expect("counted");
    let from_memory = run("rtx-4090", "resolution: 480p\n");
    assert!(pinned < GIB / 4 && pinned > 0, "{pinned} bytes");
    assert!(from_memory.host_pinned_peak_bytes > Some(26 * GIB), "all blocks wait in page-locked memory");
    assert_eq!(record.peak_reserved_bytes(), from_memory.peak_reserved_bytes(), "where weights come from changes nothing on the GPU");
    assert_eq!(from_memory.config.stream_from, Some(StreamFrom::Auto), "what was asked for stays known");
    assert_eq!(from_memory.config_run().stream_from, Some(StreamFrom::Memory));
}

#[test]
fn a_limit_on_page_locked_memory_holds() {
    let record = run("rtx-4090", "resolution: 480p\nmax_pinned_gib: 8\n");
    let pinned = record.host_pinned_peak_bytes.expect("counted");
    assert!(pinned <= 8 * GIB && pinned > 7 * GIB, "{pinned} bytes");
}
