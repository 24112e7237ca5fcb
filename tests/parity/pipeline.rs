//! The whole pipeline against diffusers' `WanPipeline`: prompt to video with tiny weights.

use engine::Pipeline;
use engine::components::{LOW_NOISE_TRANSFORMER, Sources, TEXT_ENCODER, TRANSFORMER, VAE};
use engine::context_parallel::Ranks;
use engine::video::VideoCanvas;
use engine::weights::Source;
use engine_protocol::{Config, ModelSpec, PoolSpec, Settings, parse_setting};
use rstest::rstest;
use tch::{Kind, Tensor};

use crate::resident::{Fixture, assert_close, device, path};

/// A prompt's tokens without padding.
pub(crate) fn tokens(fixture: &Fixture, name: &str) -> Vec<i64> {
    let padded: Vec<i64> = fixture.tensor(name).view(-1).try_into().unwrap();
    padded.into_iter().take_while(|&token| token != 0).collect()
}

/// The fixture's weights in a pipeline for `model`, which may have a second transformer.
pub(crate) fn load(model: &ModelSpec, settings: &[&str]) -> (Pipeline, Config) {
    load_as(model, settings, Ranks::alone())
}

/// As [`load`], as one of `ranks`.
pub(crate) fn load_as(model: &ModelSpec, settings: &[&str], ranks: Ranks) -> (Pipeline, Config) {
    let pairs = settings.iter().chain(&["dtype=fp32"]).map(|text| parse_setting(text).unwrap());
    let config = Config::resolve(&Settings::from_pairs(pairs).unwrap(), model).unwrap();
    let source = |key, name: &str| (key, Source::open(&path(&format!("pipeline.{name}"))).unwrap());
    let one = [source(TEXT_ENCODER, "text_encoder"), source(TRANSFORMER, "transformer"), source(VAE, "vae")];
    let second = model.pool.as_ref().map(|_| source(LOW_NOISE_TRANSFORMER, "low_noise_transformer"));
    let sources = Sources::new(one.into_iter().chain(second)).as_one_of(ranks);
    (Pipeline::load(model, &config, device(), &sources).unwrap(), config)
}

/// Latents of the fixture's prompts and noise.
fn latents(pipeline: &mut Pipeline, fixture: &Fixture) -> Tensor {
    let prompts = pipeline.encode(&tokens(fixture, "input.prompt_ids"), &tokens(fixture, "input.negative_prompt_ids")).unwrap();
    pipeline.denoise(&prompts, None, fixture.tensor("input.noise"), |_, _| ()).unwrap()
}

/// The same of a fixture's prompts and noise, and how many steps left blocks out.
pub(crate) fn steps(pipeline: &mut Pipeline, fixture: &Fixture) -> (Tensor, u32) {
    let prompts = pipeline.encode(&tokens(fixture, "input.prompt_ids"), &tokens(fixture, "input.negative_prompt_ids")).unwrap();
    let mut denoising = pipeline.begin(None, fixture.tensor("input.noise")).unwrap();
    let mut reused = 0;
    while !denoising.is_over() {
        pipeline.step(&prompts, &mut denoising).unwrap();
        reused += u32::from(denoising.has_reused());
    }
    (denoising.latents().shallow_clone(), reused)
}

#[rstest]
#[case::level_0(&["low_mem_level=0"])]
#[case::level_2(&["low_mem_level=2", "vae_tiling=false"])]
#[case::level_3(&["low_mem_level=3", "vae_tiling=false"])]
fn prompt_to_video(#[case] settings: &[&str]) {
    let fixture = Fixture::open("pipeline");
    let (mut pipeline, config) = load(&fixture.fact("spec"), settings);
    let latents = latents(&mut pipeline, &fixture);
    assert_close("latents", &latents, &fixture.tensor("output.latents"), 1e-4);

    let mut video = VideoCanvas::new(config.frames, config.resolution.height, config.resolution.width);
    pipeline.decode(&latents, &mut video, |_, _| ()).unwrap();
    let pixels: Vec<u8> = video.frames().flatten().copied().collect();
    let shape = [i64::from(config.frames), i64::from(config.resolution.height), i64::from(config.resolution.width), 3];
    let ours = Tensor::from_slice(&pixels).view(shape).to_kind(Kind::Float) / 255.0;
    let reference = fixture.tensor("output.video").squeeze_dim(0).permute([0, 2, 3, 1]);
    // 8 bits a channel round by half a step of 1/255, and 1e-4 on top.
    assert_close("video in 8 bits", &ours, &reference, 0.5 / 255.0 + 1e-4);
}

