//! A whole video to its latents: tile by tile, chunk by chunk, of which only one is on the device.

use tch::{Device, Kind, Tensor};

use super::encoder::{QUANT_CONV, VaeEncoder};
use super::feature_cache::{CacheTraffic, FeatureCache};
use super::pieces::Pieces;
use super::tiling::{Span, blend_weights, even_spans};
use crate::attribution::{Purpose, within};
use crate::error::{Error, Result};
use crate::weights::{Weights, bytes_of};

/// A video that is taken a part at a time, so that it need not be anywhere as a whole.
pub trait Film {
    /// Frames, height and width.
    fn sides(&self) -> [i64; 3];

    /// A part of it on the host: some frames of it, of each those rows and columns. Nothing where all of that is grey, which is zero.
    ///
    /// # Shapes
    /// `[1, 3, frames, rows, columns]`, between -1 and 1, in any floating-point type.
    ///
    /// # Errors
    /// libtorch's.
    fn part(&self, frames: Span, rows: Span, columns: Span) -> Result<Option<Tensor>>;
}

/// A video that lies in memory: `[1, 3, frames, height, width]`.
impl Film for Tensor {
    fn sides(&self) -> [i64; 3] {
        let sides = self.size();
        [2, 3, 4].map(|side| sides.get(side).copied().unwrap_or(0))
    }

    fn part(&self, frames: Span, rows: Span, columns: Span) -> Result<Option<Tensor>> {
        let narrowed = [(2, frames), (3, rows), (4, columns)]
            .into_iter()
            .try_fold(self.shallow_clone(), |part, (side, span)| part.f_narrow(side, span.start, span.len()));
        Ok(Some(narrowed?))
    }
}

/// The latents of a whole video, or of a picture as a video of one frame, in such pieces. Each part is brought to where the weights are, in their type, as its turn comes.
/// After each chunk (of each tile) `progress` gets the number of those done and of all. Gives what was copied between host and device, too.
///
/// # Shapes
/// `video` has `4 n + 1` frames; result, on the weights' device and in fp32, for [`super::normalise`]: `[1, z_dim, n + 1, height / s, width / s]`, where `s` is the
/// spec's spatial compression.
///
/// # Errors
/// libtorch's, the film's, and a video of other sides.
pub fn encode_video(
    encoder: &VaeEncoder,
    w: &Weights,
    video: &dyn Film,
    pieces: Pieces,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Tensor, CacheTraffic)> {
    let like = w.get(&format!("{QUANT_CONV}.bias"));
    let [frames, height, width] = video.sides();
    let whole = encoder.chunk(&[1, super::COLOURS, frames, height, width], like.kind(), false)?;
    if pieces.temporal_chunk < 1 {
        return Err(Error::Input(format!("cannot encode in chunks of {} latent frames: use 1 or more", pieces.temporal_chunk)));
    }
    let (rows, columns) = (pieces.spans(whole.latent_height), pieces.spans(whole.latent_width));
    let [row_weights, column_weights] = [blend_weights(&rows, 1), blend_weights(&columns, 1)];
    let chunks = even_spans(whole.latent_frames, pieces.temporal_chunk);
    let shape = [1, encoder.z_dim(), whole.latent_frames, whole.latent_height, whole.latent_width];
    let latents = within(Purpose::Latents, || Tensor::f_zeros(shape, (Kind::Float, like.device())))?;

    let total = rows.len() * columns.len() * chunks.len();
    let (mut done, mut traffic) = (0, CacheTraffic::default());
    for (row, row_weights) in rows.iter().zip(&row_weights) {
        for (column, column_weights) in columns.iter().zip(&column_weights) {
            let weight = tile_weight(row_weights, column_weights, like.device())?;
            let place = latents.f_narrow(3, row.start, row.len())?.f_narrow(4, column.start, column.len())?;
            let [rows, columns] = [row, column].map(|span| span.times(encoder.spatial_compression()));
            let mut cache = if pieces.activation_offload { FeatureCache::on_host() } else { FeatureCache::new() };
            for span in &chunks {
                if span.end == whole.latent_frames {
                    cache.expect_last();
                }
                let frames = Span { start: encoder.frames_of(span.start), end: encoder.frames_of(span.end) };
                let part = match video.part(frames, rows, columns)? {
                    Some(part) => {
                        let part = part.f_to_kind(like.kind())?;
                        if part.device() != like.device() {
                            traffic.h2d_bytes += bytes_of(&part);
                        }
                        part.f_to_device(like.device())?
                    }
                    None => Tensor::f_zeros([1, super::COLOURS, frames.len(), rows.len(), columns.len()], (like.kind(), like.device()))?,
                };
                let encoded = encoder.encode_chunk(w, &part, &mut cache)?;
                let _ = place.f_narrow(2, span.start, span.len())?.f_addcmul_(&encoded.f_to_kind(Kind::Float)?, &weight)?;
                done += 1;
                progress(done, total);
            }
            traffic = traffic.plus(cache.traffic());
        }
    }
    Ok((latents, traffic))
}

/// How much a tile counts at each of its latent pixels, on the device: `[height, width]`.
fn tile_weight(rows: &[f32], columns: &[f32], device: Device) -> Result<Tensor> {
    let [rows, columns] = [Tensor::f_from_slice(rows)?.f_view([-1, 1])?, Tensor::f_from_slice(columns)?.f_view([1, -1])?];
    Ok(rows.f_mul(&columns)?.f_to_device(device)?)
}
