//! Video to latents, and there and back.

use std::collections::HashMap;

use engine::vae::{self, Pieces, Tiling, VaeEncoder, denormalise, encode_video, encoder_groups, groups, normalise};
use engine::weights::{Group, Groups};
use engine_protocol::VaeSpec;
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use super::{DECODER, ENCODER, Parts, RESIDUAL, decode, published, residual, seeded};
use crate::resident::{Fixture, Resident, assert_close, device};

/// The latents of the videos in `video`, one after the other, with the weights of fixture `weights`, in the type `kind`.
fn latents(spec: &VaeSpec, weights: &str, video: &Tensor, kind: Kind, temporal_chunk: i64) -> Tensor {
    let mut resident = Resident::load(weights, &encoder_groups(spec), kind);
    let (encoder, pieces) = (VaeEncoder::new(spec), Pieces::in_chunks(temporal_chunk));
    let one = |entry: i64| {
        let video = video.narrow(0, entry, 1);
        resident.with(vae::ENCODER, |w| encode_video(&encoder, w, &video, pieces, &mut |_, _| ())).unwrap().0
    };
    Tensor::cat(&(0..video.size()[0]).map(one).collect::<Vec<_>>(), 0)
}

/// The video that the generator of the fixtures computes: squares modulo a prime, from -1 to 1.
fn formula(sides: &[i64]) -> Tensor {
    let index = Tensor::arange(sides.iter().product::<i64>(), (Kind::Int64, Device::Cpu));
    let values = (&index * &index * 7 + &index * 13).remainder(509);
    (values.to_kind(Kind::Float) / 254 - 1).view(sides)
}

/// Two videos at once, with sides of 3 and 5 latent pixels; the first frames are those of a shorter video, or an image.
#[rstest]
#[case::wan2_1(published(), ENCODER)]
#[case::wan2_2(residual(), RESIDUAL)]
fn fp32_and_bf16_of_1_5_9_and_17_frames(#[case] spec: VaeSpec, #[case] fixture: &str) {
    let wanted = Fixture::open(fixture).tensor("output.latents");
    let side = spec.spatial_compression();
    let video = formula(&[2, 3, 17, 3 * side, 5 * side]).to_device(device().torch);
    for (latent_frames, temporal_chunk) in [(1, 1), (2, 1), (2, 2), (3, 2), (5, 1), (5, 2), (5, 3), (5, 5)] {
        let frames = 4 * latent_frames - 3;
        let wanted = wanted.narrow(2, 0, latent_frames);
        let video = video.narrow(2, 0, frames);
        let case = format!("{frames} frames, chunks of {temporal_chunk}");
        let latents32 = latents(&spec, fixture, &video, Kind::Float, temporal_chunk);
        assert_close(&format!("{fixture}, fp32, {case}"), &latents32, &wanted, 1e-4);
        let latents16 = latents(&spec, fixture, &video, Kind::BFloat16, temporal_chunk);
        assert_close(&format!("{fixture}, bf16, {case}"), &latents16, &wanted, 1e-2);
    }
}

#[rstest]
#[case::wan2_1(published(), DECODER, ENCODER)]
#[case::wan2_2(residual(), RESIDUAL, RESIDUAL)]
fn there_and_back(#[case] spec: VaeSpec, #[case] decoder: &str, #[case] encoder: &str) {
    let fixture = Fixture::open(encoder);
    let mut resident = Resident::load(decoder, &groups(&spec), Kind::Float);
    let video = resident.with(vae::DECODER, |w| Ok(decode(&spec, w, &fixture.input("input.latents"), 2))).unwrap();
    let again = latents(&spec, encoder, &video, Kind::Float, 3);
    assert_close(&format!("{encoder}, there and back"), &again, &fixture.tensor("output.round_trip"), 1e-4);
}

#[rstest]
#[case::wan2_1(published(), ENCODER)]
#[case::wan2_2(residual(), RESIDUAL)]
fn the_groups_list_what_the_checkpoint_holds(#[case] spec: VaeSpec, #[case] fixture: &str) {
    // Kernels of one pixel are linear layers here, and norms have one side: sides of one at the end mean nothing.
    let trimmed = |shape: &[i64]| {
        let sides = shape.iter().rposition(|&side| side != 1).map_or(1, |last| last + 1);
        shape[..sides].to_vec()
    };
    let stored: HashMap<String, Vec<i64>> = Fixture::open(fixture).fact("state_dict");
    let stored: HashMap<String, Vec<i64>> = stored.into_iter().map(|(name, shape)| (name, trimmed(&shape))).collect();
    let listed: Vec<_> = groups(&spec).into_iter().chain(encoder_groups(&spec)).flat_map(|group| group.params).collect();
    assert_eq!(listed.len(), stored.len());
    for param in listed {
        assert_eq!(stored.get(&param.name), Some(&trimmed(&param.shape)), "{}", param.name);
    }
}

