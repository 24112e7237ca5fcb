//! A whole video from its latents: chunk by chunk, tile by tile, and out of the device's memory as soon as pixels are done.

use tch::{Device, Kind, Tensor};

use super::decoder::VaeDecoder;
use super::feature_cache::{CacheTraffic, FeatureCache};
use super::pieces::Pieces;
use super::tiling::{Span, blend_weights, even_spans};
use crate::attribution::{Purpose, within};
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

/// Decodes a whole video into `sink` in such pieces. After each chunk (of each tile) `progress` gets the number of those done and of all. Gives what the
/// feature cache copied.
///
/// # Shapes
/// `latents`, as [`super::denormalise`] returns them and in the type of the weights: `[1, z_dim, frames, height, width]`.
///
/// # Errors
/// libtorch's, the sink's, and latents that are not those of one video.
pub fn decode_video(
    decoder: &VaeDecoder,
    w: &Weights,
    latents: &Tensor,
    pieces: Pieces,
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
    let mut video = Video { decoder, w, chunks, activation_offload, traffic: CacheTraffic::default() };
    match tiling {
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

    /// Decodes one row of tiles after the other into a canvas as high as a tile. Of the canvas, the rows that the next row of tiles does not
    /// touch are done and leave; the others move to its top.
    fn decode_tiles(
        &mut self,
        latents: &Tensor,
        rows: &[Span],
        columns: &[Span],
        sink: &mut dyn FrameSink,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let quantiser = Quantiser::new(latents, sink)?;
        let scale = self.decoder.spatial_compression();
        let row_weights = upload(&blend_weights(rows, scale), &[-1, 1, 1], latents.device())?;
        let column_weights = upload(&blend_weights(columns, scale), &[1, -1, 1], latents.device())?;
        let (_, _, latent_frames, _, width) = latents.size5()?;
        let band_height = rows[0].len() * scale;
        // In the type of the tiles: where no tiles overlap, pixels are then those of the frame decoded at once.
        let shape = [1, self.decoder.frames_of(latent_frames), band_height, width * scale, 3];
        let canvas = within(Purpose::Frames, || Tensor::f_zeros(shape, (latents.kind(), latents.device())))?;

        let total = rows.len() * columns.len() * self.chunks.len();
        let mut done = 0;
        for (row, span) in rows.iter().enumerate() {
            // 1. The tiles of this row, each through all its chunks.
            let band = latents.f_narrow(3, span.start, span.len())?;
            for (column, column_weight) in columns.iter().zip(&column_weights) {
                let tile = band.f_narrow(4, column.start, column.len())?;
                let place = canvas.f_narrow(3, column.start * scale, column.len() * scale)?;
                let weight = row_weights[row].f_mul(column_weight)?;
                let mut first_frame = 0;
                let take = |pixels: Tensor| {
                    let frames = pixels.size()[1];
                    let _ = place.f_narrow(1, first_frame, frames)?.f_addcmul_(&pixels, &weight)?;
                    first_frame += frames;
                    Ok(())
                };
                self.decode_chunks(&tile, take, || {
                    done += 1;
                    progress(done, total);
                })?;
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
