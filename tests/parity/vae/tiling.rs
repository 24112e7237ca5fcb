//! Chunks and tiles of a video against the video at once.

use std::sync::Arc;
use std::thread;

use engine::collectives::{Alone, Collectives, Threads};
use engine::vae::{CacheTraffic, FrameSink, Pieces, Span, Tiling, VaeDecoder, blend_weights, decode_video};
use engine::weights::Weights;
use engine_protocol::VaeSpec;
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use super::{Parts, decode, published, residual, seeded, smooth_latents};

/// Collects a video and counts how often each pixel came.
pub(super) struct Collected {
    /// `[frames, height, width, 3]`.
    pub(super) pixels: Tensor,
    times: Tensor,
    /// How often pixels came.
    pub(super) calls: usize,
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
pub(super) fn decode_to_sink(spec: &VaeSpec, w: &Weights, latents: &Tensor, tiling: Option<Tiling>, temporal_chunk: i64) -> Collected {
    decode_as(spec, w, latents, Pieces { tiling, temporal_chunk, activation_offload: false })
}

fn decode_as(spec: &VaeSpec, w: &Weights, latents: &Tensor, decoding: Pieces) -> Collected {
    let Pieces { tiling, temporal_chunk, .. } = decoding;
    let [_, _, frames, height, width] = <[i64; 5]>::try_from(latents.size()).unwrap();
    let scale = spec.spatial_compression();
    let shape = [(frames - 1) * spec.temporal_compression() + 1, height * scale, width * scale, 3];
    let empty = || Tensor::zeros(shape, (Kind::Uint8, Device::Cpu));
    let mut sink = Collected { pixels: empty(), times: empty(), calls: 0 };
    let mut seen = Vec::new();
    let decoder = VaeDecoder::new(spec);
    let traffic = decode_video(&decoder, w, latents, decoding, &Alone, &mut sink, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(traffic, CacheTraffic::default(), "nothing crosses on the CPU");

    let tiles = tiling.map_or(1, |tiling| tiling.spans(height).len() * tiling.spans(width).len());
    let total = tiles * (frames as usize).div_ceil(temporal_chunk as usize);
    assert_eq!(seen, (1..=total).map(|done| (done, total)).collect::<Vec<_>>(), "progress");
    assert_eq!((sink.times.min().int64_value(&[]), sink.times.max().int64_value(&[])), (1, 1), "each pixel comes once");
    sink
}

/// The largest difference of two videos of bytes.
pub(super) fn largest_difference(a: &Tensor, b: &Tensor) -> i64 {
    (a.to_kind(Kind::Int) - b.to_kind(Kind::Int)).abs().max().int64_value(&[])
}

/// Peak signal-to-noise ratio of two videos of bytes, in dB.
fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let error = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).square().mean(Kind::Double).double_value(&[]);
    10.0 * (255.0 * 255.0 / error).log10()
}

#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn a_video_reaches_the_sink_in_chunks(#[case] spec: VaeSpec) {
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, 1.0);
    let latents = smooth_latents(&spec, [4, 3, 5]);
    let video = decode(&spec, &w, &latents, 4).squeeze_dim(0).permute([1, 2, 3, 0]);
    let bytes = (video * 127.5 + 127.5).round().to_kind(Kind::Uint8);
    for temporal_chunk in 1..=4 {
        let sink = decode_to_sink(&spec, &w, &latents, None, temporal_chunk);
        assert_eq!(sink.calls as i64, (4 + temporal_chunk - 1) / temporal_chunk);
        assert!(largest_difference(&sink.pixels, &bytes) <= 1, "chunks of {temporal_chunk}");
    }
}

/// On a GPU frames that wait on the host are copied back and forth. On the CPU the same code runs, with both places in one memory.
#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn where_remembered_frames_wait_changes_nothing(#[case] spec: VaeSpec, #[values(Kind::Float, Kind::BFloat16)] kind: Kind) {
    let (spec, w) = seeded(spec, Parts::Decoder, kind, 1.0);
    let latents = smooth_latents(&spec, [4, 5, 7]).to_kind(kind);
    for (tiling, temporal_chunk) in [(None, 1), (None, 4), (Some(Tiling::new(4, 1).unwrap()), 2)] {
        let [on_device, on_host] =
            [false, true].map(|activation_offload| decode_as(&spec, &w, &latents, Pieces { tiling, temporal_chunk, activation_offload }));
        assert!(on_host.pixels == on_device.pixels, "{tiling:?}, chunks of {temporal_chunk}");
    }
}

/// Keeps colours as they come: the first frame and row, and the pixels from there on.
#[derive(Default)]
struct Colours(Vec<(i64, i64, Tensor)>);

impl FrameSink for Colours {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> engine::Result<()> {
        self.0.push((first_frame, first_row, pixels.copy()));
        Ok(())
    }

    fn takes_colours(&self) -> bool {
        true
    }
}

