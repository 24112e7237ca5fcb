//! A video from a checkpoint is the reference's, number for number, in both layouts and at every memory level.

use engine::{Checkpoint, ComputeDevice, Pipeline};
use engine_protocol::{Config, Settings};
use rstest::rstest;
use safetensors::SafeTensors;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::folder::{fixture, reference, reference_file};

fn tensor(file: &[u8], name: &str) -> Tensor {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::from_data_size(view.data(), &shape, Kind::Float)
}

fn assert_close(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), wanted.size(), "{what}: shape");
    let error = (got - wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
    println!("{what}: relative error {error:.1e}, at most {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:.1e} is over {tolerance:.0e}");
}

#[rstest]
fn is_that_of_the_reference(#[values("diffusers", "original")] layout: &str, #[values(0, 1, 2, 3)] low_mem_level: i64) {
    let (bytes, run) = (reference_file(), reference("run"));
    let checkpoint = Checkpoint::open(&fixture(layout)).unwrap();
    let sides = &run["resolution"];
    let settings = [
        ("prompt", run["prompt"].clone()),
        ("negative_prompt", run["negative_prompt"].clone()),
        ("seed", run["seed"].clone()),
        ("steps", run["steps"].clone()),
        ("guidance_scale", run["guidance_scale"].clone()),
        ("frames", run["frames"].clone()),
        ("resolution", json!(format!("{}x{}", sides[0], sides[1]))),
        ("flow_shift", json!(3.0)),
        ("dtype", json!("fp32")),
        ("low_mem_level", json!(low_mem_level)),
        // Tiles see less of the frame than the whole: another picture, and another test.
        ("vae_tiling", json!(false)),
    ];
    let settings = Settings::from_pairs(settings.map(|(key, value)| (key.to_owned(), value))).unwrap();
    let config = Config::resolve(&settings, checkpoint.model()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("cat.safetensors");
    let mut pipeline = Pipeline::from_checkpoint(&checkpoint, &config, ComputeDevice::cpu()).unwrap();
    pipeline.generate(&output).unwrap();
    let ours = std::fs::read(output).unwrap();
    for name in ["latents", "video"] {
        assert_close(
            &format!("{layout}, level {low_mem_level}: {name}"),
            &tensor(&ours, name),
            &tensor(&bytes, &format!("output.{name}")),
            1e-4,
        );
    }
}
