//! Videos that begin with a picture, against diffusers' `WanImageToVideoPipeline` with tiny weights.

use engine::Pipeline;
use engine::components::{IMAGE_ENCODER, LOW_NOISE_TRANSFORMER, Sources, TEXT_ENCODER, TRANSFORMER, VAE, VAE_ENCODER};
use engine::context_parallel::Ranks;
use engine::image_encoder::{ImageEncoder, normalised};
use engine::pipeline::Stills;
use engine::weights::Source;
use engine_protocol::{Config, ImageEncoderSpec, ImageInput, ModelSpec, Settings, TextEncoderSpec, TransformerSpec, parse_setting};
use picture::{Filter, Picture};
use rstest::rstest;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::pipeline::tokens;
use crate::resident::{Fixture, Resident, assert_close, device, path};

/// Flags, and the pictures that they name.
const FIRST: (&str, &str) = ("image", "picture");
const LAST: (&str, &str) = ("last_image", "last_picture");

/// A picture of the fixture, of another size than the video.
fn picture(name: &str) -> String {
    path(name).with_extension("png").display().to_string()
}

/// Latents of the fixture's prompts, noise and pictures, by the transformers of these files.
fn latents(fixture: &Fixture, model: &ModelSpec, transformers: &[&str], pictures: &[(&str, &str)], settings: &[&str]) -> Tensor {
    latents_as(Ranks::alone(), fixture, model, transformers, pictures, settings)
}

/// The same as one of `ranks`.
fn latents_as(
    ranks: Ranks,
    fixture: &Fixture,
    model: &ModelSpec,
    transformers: &[&str],
    pictures: &[(&str, &str)],
    settings: &[&str],
) -> Tensor {
    let pairs = settings.iter().chain(&["dtype=fp32"]).map(|text| parse_setting(text).unwrap());
    let pictures = pictures.iter().map(|&(key, name)| (key.to_owned(), Value::from(picture(name))));
    let config = Config::resolve(&Settings::from_pairs(pairs.chain(pictures)).unwrap(), model).unwrap();
    let source = |key, name: &str| (key, Source::open(&path(name)).unwrap());
    let of_transformers = [TRANSFORMER, LOW_NOISE_TRANSFORMER].into_iter().zip(transformers).map(|(key, name)| source(key, name));
    let others = [(TEXT_ENCODER, "pipeline.text_encoder"), (VAE, "pipeline.vae"), (VAE_ENCODER, "image_to_video.vae_encoder")];
    let clip = model.image_encoder.as_ref().map(|_| source(IMAGE_ENCODER, "image_to_video.image_encoder"));
    let sources = Sources::new(others.map(|(key, name)| source(key, name)).into_iter().chain(of_transformers).chain(clip));
    let mut pipeline = Pipeline::load(model, &config, device(), &sources.as_one_of(ranks)).unwrap();

    let stills = Stills::of(&config, model).unwrap().expect("a picture was named");
    let prompts = pipeline.encode(&tokens(fixture, "input.prompt_ids"), &tokens(fixture, "input.negative_prompt_ids")).unwrap();
    let image = pipeline.encode_image(&stills, |_, _| ()).unwrap();
    pipeline.denoise(&prompts, Some(image), fixture.tensor("input.noise"), |_, _| ()).unwrap()
}

/// The fixture with the model that takes a picture as channels beside the noise.
fn with_channels() -> (Fixture, ModelSpec) {
    let fixture = Fixture::open("image_to_video");
    let model = ModelSpec { image: Some(ImageInput::Channels), pool: fixture.fact("pool"), ..fixture.fact("spec") };
    (fixture, model)
}

/// The transformers of that.
const POOL: [&str; 2] = ["image_to_video.transformer", "image_to_video.low_noise_transformer"];

/// The fixture with the model that takes a picture as the first latent frame.
fn with_first_frame() -> (Fixture, ModelSpec) {
    let fixture = Fixture::open("image_to_video");
    let spec: ModelSpec = fixture.fact("spec");
    let transformer = TransformerSpec { in_channels: spec.vae.z_dim, ..spec.transformer.clone() };
    let model = ModelSpec { image: Some(ImageInput::FirstFrame), transformer, ..spec };
    (fixture, model)
}

/// Latents of a picture as channels, as one of `ranks`.
pub(crate) fn channels_as(ranks: Ranks) -> Tensor {
    let (fixture, model) = with_channels();
    latents_as(ranks, &fixture, &model, &POOL, &[FIRST], &["sequence_chunk=2"])
}

