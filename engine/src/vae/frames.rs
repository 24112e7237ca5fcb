//! A whole video from its latents: chunk by chunk, tile by tile, and out of the device's memory as soon as pixels are done.
//!
//! Note: several ranks.
//! They take tiles by turns. The first rank puts all of them together, in the order in which one rank alone would, so that it gets the same bits: its own as they are decoded, and
//! after each of them those that others have decoded meanwhile, whole. So it holds no more at its peak than alone, and the others, which have no canvas, hold less.

use tch::{Device, Kind, Tensor};

use super::COLOURS;
use super::decoder::VaeDecoder;
use super::feature_cache::{CacheTraffic, FeatureCache};
use super::pieces::Pieces;
use super::tiling::{Span, blend_weights, even_spans};
use crate::attribution::{Purpose, within};
use crate::collectives::{Collectives, Group};
use crate::error::{Error, Result};
use crate::finite;
use crate::weights::Weights;

/// Takes pixels as they are done: some rows of all frames, or all rows of some frames. Each pixel comes once.
pub trait FrameSink {
    /// Takes `pixels`, of which the first are in frame `first_frame` and row `first_row`.
    ///
    /// # Shapes
    /// `pixels`: `[frames, rows, width, 3]`, on the CPU: uint8 and contiguous, or colours (see [`FrameSink::takes_colours`]).
    ///
    /// # Errors
    /// What keeps the sink from taking them.
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()>;

    /// Whether the sink takes pixels as the decoder has them, in its type and around -1 to 1, instead of bytes. They are good during the call alone.
    fn takes_colours(&self) -> bool {
        false
    }

    /// Whether it keeps pixels, so that they are to be numbers: those that are NaN or infinite are an error then. It is false for runs that measure, whose pixels nobody sees.
    fn keeps(&self) -> bool {
        true
    }
}

/// Decodes a whole video into `sink` in such pieces. After each chunk (of each tile) `progress` gets the number of those done and of all that this rank does. Gives what the
/// feature cache copied.
///
/// All of `ranks` have the same latents. They share tiles, and the sink of the first one gets all pixels, that of another none; a video that is not in tiles is the first rank's alone.
///
/// # Shapes
/// `latents`, as [`super::denormalise`] returns them and in the type of the weights: `[1, z_dim, frames, height, width]`.
///
/// # Errors
/// libtorch's, the sink's, what the ranks say, and latents that are not those of one video.
pub fn decode_video(
    decoder: &VaeDecoder,
    w: &Weights,
    latents: &Tensor,
    pieces: Pieces,
    ranks: &dyn Collectives,
    sink: &mut dyn FrameSink,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<CacheTraffic> {
    let Pieces { tiling, temporal_chunk, activation_offload } = pieces;
    let (batch, _, latent_frames, height, width) = latents.size5()?;
    if batch != 1 || latent_frames < 1 || temporal_chunk < 1 {
        return Err(Error::Input(format!(
            "cannot decode latents of shape {:?} in chunks of {temporal_chunk} frames: decode one video of at least one frame at a time",
            latents.size()
        )));
    }
    let chunks = even_spans(latent_frames, temporal_chunk);
    let mut video = Video { decoder, w, chunks, activation_offload, ranks, traffic: CacheTraffic::default() };
    match tiling {
        None if ranks.rank() > 0 => Ok(()),
        None => video.decode_whole(latents, sink, progress),
        Some(tiling) => video.decode_tiles(latents, &tiling.spans(height), &tiling.spans(width), sink, progress),
    }?;
    Ok(video.traffic)
}

/// What the chunks of all tiles have in common.
struct Video<'a> {
    decoder: &'a VaeDecoder,
    w: &'a Weights,
    /// Latent frames of each chunk.
    chunks: Vec<Span>,
    activation_offload: bool,
    ranks: &'a dyn Collectives,
    /// Of all tiles until now.
    traffic: CacheTraffic,
}

