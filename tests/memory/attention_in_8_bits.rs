//! Attention in 8 bits on the virtual GPU: its memory to the byte, its time by a model. Nothing is computed there.

use engine_protocol::{AttentionKernel, AttnType, GIB, Outcome, RunRecord, Stage};
use lowmem_tests::{lowmem, root};

use super::sweep::{sweep, sweep_on};

fn step(record: &RunRecord) -> f64 {
    record.step_secs().expect("a step").expected
}

/// The figure that people ask for: 14B at 720p, some heads at a time.
#[test]
fn at_720p_14b_takes_at_most_3_1_gib() {
    let records =
        sweep("model: wan2.1-t2v-14b\nresolution: 720p\nlow_mem_level: 3\nsweep:\n  attn_type: [flash, sage]\n  head_chunk: [0, 10, 4]\n");
    for record in &records {
        assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
        let is_sage = record.config.attn_type == AttnType::Sage;
        let kernel = if is_sage { AttentionKernel::Sage } else { AttentionKernel::Flash };
        assert_eq!(record.stage(Stage::Denoise).expect("it ran").attention, [kernel], "{}", record.case);
        let reserved = record.peak_reserved_bytes().expect("it ran") as f64 / GIB as f64;
        println!("{}: {reserved:.3} GiB, {:.1} s a step", record.case, step(record));
        assert!(!is_sage || record.config.head_chunk.is_none() || reserved <= 3.1, "{}: {reserved}", record.case);
        let flash = records.iter().find(|other| other.config.head_chunk == record.config.head_chunk).expect("the same with flash");
        assert!(!is_sage || step(record) < step(flash), "{}: {} s and {} s", record.case, step(record), step(flash));
        let [allocated, of_flash] = [record, flash].map(|record| record.peak_allocated_bytes().expect("it ran"));
        assert!(allocated <= of_flash, "{}: {allocated} bytes allocated, and {of_flash} with flash", record.case);
    }
}

/// Two products in int8, on each kind of card that there is a kernel for.
#[test]
fn each_card_has_the_same_kernel() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nlow_mem_level: 3\nattn_type: sage\nsteps_measured: 1\n";
    let operations = |gpu: &str| {
        let records = sweep_on(gpu, definition);
        assert_eq!(records[0].outcome, Outcome::Ok, "{gpu}: {:?}", records[0].error);
        records[0].stage(Stage::Denoise).and_then(|stage| stage.time?.work).expect("what was computed").operations
    };
    let reference = operations("rtx-4090");
    for gpu in ["a100-40gb", "rtx-3090", "h100", "rtx-5090"] {
        assert_eq!(operations(gpu), reference, "{gpu}");
    }
}

/// Half of the keys are half of the operations of self-attention; what they are chosen by is less than a hundredth of what keys and values take.
#[test]
fn over_half_of_the_keys_it_takes_less_time_and_hardly_more_memory() {
    let definition = "model: wan2.1-t2v-14b\nresolution: 720p\nlow_mem_level: 3\nhead_chunk: 10\ncases:\n  - attn_type: sage\n  - attn_type: sparge\n  - {attn_type: sparge, attn_topk: 1}\n";
    let records = sweep(definition);
    let of = |record: &RunRecord| {
        assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
        let stage = record.stage(Stage::Denoise).expect("it ran");
        let operations = stage.time.and_then(|time| time.work).expect("what was computed").operations;
        let reserved = record.peak_reserved_bytes().expect("it ran") as f64 / GIB as f64;
        println!("{}: {reserved:.3} GiB, {:.1} s a step, {operations:e}", record.case, step(record));
        (stage.attention.clone(), operations, reserved, step(record))
    };
    let [sage, half, all] = [0, 1, 2].map(|place| of(&records[place]));
    assert_eq!(
        (sage.0, half.0, all.0),
        (
            vec![AttentionKernel::Sage],
            vec![AttentionKernel::Sage, AttentionKernel::Sparge],
            vec![AttentionKernel::Sage, AttentionKernel::Sparge]
        )
    );
    // Cross-attention is to all keys: there are few.
    let self_attention = sage.1 - half.1;
    assert!((all.1 - sage.1).abs() < 0.01 * sage.1 && self_attention > 0.2 * sage.1, "{} {} {}", sage.1, half.1, all.1);
    assert!(half.3 < 0.85 * sage.3 && all.3 >= sage.3, "{} {} {}", sage.3, half.3, all.3);
    assert!(half.2 <= 3.1 && half.2 < sage.2 + 0.05, "{} {}", sage.2, half.2);
}

#[test]
fn cards_without_a_kernel_are_refused_with_the_list() {
    for (gpu, capability, kernel) in [("t4", "7.5 (t4)", "sage"), ("b200", "10.0 (b200)", "sparge")] {
        let mut lowmem = lowmem();
        let arguments = ["plan", "--model", "wan2.1-t2v-1.3b", "--gpu", gpu, "low_mem_level=3", &format!("attn_type={kernel}")];
        let output = lowmem.current_dir(root()).args(arguments).output().expect("lowmem starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let wanted = format!(
            "compute capability {capability} has no attn_type={kernel}: there are kernels for 8.0, 8.6, 8.9, 9.0, 12.0; use attn_type=sdpa"
        );
        assert!(said.contains(&wanted), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}