#[rstest]
#[case::euler("euler")]
#[case::dpmpp("dpmpp")]
fn the_other_samplers(#[case] sampler: &str) {
    let fixture = Fixture::open("pipeline");
    let (mut pipeline, _) = load(&fixture.fact("spec"), &[&format!("sampler={sampler}")]);
    let wanted = fixture.tensor(&format!("output.{sampler}_latents"));
    assert_close(&format!("latents, {sampler}"), &latents(&mut pipeline, &fixture), &wanted, 1e-4);
}

/// Wan2.2 A14B: the fixture's four steps are two above the boundary and two below.
#[rstest]
#[case::level_0("low_mem_level=0")]
#[case::level_3("low_mem_level=3")]
fn a_pool_of_two_transformers(#[case] level: &str) {
    let fixture = Fixture::open("pipeline");
    let pool: PoolSpec = fixture.fact("pool");
    let wanted = fixture.tensor("output.pool_latents");
    let run = |pool: PoolSpec| {
        let model = ModelSpec { pool: Some(pool), ..fixture.fact("spec") };
        latents(&mut load(&model, &[level]).0, &fixture)
    };
    assert_close("latents, pool", &run(pool.clone()), &wanted, 1e-4);

    // Each transformer, and each guidance scale, has its part in that.
    let different = |what: &str, other: &Tensor| {
        let distance = (other - &wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[]);
        assert!(distance > 1e-2, "{what} changes the latents by {distance:e}");
    };
    different("only the high-noise one", &run(PoolSpec { boundary: 0.0, ..pool.clone() }));
    different("only the low-noise one", &run(PoolSpec { boundary: 1.0, ..pool.clone() }));
    different("another guidance scale", &run(PoolSpec { low_noise_guidance_scale: Some(5.0), ..pool }));
}

/// Wan2.2 TI2V-5B gives every token a timestep of its own; from text to video all are the same, and the one that we pass means that.
#[test]
fn a_timestep_for_every_token() {
    let fixture = Fixture::open("pipeline");
    let (mut pipeline, _) = load(&fixture.fact("spec"), &[]);
    assert_close("latents, expanded timesteps", &latents(&mut pipeline, &fixture), &fixture.tensor("output.expanded_latents"), 1e-4);
}

/// Caches of sampler steps: diffusers' own where it has them, and rules written beside the fixture. Where what they keep lives changes nothing.
#[rstest]
#[case::none("none", &[])]
#[case::first_block("firstblock", &["flexcache_threshold=0.35"])]
#[case::magcache("magcache", &["flexcache_threshold=0.2", "flexcache_interval=3", "flexcache_warmup=2", "guidance_scale=1"])]
#[case::teacache("teacache", &["flexcache_threshold=0.02", "flexcache_warmup=2"])]
#[case::taylorseer("taylorseer", &["flexcache_order=2", "flexcache_warmup=2", "flexcache_interval=3"])]
#[case::pab("pab", &["flexcache_warmup=6", "flexcache_cooldown=1", "guidance_scale=1"])]
#[case::taylorseer_modules("taylorseer_modules", &["flexcache_order=2", "flexcache_warmup=2", "flexcache_interval=3"])]
#[case::freecache("freecache", &["flexcache_threshold=0.3", "flexcache_order=2", "flexcache_warmup=2", "flexcache_cooldown=1", "flexcache_interval=3", "guidance_scale=1"])]
#[case::meancache("meancache", &["flexcache_fresh_steps=17", "steps=50", "guidance_scale=1"])]
#[case::blockdance("blockdance", &["flexcache_block=0", "flexcache_warmup=2", "flexcache_cooldown=2"])]
fn caches_of_sampler_steps(#[case] cache: &str, #[case] settings: &[&str]) {
    let fixture = Fixture::open("flexcache");
    // The small model of our tests goes by the numbers of 1.3B, as the fixture does.
    let model = ModelSpec { name: "wan-tiny".into(), ..fixture.fact("spec") };
    let steps = format!("steps={}", fixture.fact::<u32>("steps"));
    let run = |cache: &str, settings: &[&str]| {
        let cache = format!("flexcache={cache}");
        self::steps(&mut load(&model, &[&[&*steps], settings, &[&cache]].concat()).0, &fixture)
    };
    let (latents, reused) = run(cache, settings);
    assert_close(&format!("latents, {cache}"), &latents, &fixture.tensor(&format!("output.{cache}")), 1e-4);
    let (kept_elsewhere, reused_there) = run(cache, &[settings, &["low_mem_level=3"]].concat());
    assert!(latents == kept_elsewhere && reused == reused_there, "{cache}: level 3 gives another video");
    if cache != "none" {
        let plain = run("none", settings).0;
        assert!(reused > 0 && (plain - latents).abs().max().double_value(&[]) > 1e-3, "{cache}: {reused} steps left blocks out");
    }
}