impl Video<'_> {
    /// Decodes all chunks of `latents` in order and gives their pixels as they are done, `[1, frames, height, width, 3]`, to `take`. After each chunk
    /// `done` is called.
    fn decode_chunks(&mut self, latents: &Tensor, mut take: impl FnMut(Tensor) -> Result<()>, mut done: impl FnMut()) -> Result<()> {
        let mut cache = if self.activation_offload { FeatureCache::on_host() } else { FeatureCache::new() };
        for (index, chunk) in self.chunks.iter().enumerate() {
            if index + 1 == self.chunks.len() {
                cache.expect_last();
            }
            self.decoder.decode_slices(self.w, &latents.f_narrow(2, chunk.start, chunk.len())?, &mut cache, &mut take)?;
            done();
        }
        // Tiles have one size, and page-locked memory goes from one to the next.
        self.traffic = self.traffic.plus(cache.traffic());
        Ok(())
    }

    fn decode_whole(&mut self, latents: &Tensor, sink: &mut dyn FrameSink, progress: &mut dyn FnMut(usize, usize)) -> Result<()> {
        let quantiser = Quantiser::new(latents, sink)?;
        let (chunks, mut first_frame, mut done) = (self.chunks.len(), 0, 0);
        let take = |pixels| {
            let pixels = quantiser.quantise(pixels, first_frame)?;
            sink.accept(first_frame, 0, &pixels)?;
            first_frame += pixels.size()[0];
            Ok(())
        };
        self.decode_chunks(latents, take, || {
            done += 1;
            progress(done, chunks);
        })
    }

    /// Decodes one row of tiles after the other into a canvas as high as a tile, with those that other ranks have decoded. Of the canvas, the rows that the next row of tiles does
    /// not touch are done and leave; the others move to its top.
    fn decode_tiles(
        &mut self,
        latents: &Tensor,
        rows: &[Span],
        columns: &[Span],
        sink: &mut dyn FrameSink,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let tiles = Tiles::new(rows, columns, self.ranks)?;
        let (mut done, total) = (0, tiles.own().count() * self.chunks.len());
        let mut progress = || {
            done += 1;
            progress(done, total);
        };
        if self.ranks.rank() > 0 {
            return self.decode_for_first(latents, &tiles, &mut progress);
        }
        let quantiser = Quantiser::new(latents, sink)?;
        let scale = self.decoder.spatial_compression();
        let row_weights = upload(&blend_weights(rows, scale), &[-1, 1, 1], latents.device())?;
        let column_weights = upload(&blend_weights(columns, scale), &[1, -1, 1], latents.device())?;
        let band_height = rows[0].len() * scale;
        let (_, _, _, _, width) = latents.size5()?;
        let canvas = within(Purpose::Frames, || Tensor::f_zeros(self.pixels(latents, band_height, width * scale), options(latents)))?;

        for (row, span) in rows.iter().enumerate() {
            // 1. The tiles of this row: one's own through all its chunks, and others as their ranks have them.
            for (index, (column, column_weight)) in columns.iter().zip(&column_weights).enumerate() {
                let tile = row * columns.len() + index;
                let place = canvas.f_narrow(3, column.start * scale, column.len() * scale)?;
                let weight = row_weights[row].f_mul(column_weight)?;
                let add = |first_frame: i64, pixels: &Tensor| {
                    let _ = place.f_narrow(1, first_frame, pixels.size()[1])?.f_addcmul_(pixels, &weight)?;
                    Ok(())
                };
                match tiles.pair(tile) {
                    Some(pair) => {
                        let sides = self.pixels(latents, band_height, column.len() * scale);
                        add(0, &pair.broadcast(within(Purpose::Frames, || Tensor::f_empty(sides, options(latents)))?)?)?;
                    }
                    None => self.decode_tile(latents, [*span, *column], add, &mut progress)?,
                }
            }

            // 2. Finished rows leave.
            let next = rows.get(row + 1).map_or(span.end, |next| next.start);
            let finished = (next - span.start) * scale;
            sink.accept(0, span.start * scale, &quantiser.quantise(canvas.f_narrow(2, 0, finished)?, 0)?)?;

            // 3. Unfinished rows become the first ones of the next canvas.
            if row + 1 < rows.len() {
                let unfinished = band_height - finished;
                let kept = within(Purpose::Frames, || canvas.f_narrow_copy(2, finished, unfinished))?;
                let _ = canvas.f_narrow(2, unfinished, finished)?.f_zero_()?;
                canvas.f_narrow(2, 0, unfinished)?.f_copy_(&kept)?;
            }
        }
        Ok(())
    }

    /// Decodes this rank's tiles, and gives each to the first rank.
    fn decode_for_first(&mut self, latents: &Tensor, tiles: &Tiles<'_>, progress: &mut dyn FnMut()) -> Result<()> {
        let scale = self.decoder.spatial_compression();
        for tile in tiles.own() {
            let spans = tiles.spans(tile);
            let sides = self.pixels(latents, spans[0].len() * scale, spans[1].len() * scale);
            let whole = within(Purpose::Frames, || Tensor::f_empty(sides, options(latents)))?;
            let put = |first_frame: i64, pixels: &Tensor| Ok(whole.f_narrow(1, first_frame, pixels.size()[1])?.f_copy_(pixels)?);
            self.decode_tile(latents, spans, put, progress)?;
            if let Some(pair) = tiles.pair(tile) {
                let _ = pair.broadcast(whole)?;
            }
        }
        Ok(())
    }

    /// Decodes the tile between these rows and columns, through all its chunks. `put` gets the first frame of some, and their pixels.
    fn decode_tile(
        &mut self,
        latents: &Tensor,
        [row, column]: [Span; 2],
        put: impl Fn(i64, &Tensor) -> Result<()>,
        progress: &mut dyn FnMut(),
    ) -> Result<()> {
        let tile = latents.f_narrow(3, row.start, row.len())?.f_narrow(4, column.start, column.len())?;
        let mut first_frame = 0;
        let take = |pixels: Tensor| {
            put(first_frame, &pixels)?;
            first_frame += pixels.size()[1];
            Ok(())
        };
        self.decode_chunks(&tile, take, progress)
    }

    /// The sides of all frames' pixels of a part of the frame.
    fn pixels(&self, latents: &Tensor, height: i64, width: i64) -> [i64; 5] {
        [1, self.decoder.frames_of(latents.size()[2]), height, width, COLOURS]
    }
}

