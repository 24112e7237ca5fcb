//! Videos that begin with a picture: the same at every level, and predicted.

use engine::ComputeDevice;
use engine::components::{self, Sources};
use engine::pipeline::{Pipeline, Stills};
use engine_protocol::{Config, Outcome, Settings, Stage, parse_setting};
use lowmem_tests::model;
use rstest::rstest;
use tch::Tensor;

use super::levels_agree::relative_error;
use super::predicted::faults;
use super::sweep::{picture, sweep};

/// Latents of a run of the small model on the CPU in fp32.
fn latents(settings: &[&str]) -> Tensor {
    let model = model("wan-tiny-i2v");
    let image = format!("image={}", picture());
    let common = ["dtype=fp32", "seed=7", &image];
    let pairs = common.iter().chain(settings).map(|text| parse_setting(text).expect("a setting"));
    let config = Config::resolve(&Settings::from_pairs(pairs).expect("settings"), &model).expect("a legal configuration");
    let sources = Sources::seeded(&components::of(&model), 7);
    let mut pipeline = Pipeline::load(&model, &config, ComputeDevice::cpu(), &sources).expect("loads");
    let stills = Stills::of(&config, &model).expect("read").expect("a picture");
    let prompts = pipeline.encode(&[1], &[2]).expect("encodes");
    let image = pipeline.encode_image(&stills, |_, _| ()).expect("encodes");
    let noise = pipeline.noise().expect("noise");
    pipeline.denoise(&prompts, Some(image), noise, |_, _| ()).expect("denoises")
}

#[rstest]
#[case::in_tiles_that_hold_it_all(&["low_mem_level=1"], 1e-5)]
#[case::waiting_on_the_host(&["offload_vae=true", "load_weights=as_used"], 0.0)]
#[case::level_3(&["low_mem_level=3"], 1e-5)]
#[case::remembered_on_the_host(&["activation_offload=true"], 0.0)]
fn the_latents_are_those_of_level_0(#[case] settings: &[&str], #[case] tolerance: f64) {
    let reference = latents(&[]);
    let error = relative_error(&latents(settings), &reference);
    assert!(error <= tolerance, "{settings:?}: latents differ by {error:e}");
    assert!(relative_error(&latents(&["guidance_scale=2"]), &reference) > 1e-3, "guidance changes nothing: this test could not fail");
}

/// Beside what `peaks.csv` has: pictures of TI2V-5B, and flags of the VAE.
#[test]
fn what_a_picture_takes_is_predicted() {
    let image = format!("image: {}\n", picture());
    for flags in [
        format!("model: wan2.2-ti2v-5b\n{image}sweep:\n  low_mem_level: [0, 1, 3]\n"),
        format!("model: wan2.2-ti2v-5b\nresolution: 480p\nframes: 49\nlow_mem_level: 1\nvae_tile_size: 40\n{image}"),
        "model: wan2.2-i2v-a14b\nresolution: 480p\nframes: 33\nlow_mem_level: 3\nguidance_batch: true\nvae_tile_size: 24\nvae_temporal_chunk: 3\n".to_owned(),
        "model: wan2.2-i2v-a14b\nresolution: 480p\nframes: 17\nlow_mem_level: 3\nvae_tiling: false\nvae_temporal_chunk: 2\nactivation_offload: true\n".to_owned(),
    ] {
        let records = sweep(&format!("steps_measured: 2\n{flags}"));
        for record in &records {
            assert_eq!(record.outcome, Outcome::Ok, "{flags}{:?}", record.error);
            let stage = record.stage(Stage::EncodeImage).expect("a picture is encoded");
            let pinned = [stage.host, stage.predicted_host].map(|host| host.expect("counted").pinned_peak_bytes);
            assert_eq!(pinned[0], pinned[1], "{flags}page-locked: counted and predicted");
        }
        let faults = faults(&records, None);
        assert!(faults.is_empty(), "predictions are off with\n{flags}{faults}");
    }
}