/// One rank's weights and latents, and what its sink got of them; and of how many chunks it heard.
fn decode_as_one_of(ranks: &dyn Collectives, (spec, w): &(VaeSpec, Weights), latents: &Tensor, pieces: Pieces) -> (Colours, usize) {
    let (mut sink, mut chunks) = (Colours::default(), 0);
    decode_video(&VaeDecoder::new(spec), w, latents, pieces, ranks, &mut sink, &mut |_, _| chunks += 1).unwrap();
    (sink, chunks)
}

/// To the last bit, since the first rank adds tiles in the same order.
#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn tiles_of_several_ranks_are_those_of_one(#[case] spec: VaeSpec, #[values(Kind::Float, Kind::BFloat16)] kind: Kind) {
    let made = || seeded(spec.clone(), Parts::Decoder, kind, 1.0);
    // Three rows of three; one row of two; one tile; and the whole frame.
    for (size, overlap, chunks) in [(Some(4), 2, 2), (Some(5), 1, 1), (Some(7), 0, 3), (None, 0, 2)] {
        let tiling = size.map(|size| Tiling::new(size, overlap).unwrap());
        let pieces = Pieces { tiling, temporal_chunk: chunks, activation_offload: false };
        let latents = smooth_latents(&spec, [3, 5, 7]).to_kind(kind);
        let (wanted, all_chunks) = decode_as_one_of(&Alone, &made(), &latents, pieces);
        for count in 2..=4 {
            let ranks: Vec<_> = Threads::new(count).into_iter().map(|rank| (Arc::new(rank), made(), latents.copy())).collect();
            let got: Vec<_> = thread::scope(|scope| {
                let of = |(rank, vae, latents): (Arc<Threads>, _, Tensor)| {
                    scope.spawn(move || decode_as_one_of(rank.as_ref(), &vae, &latents, pieces))
                };
                let threads: Vec<_> = ranks.into_iter().map(of).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let what = format!("{kind:?}, tiles of {size:?}, {count} ranks");
            assert!(got[0].0.0 == wanted.0, "{what}: other bits");
            assert!(got[1..].iter().all(|(sink, _)| sink.0.is_empty()), "{what}: only the first rank has the video");
            let shares: Vec<usize> = got.iter().map(|(_, chunks)| *chunks).collect();
            assert_eq!(shares.iter().sum::<usize>(), all_chunks, "{what}: {shares:?}");
            let tiles = tiling.map_or(1, |tiling| tiling.spans(5).len() * tiling.spans(7).len());
            assert_eq!(shares[0], tiles.div_ceil(count) * all_chunks / tiles, "{what}: {shares:?}");
        }
    }
}

#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn one_tile_is_the_frame_at_once(#[case] spec: VaeSpec) {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (spec, w) = seeded(spec.clone(), Parts::Decoder, kind, 1.0);
        let latents = smooth_latents(&spec, [3, 5, 7]).to_kind(kind);
        let whole = decode_to_sink(&spec, &w, &latents, None, 2);
        for size in [7, 9] {
            let tiled = decode_to_sink(&spec, &w, &latents, Some(Tiling::new(size, 2).unwrap()), 2);
            assert_eq!(tiled.calls, 1);
            assert!(tiled.pixels == whole.pixels, "{kind:?}: a tile of {size} gives other bytes than the frame at once");
        }
    }
}

#[rstest]
#[case::wan2_1(published())]
#[case::wan2_2(residual())]
fn tiles_fit_together(#[case] spec: VaeSpec) {
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, 0.0);
    let latents = smooth_latents(&spec, [2, 5, 7]);
    let whole = decode_to_sink(&spec, &w, &latents, None, 1);
    for (size, overlap) in [(1, 0), (3, 0), (3, 2), (4, 1), (4, 3), (6, 2)] {
        let tiling = Tiling::new(size, overlap).unwrap();
        let tiled = decode_to_sink(&spec, &w, &latents, Some(tiling), 1);
        assert_eq!(tiled.calls, tiling.spans(5).len(), "a row of tiles leaves as soon as it is done");
        assert!(largest_difference(&tiled.pixels, &whole.pixels) <= 1, "tiles of {size}, overlap {overlap}");
    }
}

#[rstest]
#[case::wan2_1(published(), 0.1)]
// Seeded weights of this one make more of what is around than those of Wan2.1's: with the same reach the tiles of 8 are at 37.5 dB.
#[case::wan2_2(residual(), 0.05)]
fn tiles_of_smooth_latents_are_near_the_frame_at_once(#[case] spec: VaeSpec, #[case] reach: f64) {
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, reach);
    let latents = smooth_latents(&spec, [1, 19, 22]);
    let whole = decode_to_sink(&spec, &w, &latents, None, 1);
    for (size, overlap) in [(8, 4), (12, 6)] {
        let tiled = decode_to_sink(&spec, &w, &latents, Some(Tiling::new(size, overlap).unwrap()), 1);
        let psnr = psnr(&tiled.pixels, &whole.pixels);
        println!("tiles of {size}, overlap {overlap}: {psnr:.1} dB");
        assert!(psnr >= 40.0, "tiles of {size}, overlap {overlap}: {psnr:.1} dB");
    }
}

