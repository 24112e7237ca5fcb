//! The VAE decoder against diffusers' `AutoencoderKLWan`, and tiles against the frame at once.

use engine::vae::{FeatureCache, FrameSink, Span, Tiling, VaeDecoder, blend_weights, decode_video, denormalise, groups};
use engine::weights::{Group, GroupLayout, Groups, Source, Weights};
use engine_protocol::VaeSpec;
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

use crate::resident::{Fixture, Resident, assert_close, path};

const FIXTURE: &str = "vae";

/// The fixture's spec.
fn fixture_spec() -> VaeSpec {
    Fixture::open(FIXTURE).fact("spec")
}

/// The fixture's latents, as the decoder takes them.
fn fixture_latents(kind: Kind) -> Tensor {
    denormalise(&fixture_spec(), &Fixture::open(FIXTURE).tensor("input.latents").to_kind(kind)).unwrap()
}

/// The video that the fixture's latents become.
fn fixture_video(kind: Kind, temporal_chunk: i64) -> Tensor {
    let spec = fixture_spec();
    let mut resident = Resident::load(FIXTURE, &groups(&spec), kind);
    resident.with(0, |w| Ok(decode(&spec, w, &fixture_latents(kind), temporal_chunk))).unwrap()
}

/// Seeded weights of a model with more channels. `reach` scales what a convolution takes from the pixels around and a position from the others of
/// its frame: 1 leaves the weights as they are drawn, where everything depends on everything, and at 0 each latent pixel is decoded by itself.
fn seeded(kind: Kind, reach: f64) -> (VaeSpec, Weights) {
    let spec = VaeSpec { base_dim: 8, ..fixture_spec() };
    let [group] = <[Group; 1]>::try_from(groups(&spec)).unwrap();
    let layout = GroupLayout::new(&group, kind);
    let slab = Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu));
    let weights = Weights::bind(&group, &layout, &slab).unwrap();
    for param in &group.params {
        let mut value = weights.get(&param.name).shallow_clone();
        Source::Seeded(7).fill(&group, param, &mut value).unwrap();
        let sides = value.size();
        if sides.len() > 3 && sides[sides.len() - 1] == 3 {
            let centre = |value: &Tensor| value.narrow(-1, 1, 1).narrow(-2, 1, 1);
            let kept = centre(&value).copy();
            let _ = value.g_mul_scalar_(reach);
            centre(&value).copy_(&kept);
        } else if param.name.contains(".proj.") {
            let _ = value.g_mul_scalar_(reach);
        }
    }
    (spec, weights)
}

/// The video that `latents` become, `temporal_chunk` latent frames at a time.
fn decode(spec: &VaeSpec, w: &Weights, latents: &Tensor, temporal_chunk: i64) -> Tensor {
    let decoder = VaeDecoder::new(spec);
    let mut cache = FeatureCache::new();
    let chunks = latents.split(temporal_chunk, 2);
    let mut frames = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        if index + 1 == chunks.len() {
            cache.expect_last();
        }
        frames.push(decoder.decode_chunk(w, chunk, &mut cache).unwrap());
    }
    Tensor::cat(&frames, 2)
}

/// Collects a video and counts how often each pixel came.
struct Collected {
    /// `[frames, height, width, 3]`.
    pixels: Tensor,
    times: Tensor,
    calls: usize,
}

impl FrameSink for Collected {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> engine::Result<()> {
        assert_eq!((pixels.kind(), pixels.device(), pixels.is_contiguous()), (Kind::Uint8, Device::Cpu, true));
        let (frames, rows, _, _) = pixels.size4()?;
        let place = |whole: &Tensor| whole.narrow(0, first_frame, frames).narrow(1, first_row, rows);
        place(&self.pixels).copy_(pixels);
        let _ = place(&self.times).g_add_(&Tensor::from(1u8));
        self.calls += 1;
        Ok(())
    }
}

