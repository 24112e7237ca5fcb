//! Where weights live changes nothing of what is computed: wan-tiny on the CPU, every level and flag against level 0.

use engine::ComputeDevice;
use engine::components::{Sources, TEXT_ENCODER, TRANSFORMER, VAE};
use engine::pipeline::Pipeline;
use engine::text_encoder::byte_tokens;
use engine::video::VideoCanvas;
use engine::weights::Source;
use engine_protocol::{Config, Device, Settings, Stage, parse_setting};
use lowmem_tests::agreement::{AGREEING, Agreeing, Agreement};
use rstest::rstest;
use tch::Tensor;

/// Latents and pixels of a run in fp32.
fn run(settings: &[&str]) -> (Tensor, Vec<u8>) {
    run_as(settings, |pipeline| pipeline)
}

/// Latents and pixels of a run in fp32, of a pipeline that `change` has had its way with.
pub(crate) fn run_as(settings: &[&str], change: impl FnOnce(Pipeline) -> Pipeline) -> (Tensor, Vec<u8>) {
    let (mut pipeline, config) = load(settings, change);
    let prompts = pipeline.encode(&tokens("a cat"), &tokens(&config.negative_prompt)).expect("encodes");
    let noise = pipeline.noise().expect("noise");
    let latents = pipeline.denoise(&prompts, None, noise, |_, _| ()).expect("denoises");
    let mut video = VideoCanvas::new(config.frames, config.resolution.height, config.resolution.width);
    pipeline.decode(&latents, &mut video, |_, _| ()).expect("decodes");
    (latents, video.frames().flatten().copied().collect())
}

fn load(settings: &[&str], change: impl FnOnce(Pipeline) -> Pipeline) -> (Pipeline, Config) {
    let model = lowmem_tests::model("wan-tiny");
    let pairs = settings.iter().chain(&["dtype=fp32", "seed=7", "negative_prompt=rain"]);
    let settings = Settings::from_pairs(pairs.map(|text| parse_setting(text).expect("a setting"))).expect("settings");
    let config = Config::resolve_on(Device::Cpu, &settings, &model).expect("a legal configuration");
    (change(Pipeline::load(&model, &config, ComputeDevice::cpu(), &sources()).expect("loads")), config)
}

fn sources() -> Sources {
    Sources::new([(TEXT_ENCODER, Source::Seeded(1)), (TRANSFORMER, Source::Seeded(2)), (VAE, Source::Seeded(3))])
}

fn tokens(prompt: &str) -> Vec<i64> {
    byte_tokens(prompt, lowmem_tests::model("wan-tiny").text_encoder.max_tokens)
}

/// Largest difference, relative to the largest value.
pub(crate) fn relative_error(ours: &Tensor, reference: &Tensor) -> f64 {
    let difference = (ours - reference).abs().max().double_value(&[]);
    difference / reference.abs().max().double_value(&[])
}

#[test]
fn the_latents_are_those_of_level_0() {
    let (reference, video) = run(&["low_mem_level=0"]);
    for Agreeing { settings, agreement } in AGREEING {
        let (latents, ours) = run(settings);
        let (error, tolerance) = (relative_error(&latents, &reference), if *agreement == Agreement::Rounding { 1e-5 } else { 0.0 });
        assert!(error <= tolerance, "{settings:?}: latents differ by {error:e}");
        // 8 bits a channel: arithmetic in another order may move a value over a rounding border, and no further.
        let furthest = ours.iter().zip(&video).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(furthest <= Some(1) && ours.len() == video.len(), "{settings:?}: pixels differ by {furthest:?}");
    }
}

/// Fewer bits are another model: its results are its own, near those of the first, and the same wherever the weights wait.
#[rstest]
fn packed_weights_are_near_and_the_same_at_every_level(#[values("fp8_e4m3", "int8", "q8_0", "q5_1")] dtype: &str) {
    assert_near_and_the_same(&format!("weight_dtype={dtype}"), 1e-4..0.1);
}

