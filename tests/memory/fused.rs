//! The fused kernels on the virtual GPU: less time, and no more memory. Nothing is computed there, and the kernels never ran on a real one.

use engine_protocol::{Fused, Outcome, RunRecord};
use lowmem_tests::{lowmem, root};

use super::sweep::{sweep, sweep_on};

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
        assert!(!pair[0].config.fused.is_on() && pair[1].config.fused.is_on(), "{}", pair[1].case);
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

/// How a command ends for a T4, which has no instructions for the kernels, and what it says on either output.
fn on_a_t4(command: &[&str], fused: &str) -> (Option<i32>, String) {
    let video = ["--model", "wan2.1-t2v-1.3b", "--gpu", "t4", "low_mem_level=3", "frames=1", "dtype=fp16", fused];
    let output = lowmem().current_dir(root()).args(command).args(video).output().expect("lowmem starts");
    (output.status.code(), [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
}

#[test]
fn cards_without_its_instructions_are_refused() {
    for command in [&["plan"][..], &["generate", "--device", "virtual"], &["profile", "--device", "virtual"]] {
        let (code, said) = on_a_t4(command, "fused=true");
        assert!(said.contains("compute capability 7.5 (t4) has no fused=true: GPUs from 8.0 on have it; leave it out"), "{said}");
        assert_eq!((code, said.contains("peak")), (Some(2), false), "{said}");
    }
}

#[test]
fn auto_is_what_the_card_has() {
    let (code, said) = on_a_t4(&["plan"], "fused=auto");
    assert!(said.contains("fused=auto: this GPU has none of the kernels, and libtorch's are used."), "{said}");
    assert_eq!(code, Some(0), "{said}");

    let of = |gpu: &str, dtype: &str, others: &str| {
        let definition = format!("model: wan2.1-t2v-1.3b\nlow_mem_level: 3\nframes: 1\ndtype: {dtype}\nsteps_measured: 2\nsweep:\n");
        let records = sweep_on(gpu, &format!("{definition}  fused: [auto, {others}]\n"));
        (records[0].config.fused, records[0].config_run().fused, records.iter().map(figures).collect::<Vec<_>>())
    };
    let (asked, ran, figures) = of("h100", "bf16", "true, false");
    assert_eq!((asked, ran), (Fused::Auto, Fused::On));
    assert!(figures[0] == figures[1] && figures[0] != figures[2], "auto, true, false: {figures:?}");
    let (asked, ran, figures) = of("t4", "fp16", "false");
    assert_eq!((asked, ran), (Fused::Auto, Fused::Off));
    assert_eq!(figures[0], figures[1], "auto, false");
}