/// In the type of the tiles: where no tiles overlap, pixels are then those of the frame decoded at once.
fn options(latents: &Tensor) -> (Kind, Device) {
    (latents.kind(), latents.device())
}

/// The tiles of a frame, row by row, and which rank decodes each.
struct Tiles<'a> {
    rows: &'a [Span],
    columns: &'a [Span],
    rank: usize,
    /// For each rank but the first that rank and the first one, where this is one of the two.
    pairs: Vec<Option<Group>>,
}

impl<'a> Tiles<'a> {
    fn new(rows: &'a [Span], columns: &'a [Span], ranks: &dyn Collectives) -> Result<Self> {
        let rank = ranks.rank();
        let pair = |other: usize| if rank == 0 || rank == other { ranks.split(&[other, 0]).map(Some) } else { Ok(None) };
        Ok(Self { rows, columns, rank, pairs: (1..ranks.size()).map(pair).collect::<Result<_>>()? })
    }

    /// Which rank decodes tile `number`.
    fn rank_of(&self, number: usize) -> usize {
        number % (self.pairs.len() + 1)
    }

    /// Numbers of those that this rank decodes.
    fn own(&self) -> impl Iterator<Item = usize> {
        (0..self.rows.len() * self.columns.len()).filter(|&number| self.rank_of(number) == self.rank)
    }

    /// The rank that decodes tile `number` with the first one; nothing where it is that.
    fn pair(&self, number: usize) -> Option<&Group> {
        self.pairs[..].get(self.rank_of(number).checked_sub(1)?)?.as_ref()
    }

    /// Rows and columns of tile `number`.
    fn spans(&self, number: usize) -> [Span; 2] {
        [self.rows[number / self.columns.len()], self.columns[number % self.columns.len()]]
    }
}

/// The weights of each tile on the device, in fp32 and with sides as in `shape`.
fn upload(weights: &[Vec<f32>], shape: &[i64], device: Device) -> Result<Vec<Tensor>> {
    weights.iter().map(|weights| Ok(Tensor::f_from_slice(weights)?.f_view(shape)?.f_to_device(device)?)).collect()
}

/// Turns colours between -1 and 1 into what a sink takes: bytes, or the colours themselves.
struct Quantiser {
    keeps_colours: bool,
    checks: bool,
    /// 127.5 as a tensor on the device, exact in every type: the middle, and what it is to either end.
    half: Tensor,
}

impl Quantiser {
    /// For pixels of the type and on the device of `like`, and for `sink`.
    fn new(like: &Tensor, sink: &dyn FrameSink) -> Result<Self> {
        Ok(Self {
            keeps_colours: sink.takes_colours(),
            checks: sink.keeps(),
            half: Tensor::f_full([] as [i64; 0], 127.5, (like.kind(), like.device()))?,
        })
    }

    /// Bytes on the CPU, unless colours are kept. The only new tensors are those of bytes, and one number where pixels are looked at: the arithmetic overwrites `pixels`. The
    /// host waits for the pixels anyway.
    ///
    /// # Shapes
    /// `pixels`: `[1, frames, rows, width, 3]`; result: `[frames, rows, width, 3]`.
    ///
    /// # Errors
    /// libtorch's, and pixels of frames from `first_frame` on that are not finite and are kept.
    fn quantise(&self, pixels: Tensor, first_frame: i64) -> Result<Tensor> {
        if self.checks {
            finite::check(&pixels, || format!("the pixels of frames {} to {}", first_frame + 1, first_frame + pixels.size()[1]))?;
        }
        if self.keeps_colours {
            return Ok(pixels.f_to_device(Device::Cpu)?.f_squeeze_dim(0)?);
        }
        // In one operation, so that 16-bit types round once.
        let mut scaled = self.half.f_addcmul_out(&pixels, &pixels, &self.half)?;
        let _ = scaled.f_round_()?;
        // Weights of tiles sum to one as nearly as fp32 can, which may be a little above.
        let _ = scaled.f_clamp_(0.0, 255.0)?;
        let bytes = within(Purpose::Frames, || scaled.f_to_kind(Kind::Uint8))?;
        Ok(bytes.f_to_device(Device::Cpu)?.f_squeeze_dim(0)?.f_contiguous()?)
    }
}
