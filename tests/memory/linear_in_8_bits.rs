//! Linear layers in 8 bits on the virtual GPU: faster, in less memory, and refused where a card has no such products. Nothing is computed there.

use engine_protocol::{LinearDtype, Outcome, RunRecord};
use lowmem_tests::{lowmem, root};

use super::sweep::sweep_on;

fn figures(record: &RunRecord) -> (f64, u64) {
    assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
    (record.step_secs().expect("a step").expected, record.peak_reserved_bytes().expect("it ran"))
}

/// Weights that wait in 8 bits are not made the type of arithmetic first, so there is no room for that; and products are quicker than those in bf16.
#[test]
fn products_of_what_waits_in_8_bits_take_less_time_and_memory() {
    for (gpu, linear) in [("rtx-4090", "fp8"), ("h100", "fp8"), ("rtx-5090", "fp8"), ("rtx-3090", "int8")] {
        let weights = if linear == "fp8" { "fp8_e4m3" } else { "int8" };
        let records = sweep_on(
            gpu,
            &format!(
                "model: wan2.1-t2v-14b\nresolution: 480p\nlow_mem_level: 3\nsteps_measured: 1\nweight_dtype: {weights}\nsweep:\n  linear_dtype: [dtype, {linear}]\n"
            ),
        );
        let [plain, in_8_bits] = [&records[0], &records[1]].map(figures);
        println!("{gpu}: {plain:?} in bf16, {in_8_bits:?} in {linear}");
        assert!(records[1].config.linear_dtype != LinearDtype::Dtype && in_8_bits.0 < plain.0, "{gpu}");
        assert!(in_8_bits.1 < plain.1, "{gpu}");
    }
}

#[test]
fn cards_without_such_products_are_refused() {
    for (gpu, capability, linear, first) in [("rtx-3090", "8.6", "fp8", "8.9"), ("t4", "7.5", "int8", "8.0")] {
        let mut lowmem = lowmem();
        let linear_dtype = format!("linear_dtype={linear}");
        let arguments = ["plan", "--model", "wan2.1-t2v-1.3b", "--gpu", gpu, "low_mem_level=3", &linear_dtype];
        let output = lowmem.current_dir(root()).args(arguments).output().expect("lowmem starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let wanted = format!("compute capability {capability} ({gpu}) has no {linear_dtype}: GPUs from {first} on have it; leave it out");
        assert!(said.contains(&wanted), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}