/// The video as it reaches a sink.
fn decode_to_sink(spec: &VaeSpec, w: &Weights, latents: &Tensor, tiling: Option<Tiling>, temporal_chunk: i64) -> Collected {
    let [_, _, frames, height, width] = <[i64; 5]>::try_from(latents.size()).unwrap();
    let scale = spec.spatial_compression();
    let shape = [(frames - 1) * spec.temporal_compression() + 1, height * scale, width * scale, 3];
    let empty = || Tensor::zeros(shape, (Kind::Uint8, Device::Cpu));
    let mut sink = Collected { pixels: empty(), times: empty(), calls: 0 };
    let mut seen = Vec::new();
    let decoder = VaeDecoder::new(spec);
    decode_video(&decoder, w, latents, tiling, temporal_chunk, &mut sink, &mut |done, total| seen.push((done, total))).unwrap();

    let tiles = tiling.map_or(1, |tiling| tiling.spans(height).len() * tiling.spans(width).len());
    let total = tiles * (frames as usize).div_ceil(temporal_chunk as usize);
    assert_eq!(seen, (1..=total).map(|done| (done, total)).collect::<Vec<_>>(), "progress");
    assert_eq!((sink.times.min().int64_value(&[]), sink.times.max().int64_value(&[])), (1, 1), "each pixel comes once");
    sink
}

/// Latents that change slowly over the frame, as a trained transformer's do.
fn smooth_latents(spec: &VaeSpec, [frames, height, width]: [i64; 3]) -> Tensor {
    let axis = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu));
    let channel = axis(spec.z_dim).view([-1, 1, 1, 1]);
    let phase = axis(frames).view([1, -1, 1, 1]) * 0.2 + axis(height).view([1, 1, -1, 1]) * 0.15 + axis(width).view([1, 1, 1, -1]) * 0.1;
    ((phase + &channel * 0.7).sin() * (channel * 0.1 + 1.0)).unsqueeze(0)
}

/// The largest difference of two videos of bytes.
fn largest_difference(a: &Tensor, b: &Tensor) -> i64 {
    (a.to_kind(Kind::Int) - b.to_kind(Kind::Int)).abs().max().int64_value(&[])
}

/// Peak signal-to-noise ratio of two videos of bytes, in dB.
fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let error = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).square().mean(Kind::Double).double_value(&[]);
    10.0 * (255.0 * 255.0 / error).log10()
}

#[test]
fn fp32_in_chunks_of_any_length() {
    let wanted = Fixture::open(FIXTURE).tensor("output.video");
    let whole = fixture_video(Kind::Float, 4);
    for temporal_chunk in 1..=4 {
        let video = fixture_video(Kind::Float, temporal_chunk);
        assert_close(&format!("VAE, fp32, chunks of {temporal_chunk}"), &video, &wanted, 1e-4);
        assert_close(&format!("VAE, fp32, chunks of {temporal_chunk} and of 4"), &video, &whole, 1e-5);
    }
}

#[test]
fn bf16() {
    let wanted = Fixture::open(FIXTURE).tensor("output.video");
    // The reference's own error in bf16, and half as much again: both are sums of many roundings.
    let tolerance = 1.5 * Fixture::open(FIXTURE).fact::<f64>("bf16_error");
    for temporal_chunk in [1, 4] {
        assert_close(&format!("VAE, bf16, chunks of {temporal_chunk}"), &fixture_video(Kind::BFloat16, temporal_chunk), &wanted, tolerance);
    }
}

/// 4 frames at once are over the 16 MiB that the norm takes at a time, single ones are not.
#[test]
fn large_activations_are_normalised_in_slices() {
    let (spec, w) = seeded(Kind::Float, 0.1);
    let latents = smooth_latents(&spec, [4, 25, 26]);
    assert_close("VAE, sliced norm", &decode(&spec, &w, &latents, 4), &decode(&spec, &w, &latents, 1), 1e-5);
}

#[test]
fn the_group_lists_what_the_checkpoint_holds() {
    let bytes = std::fs::read(path(FIXTURE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut stored: Vec<&str> =
        file.names().into_iter().filter(|name| !name.starts_with("input.") && !name.starts_with("output.")).collect();
    let groups = groups(&fixture_spec());
    let mut listed: Vec<&str> = groups[0].params.iter().map(|param| param.name.as_str()).collect();
    stored.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, stored);
}

#[test]
fn a_video_reaches_the_sink_in_chunks() {
    let (spec, w) = seeded(Kind::Float, 1.0);
    let latents = smooth_latents(&spec, [4, 3, 5]);
    let video = decode(&spec, &w, &latents, 4).squeeze_dim(0).permute([1, 2, 3, 0]);
    let bytes = (video * 127.5 + 127.5).round().to_kind(Kind::Uint8);
    for temporal_chunk in 1..=4 {
        let sink = decode_to_sink(&spec, &w, &latents, None, temporal_chunk);
        assert_eq!(sink.calls as i64, (4 + temporal_chunk - 1) / temporal_chunk);
        assert!(largest_difference(&sink.pixels, &bytes) <= 1, "chunks of {temporal_chunk}");
    }
}

#[test]
fn one_tile_is_the_frame_at_once() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (spec, w) = seeded(kind, 1.0);
        let latents = smooth_latents(&spec, [3, 5, 7]).to_kind(kind);
        let whole = decode_to_sink(&spec, &w, &latents, None, 2);
        for size in [7, 9] {
            let tiled = decode_to_sink(&spec, &w, &latents, Some(Tiling::new(size, 2).unwrap()), 2);
            assert_eq!(tiled.calls, 1);
            assert!(tiled.pixels == whole.pixels, "{kind:?}: a tile of {size} gives other bytes than the frame at once");
        }
    }
}