/// How much steeper a video is at the borders of its tiles than elsewhere: 1 where borders cannot be told from other places.
///
/// What a latent pixel becomes has a pattern of its own, so the gradient between two rows (or columns) is held against those one latent pixel before and
/// after: on smooth latents they are alike, and a seam stands out whichever pattern it runs through. Compared are rows at which a latent pixel begins.
fn steepness_at_borders(pixels: &Tensor, tiling: Tiling, scale: i64) -> f64 {
    let pixels = pixels.to_kind(Kind::Double);
    let along = |side: i64| {
        let gradient = |row: i64| pixels.select(side, row) - pixels.select(side, row - 1);
        let steepness = |row: i64| {
            let around = (gradient(row - scale) + gradient(row + scale)) / 2;
            (gradient(row) - around).abs().mean(Kind::Double).double_value(&[])
        };
        let extent = pixels.size()[side as usize] / scale;
        let spans = tiling.spans(extent);
        let distance = |latent: i64| spans.iter().flat_map(|span| [span.start, span.end]).map(|border| (border - latent).abs()).min();
        let mean = |is_wanted: &dyn Fn(i64) -> bool| {
            let rows: Vec<i64> = (2..extent - 1).filter(|&latent| is_wanted(latent)).map(|latent| latent * scale).collect();
            rows.iter().map(|&row| steepness(row)).sum::<f64>() / rows.len() as f64
        };
        mean(&|latent| distance(latent) == Some(0)) / mean(&|latent| distance(latent) > Some(1))
    };
    along(1).max(along(2))
}

#[rstest]
#[case::wan2_1(published(), 0.1)]
#[case::wan2_2(residual(), 0.05)]
fn blended_tiles_have_no_seam_and_others_have(#[case] spec: VaeSpec, #[case] reach: f64) {
    let (spec, w) = seeded(spec, Parts::Decoder, Kind::Float, reach);
    let latents = smooth_latents(&spec, [1, 24, 32]);
    let steepness = |size, overlap| {
        let tiling = Tiling::new(size, overlap).unwrap();
        let tiled = decode_to_sink(&spec, &w, &latents, Some(tiling), 1);
        let steepness = steepness_at_borders(&tiled.pixels, tiling, spec.spatial_compression());
        println!("tiles of {size}, overlap {overlap}: {steepness:.2} times as steep at their borders as elsewhere");
        steepness
    };
    // The default overlap, and more than that.
    for (size, overlap) in [(8, 2), (8, 4), (12, 3), (12, 6), (16, 3), (20, 3)] {
        let steepness = steepness(size, overlap);
        assert!(steepness <= 1.5, "tiles of {size}, overlap {overlap}, show: {steepness:.2} times as steep at their borders");
    }
    let naive = steepness(8, 0);
    assert!(naive >= 3.0, "tiles side by side do not show: {naive:.2} times as steep at their borders");
}

#[test]
fn tiles_cover_a_side_and_their_weights_sum_to_one() {
    for (extent, size, scale) in (1..=21).flat_map(|extent| (1..=12).flat_map(move |size| [(extent, size, 8), (extent, size, 16)])) {
        for overlap in 0..size {
            let full = Tiling::new(size, overlap).unwrap();
            let [spans, tight] = [full, full.tight()].map(|tiling| tiling.spans(extent));
            let case = format!("extent {extent}, size {size}, overlap {overlap}");
            assert!(spans.iter().all(|span| span.len() == size.min(extent)), "{case}: {spans:?}");
            let (side, count) = (tight[0].len(), tight.len() as i64);
            assert!(side <= size.min(extent) && tight.len() == spans.len(), "{case}: {tight:?}");
            assert!(count == 1 || (side - 1) * count - overlap * (count - 1) < extent, "smaller ones would do: {case}: {tight:?}");
            for spans in [spans, tight] {
                let case = format!("{case}: {spans:?}");
                assert_eq!((spans[0].start, spans.last().unwrap().end), (0, extent), "{case}");
                assert!(spans.iter().all(|span| span.len() == spans[0].len()), "{case}");
                assert!(spans.windows(2).all(|pair| pair[0].start < pair[1].start && pair[0].end - pair[1].start >= overlap), "{case}");

                let mut sums = vec![0.0; (extent * scale) as usize];
                for (Span { start, .. }, weights) in spans.iter().zip(blend_weights(&spans, scale)) {
                    assert!(weights.iter().all(|&weight| weight > 0.0), "{case}");
                    sums[(start * scale) as usize..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
                }
                assert!(sums.iter().all(|sum: &f32| (sum - 1.0).abs() < 1e-6), "{case}: {sums:?}");
            }
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
