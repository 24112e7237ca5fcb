//! The fused kernels on the virtual GPU: less time, and no more memory. Nothing is computed there, and the kernels never ran on a real one.

use engine_protocol::{Outcome, RunRecord};
use lowmem_tests::{built, root};

use super::sweep::sweep;

fn figures(record: &RunRecord) -> (f64, u64) {
    assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
    (record.step_secs().expect("a step").expected, record.peak_allocated_bytes().expect("it ran"))
}

/// That no case of the definition takes longer with the kernels, or more memory; and how many there are. `sweep` comes last in it.
fn pairs(definition: &str) -> usize {
    let records = sweep(&format!("model: wan2.1-t2v-14b\nlow_mem_level: 3\nsteps_measured: 2\n{definition}  fused: [false, true]\n"));
    let pair = |pair: &[RunRecord]| {
        let [plain, fused] = [&pair[0], &pair[1]].map(figures);
        println!("{}: {plain:?} without, {fused:?} with", pair[0].case);
        assert!(!pair[0].config.fused && pair[1].config.fused, "{}", pair[1].case);
        assert!(fused.0 < plain.0 && fused.1 <= plain.1, "{}: {plain:?} without, {fused:?} with", pair[0].case);
    };
    records.chunks(2).map(pair).count()
}

#[test]
fn a_step_takes_less_time_and_no_more_memory() {
    let pairs = pairs("resolution: 720p\nsweep:\n  head_chunk: [0, 10]\n  sequence_chunk: [4096, 0]\n");
    assert_eq!(pairs, 4);
}

#[test]
fn packed_weights_take_less_time_and_no_more_memory() {
    let pairs = pairs("resolution: 480p\nframes: 5\nsweep:\n  weight_dtype: [fp8_e4m3, int8, q8_0, q4_k]\n");
    assert_eq!(pairs, 4);
}

#[test]
fn cards_without_its_instructions_are_refused() {
    let mut lowmem = std::process::Command::new(built("lowmem"));
    let arguments = ["plan", "--model", "wan2.1-t2v-1.3b", "--gpu", "t4", "low_mem_level=3", "dtype=fp16", "fused=true"];
    let output = lowmem.current_dir(root()).args(arguments).output().expect("lowmem starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("compute capability 7.5 (t4) has no fused=true: GPUs from 8.0 on have it; leave it out"), "{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
}