#[test]
fn tiles_fit_together() {
    let (spec, w) = seeded(Kind::Float, 0.0);
    let latents = smooth_latents(&spec, [2, 5, 7]);
    let whole = decode_to_sink(&spec, &w, &latents, None, 1);
    for (size, overlap) in [(1, 0), (3, 0), (3, 2), (4, 1), (4, 3), (6, 2)] {
        let tiling = Tiling::new(size, overlap).unwrap();
        let tiled = decode_to_sink(&spec, &w, &latents, Some(tiling), 1);
        assert_eq!(tiled.calls, tiling.spans(5).len(), "a row of tiles leaves as soon as it is done");
        assert!(largest_difference(&tiled.pixels, &whole.pixels) <= 1, "tiles of {size}, overlap {overlap}");
    }
}

#[test]
fn tiles_of_smooth_latents_are_near_the_frame_at_once() {
    let (spec, w) = seeded(Kind::Float, 0.1);
    let latents = smooth_latents(&spec, [1, 19, 22]);
    let whole = decode_to_sink(&spec, &w, &latents, None, 1);
    for (size, overlap) in [(8, 4), (12, 6)] {
        let tiled = decode_to_sink(&spec, &w, &latents, Some(Tiling::new(size, overlap).unwrap()), 1);
        let psnr = psnr(&tiled.pixels, &whole.pixels);
        println!("tiles of {size}, overlap {overlap}: {psnr:.1} dB");
        assert!(psnr >= 40.0, "tiles of {size}, overlap {overlap}: {psnr:.1} dB");
    }
}

#[test]
fn tiles_cover_a_side_and_their_weights_sum_to_one() {
    for (extent, size) in (1..=21).flat_map(|extent| (1..=12).map(move |size| (extent, size))) {
        for overlap in 0..size {
            let spans = Tiling::new(size, overlap).unwrap().spans(extent);
            let case = format!("extent {extent}, size {size}, overlap {overlap}: {spans:?}");
            assert_eq!((spans[0].start, spans.last().unwrap().end), (0, extent), "{case}");
            assert!(spans.iter().all(|span| span.len() == size.min(extent)), "{case}");
            assert!(spans.windows(2).all(|pair| pair[0].start < pair[1].start && pair[0].end - pair[1].start >= overlap), "{case}");

            let mut sums = vec![0.0; (extent * 8) as usize];
            for (Span { start, .. }, weights) in spans.iter().zip(blend_weights(&spans, 8)) {
                assert!(weights.iter().all(|&weight| weight > 0.0), "{case}");
                sums[(start * 8) as usize..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
            assert!(sums.iter().all(|sum: &f32| (sum - 1.0).abs() < 1e-6), "{case}: {sums:?}");
        }
    }
}

#[test]
fn weights_fall_in_a_straight_line() {
    let weights = blend_weights(&[Span { start: 0, end: 3 }, Span { start: 1, end: 4 }], 2);
    assert_eq!(weights, [[1.0, 1.0, 0.875, 0.625, 0.375, 0.125], [0.125, 0.375, 0.625, 0.875, 1.0, 1.0]]);
}

#[test]
fn impossible_tiles_are_refused() {
    for (size, overlap) in [(0, 0), (-1, 0), (4, 4), (4, -1)] {
        let message = Tiling::new(size, overlap).unwrap_err().to_string();
        assert!(message.contains(&format!("tiles of {size} latent pixels cannot overlap by {overlap}")), "{message}");
    }
}
