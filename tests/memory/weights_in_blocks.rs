//! What weights in blocks save, counted on the virtual GPU.

use engine::components;
use engine::memory::{predict, predict_host};
use engine_protocol::{Config, Device, GIB, RunRecord, Settings, Stage, WeightDtype};
use lowmem_tests::model;

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

#[test]
fn a_text_encoder_in_8_bits_takes_less_wherever_it_waits() {
    let plain = model("wan2.1-t2v-14b");
    let mut packed = plain.clone();
    let components = components::of(&plain);
    let names = components[0].groups().iter().flat_map(|group| {
        let linear = group.params.iter().filter(|param| param.precision.may_wait_packed() && !param.name.contains("relative"));
        linear.map(|param| (group.key(param), WeightDtype::Fp8E5m2)).collect::<Vec<_>>()
    });
    packed.text_encoder.packed = names.collect();
    assert_eq!(packed.text_encoder.packed.len(), 7 * 24);
    let config = |level: &str, encoder: &str| {
        let settings = [("low_mem_level", level), ("offload_text_encoder", encoder)].map(|(key, value)| (key.to_owned(), value.into()));
        Config::resolve(&Settings::from_pairs(settings).unwrap(), &plain).unwrap()
    };
    let [whole, less] = [&plain, &packed].map(|model| {
        let components = components::of(model);
        let on_gpu = predict(&config("0", "off"), &components, None);
        let stage = on_gpu.stages.iter().find(|planned| planned.stage == Stage::Encode).expect("it is planned").clone();
        let on_host = predict_host(Stage::Encode, &config("2", "cpu"), &components, Device::Cuda);
        let host = on_host.iter().find(|planned| planned.stage == Stage::Encode).expect("it is planned").memory.peak_bytes;
        let streamed = predict(&config("2", "stream"), &components, None);
        let streamed = streamed.stages.iter().find(|planned| planned.stage == Stage::Encode).expect("it is planned").staging_bytes;
        (stage.resident_bytes as f64, host.expect("predicted") as f64, streamed as f64)
    });
    let layers = 24.0 * (4.0 * 4096.0 * 4096.0 + 3.0 * 4096.0 * 10240.0);
    let saved = whole.0 - less.0;
    assert!((0.99..1.0).contains(&(saved / layers)), "a byte a number, but for scales: {saved} of {layers}");
    // On the host room for one layer is there in passing.
    let saved = whole.1 - less.1;
    assert!((0.9..1.0).contains(&(saved / layers)), "{saved} of {layers}");
    // Streamed, a layer in 8 bits comes to the GPU beside room for what it becomes there.
    assert!((1.49..1.51).contains(&(less.2 / whole.2)), "{} and {} bytes", less.2, whole.2);
}
