//! The whole pipeline against diffusers' `WanPipeline`: prompt to video with tiny weights.

use engine::pipeline::{Pipeline, Sources, Target};
use engine::video::VideoCanvas;
use engine::weights::Source;
use engine_protocol::{Config, ModelSpec, Settings, parse_setting};
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use crate::resident::{Fixture, assert_close, path};

/// A prompt's tokens without padding.
fn tokens(fixture: &Fixture, name: &str) -> Vec<i64> {
    let padded: Vec<i64> = fixture.tensor(name).view(-1).try_into().unwrap();
    padded.into_iter().take_while(|&token| token != 0).collect()
}

#[rstest]
#[case::level_0(&["low_mem_level=0"])]
#[case::level_2(&["low_mem_level=2", "vae_tiling=false"])]
#[case::level_3(&["low_mem_level=3", "vae_tiling=false"])]
fn prompt_to_video(#[case] settings: &[&str]) {
    let fixture = Fixture::open("pipeline");
    let model: ModelSpec = fixture.fact("spec");
    let pairs = settings.iter().chain(&["dtype=fp32"]).map(|text| parse_setting(text).unwrap());
    let config = Config::resolve(&Settings::from_pairs(pairs).unwrap(), &model).unwrap();
    let part = |name: &str| Source::open(&path(&format!("pipeline.{name}"))).unwrap();
    let sources =
        Sources { text_encoder: part("text_encoder"), transformer: part("transformer"), low_noise_transformer: None, vae: part("vae") };
    let mut pipeline = Pipeline::load(&model, &config, Target { device: Device::Cpu, computes: true }, &sources).unwrap();

    let prompts = pipeline.encode(&tokens(&fixture, "input.prompt_ids"), &tokens(&fixture, "input.negative_prompt_ids")).unwrap();
    let latents = pipeline.denoise(&prompts, fixture.tensor("input.noise"), |_, _| ()).unwrap();
    assert_close("latents", &latents, &fixture.tensor("output.latents"), 1e-4);

    let mut video = VideoCanvas::new(config.frames, config.height, config.width);
    pipeline.decode(&latents, &mut video, |_, _| ()).unwrap();
    let pixels: Vec<u8> = video.frames().flatten().copied().collect();
    let shape = [i64::from(config.frames), i64::from(config.height), i64::from(config.width), 3];
    let ours = Tensor::from_slice(&pixels).view(shape).to_kind(Kind::Float) / 255.0;
    let reference = fixture.tensor("output.video").squeeze_dim(0).permute([0, 2, 3, 1]);
    // 8 bits a channel round by half a step of 1/255, and 1e-4 on top.
    assert_close("video in 8 bits", &ours, &reference, 0.5 / 255.0 + 1e-4);
}
