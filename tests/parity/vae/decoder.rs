//! Latents to video.

use engine::vae::{self, denormalise, groups};
use engine::weights::Groups;
use engine_protocol::VaeSpec;
use rstest::rstest;
use tch::{Kind, Tensor};

use super::tiling::{decode_to_sink, largest_difference};
use super::{DECODER, ENCODER, Parts, RESIDUAL, bf16_tolerance, decode, published, residual, seeded, smooth_latents};
use crate::resident::{Fixture, Resident, assert_close, assert_close_as_a_whole};

/// The video that `latents` become with the weights of fixture `weights`.
fn video(spec: &VaeSpec, weights: &str, latents: &Tensor, temporal_chunk: i64) -> Tensor {
    let mut resident = Resident::load(weights, &groups(spec), latents.kind());
    resident.with(vae::DECODER, |w| Ok(decode(spec, w, latents, temporal_chunk))).unwrap()
}

/// The latents of fixture `DECODER`, as the decoder takes them.
fn scaled_latents(kind: Kind) -> Tensor {
    denormalise(&published(), &Fixture::open(DECODER).input("input.latents").to_kind(kind)).unwrap()
}

/// Those rows and columns of a video that fixture `name` keeps.
fn thinned(name: &str, video: &Tensor) -> Tensor {
    let every = Fixture::open(name).fact("every");
    video.slice(3, 0, None, every).slice(4, 0, None, every)
}

#[test]
fn fp32_in_chunks_of_any_length() {
    let wanted = Fixture::open(DECODER).tensor("output.video");
    let whole = video(&published(), DECODER, &scaled_latents(Kind::Float), 4);
    for temporal_chunk in 1..=4 {
        let video = video(&published(), DECODER, &scaled_latents(Kind::Float), temporal_chunk);
        assert_close(&format!("VAE, fp32, chunks of {temporal_chunk}"), &video, &wanted, 1e-4);
        assert_close(&format!("VAE, fp32, chunks of {temporal_chunk} and of 4"), &video, &whole, 1e-5);
    }
}

#[test]
fn bf16() {
    let wanted = Fixture::open(DECODER).tensor("output.video");
    let tolerance = bf16_tolerance(DECODER, "bf16_error");
    for temporal_chunk in [1, 4] {
        let video = video(&published(), DECODER, &scaled_latents(Kind::BFloat16), temporal_chunk);
        assert_close(&format!("VAE, bf16, chunks of {temporal_chunk}"), &video, &wanted, tolerance);
        assert_close_as_a_whole(&format!("VAE, bf16, chunks of {temporal_chunk}"), &video, &wanted, 1e-2);
    }
}

/// Two videos at once, with sides of 3 and 5 latent pixels; the first frames are those of a shorter video.
#[rstest]
#[case::wan2_1(published(), DECODER, ENCODER)]
#[case::wan2_2(residual(), RESIDUAL, RESIDUAL)]
fn fp32_and_bf16_of_1_5_9_and_17_frames(#[case] spec: VaeSpec, #[case] weights: &str, #[case] fixture: &str) {
    let latents = Fixture::open(fixture).input("input.latents");
    let wanted = Fixture::open(fixture).tensor("output.video");
    for (latent_frames, temporal_chunk) in [(1, 1), (2, 2), (3, 1), (3, 2), (5, 1), (5, 2), (5, 3), (5, 5)] {
        let frames = 4 * latent_frames - 3;
        let wanted = wanted.narrow(2, 0, frames);
        let latents = latents.narrow(2, 0, latent_frames);
        let case = format!("{frames} frames, chunks of {temporal_chunk}");
        let video32 = thinned(fixture, &video(&spec, weights, &latents, temporal_chunk));
        assert_close(&format!("{fixture}, fp32, {case}"), &video32, &wanted, 1e-4);
        let video16 = thinned(fixture, &video(&spec, weights, &latents.to_kind(Kind::BFloat16), temporal_chunk));
        assert_close(&format!("{fixture}, bf16, {case}"), &video16, &wanted, bf16_tolerance(fixture, "decoder_bf16_error"));
        assert_close_as_a_whole(&format!("{fixture}, bf16, {case}"), &video16, &wanted, 1e-2);
    }
}

#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn shapes_of_videos_of_any_length(#[case] spec: VaeSpec) {
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, 1.0);
    let side = spec.spatial_compression();
    for frames in [1, 5, 9, 17, 81] {
        let latents = smooth_latents(&spec, [(frames - 1) / 4 + 1, 1, 3]);
        assert_eq!(decode(&spec, &w, &latents, 8).size(), [1, 3, frames, side, 3 * side], "{frames} frames");
    }
}

/// Seven latent frames at once are more than the higher resolutions take at a time, and more than a norm does; single ones are less than the first.
#[rstest]
#[case::wan2_1(published(), [false, true, true])]
// Frames double behind the first resolution that takes slices.
#[case::wan2_2(residual(), [true, true, false])]
fn large_chunks_go_up_in_slices(#[case] spec: VaeSpec, #[case] temporal_downsample: [bool; 3]) {
    let spec = VaeSpec { temporal_downsample: temporal_downsample.into(), ..spec };
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, 0.1);
    let latents = smooth_latents(&spec, [7, 44, 46]);
    let [at_once, one_by_one] = [7, 1].map(|temporal_chunk| decode_to_sink(&spec, &w, &latents, None, temporal_chunk));
    assert!(at_once.calls > 3, "one chunk in {} slices", at_once.calls);
    assert_eq!(one_by_one.calls, 7, "chunks of one latent frame in a slice each");
    assert!(largest_difference(&at_once.pixels, &one_by_one.pixels) <= 1);
}