/// Latents of a picture as the first frame, as one of `ranks`.
pub(crate) fn first_frame_as(ranks: Ranks) -> Tensor {
    let (fixture, model) = with_first_frame();
    latents_as(ranks, &fixture, &model, &["pipeline.transformer"], &[FIRST], &["sequence_chunk=4"])
}

/// Wan2.2 I2V A14B: the picture's latents and a mask are channels beside the noise.
#[rstest]
#[case::level_0(&["low_mem_level=0"])]
#[case::in_one_batch(&["guidance_batch=true"])]
#[case::whole_video_at_once(&["vae_temporal_chunk=2"])]
#[case::level_3(&["low_mem_level=3"])]
fn a_picture_as_channels(#[case] settings: &[&str]) {
    let (fixture, model) = with_channels();
    let run = |pictures: &[(&str, &str)]| latents(&fixture, &model, &POOL, pictures, settings);
    assert_close("latents, a picture as channels", &run(&[FIRST]), &fixture.tensor("output.channels"), 1e-4);
    assert_close("latents, with a last picture", &run(&[FIRST, LAST]), &fixture.tensor("output.channels_and_last"), 1e-4);
}

/// Wan2.1 I2V: CLIP sees the picture too, and each block attends to what it says.
#[rstest]
#[case::level_0(&["low_mem_level=0"])]
#[case::in_slices_and_one_batch(&["guidance_batch=true", "sequence_chunk=7"])]
#[case::level_3(&["low_mem_level=3"])]
fn a_picture_that_clip_sees(#[case] settings: &[&str]) {
    let fixture = Fixture::open("image_to_video");
    let spec: ModelSpec = fixture.fact("spec");
    let clip: ImageEncoderSpec = fixture.fact("clip");
    let model = ModelSpec {
        image: Some(ImageInput::Channels),
        transformer: TransformerSpec { image_dim: Some(clip.hidden_size), ..spec.transformer },
        text_encoder: TextEncoderSpec { max_tokens: fixture.fact("clip_prompt_tokens"), ..spec.text_encoder },
        image_encoder: Some(clip),
        ..spec
    };
    let got = latents(&fixture, &model, &["image_to_video.seeing_transformer"], &[FIRST], settings);
    assert_close("latents, a picture that CLIP sees", &got, &fixture.tensor("output.seeing"), 1e-4);
}

/// CLIP by itself: its hidden states before the last layer.
#[test]
fn what_clip_says() {
    let fixture = Fixture::open("image_to_video");
    let spec: ImageEncoderSpec = fixture.fact("clip");
    let picture = Picture::open(&path("picture").with_extension("png")).unwrap().middle(spec.image_size as u32, Filter::Bicubic);
    let side = spec.image_size;
    let colours = Tensor::from_slice(picture.rgb()).view([side, side, 3]).permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 255.0;
    let mut resident = Resident::load("image_to_video.image_encoder", &ImageEncoder::groups(&spec), Kind::Float);
    let pixels = normalised(&colours).unwrap().to_device(device().torch);
    let seen = ImageEncoder::new(&spec).forward(&mut resident, &pixels).unwrap();
    assert_close("what CLIP says", &seen, &fixture.tensor("output.seen"), 1e-5);
    let refused = ImageEncoder::new(&spec).forward(&mut resident, &pixels.narrow(2, 0, 14)).unwrap_err().to_string();
    assert!(refused.contains("the image encoder takes [1, 3, 28, 28]"), "{refused}");
}

/// Wan2.2 TI2V-5B: the picture's latents are the first latent frame, whose tokens are at timestep 0.
#[rstest]
#[case::level_0(&["low_mem_level=0"])]
#[case::in_slices(&["sequence_chunk=7"])]
#[case::in_one_slice(&["sequence_chunk=0"])]
#[case::by_heads(&["head_chunk=1", "sequence_chunk=5"])]
#[case::in_one_batch(&["guidance_batch=true"])]
#[case::level_3(&["low_mem_level=3"])]
fn a_picture_as_the_first_frame(#[case] settings: &[&str]) {
    let (fixture, model) = with_first_frame();
    let got = latents(&fixture, &model, &["pipeline.transformer"], &[FIRST], settings);
    assert_close("latents, a picture as the first frame", &got, &fixture.tensor("output.first_frame"), 1e-4);
}
