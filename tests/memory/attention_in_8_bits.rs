//! Attention in 8 bits on the virtual GPU: its memory to the byte, its time by a model. Nothing is computed there.

use engine_protocol::{AttentionKernel, AttnType, GIB, Outcome, RunRecord, Stage};
use lowmem_tests::{built, root};

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
    }
}

/// Its operations are those of two products, in int8; where values are in fp16, one of them counts twice.
#[test]
fn each_card_has_the_kernel_that_is_for_it() {
    let definition = "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 9\nlow_mem_level: 3\nattn_type: sage\nsteps_measured: 1\n";
    let operations = |gpu: &str| {
        let records = sweep_on(gpu, definition);
        assert_eq!(records[0].outcome, Outcome::Ok, "{gpu}: {:?}", records[0].error);
        records[0].stage(Stage::Denoise).and_then(|stage| stage.time?.work).expect("what was computed").operations
    };
    let [fp8, fp16] = [["rtx-4090", "h100", "rtx-5090"].as_slice(), &["a100-40gb", "rtx-3090"]];
    let reference = operations(fp8[0]);
    assert!(fp8[1..].iter().all(|gpu| operations(gpu) == reference));
    for gpu in fp16 {
        assert!(operations(gpu) > 1.01 * reference, "{gpu}");
    }
}

#[test]
fn cards_without_a_kernel_are_refused_with_the_list() {
    for (gpu, capability) in [("t4", "7.5 (t4)"), ("b200", "10.0 (b200)")] {
        let mut lowmem = std::process::Command::new(built("lowmem"));
        let arguments = ["plan", "--model", "wan2.1-t2v-1.3b", "--gpu", gpu, "low_mem_level=3", "attn_type=sage"];
        let output = lowmem.current_dir(root()).args(arguments).output().expect("lowmem starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let wanted = format!(
            "compute capability {capability} has no attn_type=sage: there are kernels for 8.0, 8.6, 8.9, 9.0, 12.0; use attn_type=sdpa"
        );
        assert!(said.contains(&wanted), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}