/// The model definitions have as many parameters as diffusers counts in the VAEs of that configuration.
#[rstest]
#[case::wan2_1("wan2.1-t2v-14b", 73_295_603, 53_596_928)]
#[case::wan2_2("wan2.2-ti2v-5b", 555_051_580, 149_637_088)]
fn parameters_of_published_models(#[case] name: &str, #[case] decoder: i64, #[case] encoder: i64) {
    let spec = lowmem_tests::model(name).vae;
    let count = |groups: Vec<Group>| groups[0].params.iter().map(|param| param.shape.iter().product::<i64>()).sum::<i64>();
    assert_eq!((count(groups(&spec)), count(encoder_groups(&spec))), (decoder, encoder));
    assert_eq!((spec.latents_mean.len(), spec.latents_std.len()), (spec.z_dim as usize, spec.z_dim as usize));
}

/// Where one tile counts alone, latents are those of that tile by itself.
#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn tiles_are_encoded_by_themselves_and_blended(#[case] spec: VaeSpec) {
    let (spec, w) = seeded(spec, Parts::Encoder, Kind::Float, 1.0);
    let (encoder, side) = (VaeEncoder::new(&spec), spec.spatial_compression());
    let video = formula(&[1, 3, 5, 6 * side, 9 * side]);
    let encode = |film: &Tensor, pieces| encode_video(&encoder, &w, film, pieces, &mut |_, _| ()).unwrap().0;
    let tiled = Pieces { tiling: Some(Tiling::new(6, 2).unwrap()), temporal_chunk: 1, activation_offload: false };
    let latents = encode(&video, tiled);
    for (tile, alone) in [(0, 0..3), (3, 6..9)] {
        let own = encode(&video.narrow(4, tile * side, 6 * side), Pieces::in_chunks(2));
        let columns = alone.end - alone.start;
        let (own, blended) = (own.narrow(4, alone.start - tile, columns), latents.narrow(4, alone.start, columns));
        assert_close(&format!("columns {alone:?}"), &blended, &own, 1e-5);
    }
    let whole = encode(&video, Pieces::in_chunks(2));
    assert!((whole - latents).abs().max().double_value(&[]) > 1e-3, "tiles change nothing: this test could not fail");
}

#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn shapes_of_videos_of_any_length(#[case] spec: VaeSpec) {
    let (spec, w) = seeded(spec, Parts::Encoder, Kind::Float, 1.0);
    let side = spec.spatial_compression();
    for frames in [1, 5, 9, 17, 81] {
        let latents =
            encode_video(&VaeEncoder::new(&spec), &w, &formula(&[1, 3, frames, side, 3 * side]), Pieces::in_chunks(8), &mut |_, _| ())
                .unwrap()
                .0;
        assert_eq!(latents.size(), [1, spec.z_dim, (frames - 1) / 4 + 1, 1, 3], "{frames} frames");
    }
}

#[test]
fn normalise_undoes_denormalise() {
    let fixture = Fixture::open(DECODER);
    let latents = fixture.tensor("input.latents");
    let back = normalise(&published(), &denormalise(&published(), &latents).unwrap()).unwrap();
    assert_close("normalised", &back, &latents, 1e-6);
}

#[rstest]
#[case::frames([1, 3, 4, 16, 16])]
#[case::height([1, 3, 5, 12, 16])]
#[case::width([1, 3, 5, 16, 20])]
#[case::colours([1, 4, 5, 16, 16])]
#[case::nothing([1, 3, 0, 16, 16])]
fn a_video_of_other_sides_is_refused(#[case] sides: [i64; 5]) {
    let (spec, w) = seeded(published(), Parts::Encoder, Kind::Float, 1.0);
    let video = Tensor::zeros(sides, (Kind::Float, Device::Cpu));
    let message = encode_video(&VaeEncoder::new(&spec), &w, &video, Pieces::in_chunks(1), &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("1 more than a multiple of 4 frames") && message.contains("multiples of 8"), "{message}");
}
