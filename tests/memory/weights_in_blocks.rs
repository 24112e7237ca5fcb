//! What weights in blocks save, counted on the virtual GPU.

use engine_protocol::{GIB, RunRecord};

use super::sweep::sweep;

/// The most that a run reserved, in GiB.
fn reserved(record: &RunRecord) -> f64 {
    record.peak_reserved_bytes().expect("counted") as f64 / GIB as f64
}

#[test]
fn the_14b_model_in_q4_k_fits_cards_of_12_gb_at_level_2() {
    let records =
        sweep("model: wan2.1-t2v-14b\nlow_mem_level: 2\nweight_dtype: q4_k\nsteps_measured: 1\nsweep:\n  resolution: [720p, 480p]\n");
    let [large, small] = [&records[0], &records[1]].map(reserved);
    assert!(large <= 11.0 && small <= 9.5, "{large:.2} GiB at 720p, {small:.2} at 480p");
    // 4.5 of 16 bits on the bus, where weights are streamed.
    let records = sweep(
        "model: wan2.1-t2v-1.3b\nlow_mem_level: 3\nresolution: 480p\nframes: 5\nsteps_measured: 1\nsweep:\n  weight_dtype: [as_stored, q4_k]\n",
    );
    let [whole, packed] = [&records[0], &records[1]].map(|record| record.h2d_bytes.expect("counted") as f64);
    assert!((0.28..0.35).contains(&(packed / whole)), "{packed} of {whole} bytes");
}