/// Products in 8 bits of weights that are used as they wait, wherever that is.
#[rstest]
fn linear_layers_in_8_bits_are_near_and_the_same_at_every_level(#[values("fp8", "int8")] linear: &str) {
    assert_near_and_the_same(&format!("linear_dtype={linear}"), 1e-3..0.2);
}

/// What `flag` gives is so far from what is exact, and the same where weights are streamed.
fn assert_near_and_the_same(flag: &str, distance: std::ops::Range<f64>) {
    let (whole, _) = run(&[]);
    let (reference, _) = run(&[flag]);
    let error = relative_error(&reference, &whole);
    assert!(distance.contains(&error), "{flag} is {error:e} off");
    let (streamed, _) = run(&[flag, "offload_dit=true", "resident_blocks=1"]);
    assert_eq!(relative_error(&streamed, &reference), 0.0);
}

/// What `on_oom=lower` does: one pipeline goes on where another stopped, with what it kept.
#[rstest]
#[case::unipc("sampler=unipc")]
#[case::euler("sampler=euler")]
#[case::dpmpp("sampler=dpmpp")]
fn a_denoising_goes_on_at_another_level(#[case] sampler: &str) {
    let (whole, _) = run(&[sampler]);
    let mut denoising = None;
    for (level, steps) in [("low_mem_level=0", 1), ("low_mem_level=2", 2), ("low_mem_level=3", 1)] {
        let mut pipeline = load(&[sampler, level, "vae_tiling=false"], |pipeline| pipeline).0;
        let prompts = pipeline.encode(&tokens("a cat"), &tokens("rain")).expect("encodes");
        let kept = pipeline.keep(&prompts).expect("kept");
        let prompts = pipeline.bring_back(&kept).expect("brought back");
        let noise = pipeline.noise().expect("noise");
        let denoising = denoising.get_or_insert_with(|| pipeline.begin(None, noise).expect("begun"));
        for _ in 0..steps {
            pipeline.step(&prompts, denoising).expect("a step");
        }
    }
    let denoising = denoising.expect("begun");
    assert!(denoising.is_over());
    let error = relative_error(denoising.latents(), &whole);
    assert!(error <= 1e-5, "latents differ by {error:e}");
}

#[test]
fn a_pipeline_for_later_stages_says_what_it_lacks() {
    let model = lowmem_tests::model("wan-tiny");
    let config = Config::resolve(&Settings::default(), &model).expect("legal");
    let mut pipeline = Pipeline::load_from(Stage::Decode, &model, &config, ComputeDevice::cpu(), &sources()).expect("loads");
    let message = pipeline.encode(&[1], &[1]).expect_err("no text encoder").to_string();
    assert!(message.contains("loaded for later stages"), "{message}");
}

#[test]
fn the_seed_and_the_prompt_matter() {
    let (reference, _) = run(&[]);
    let (other_guidance, _) = run(&["guidance_scale=3"]);
    assert!(relative_error(&other_guidance, &reference) > 1e-3, "guidance changes nothing: these tests could not fail");
    let (other_steps, _) = run(&["steps=3"]);
    assert!(relative_error(&other_steps, &reference) > 1e-3, "steps change nothing: these tests could not fail");
}

#[rstest]
#[case::euler("sampler=euler")]
#[case::dpmpp("infer.diffusion.sampler=dpmpp")]
fn each_sampler_goes_its_own_way(#[case] setting: &str) {
    let (unipc, _) = run(&[]);
    let (named, _) = run(&["sampler=unipc"]);
    assert_eq!(named, unipc, "UniPC is the default");
    let (other, _) = run(&[setting]);
    assert!(relative_error(&other, &unipc) > 1e-3, "{setting} changes nothing");
    let (again, _) = run(&[setting, "low_mem_level=3", "vae_tiling=false"]);
    assert!(relative_error(&again, &other) <= 1e-5, "{setting}: level 3 is not level 0");
}
