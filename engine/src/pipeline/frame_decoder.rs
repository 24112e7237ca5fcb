//! Latents to frames: the loop that pipelines end with.

use engine_protocol::{Config, Transfers, VaeSpec};
use tch::Tensor;

use super::link::Link;
use super::loading::Loadable;
use crate::collectives::Group;
use crate::error::Result;
use crate::vae::{self, FrameSink, Pieces, VaeDecoder};
use crate::weights::{Groups, bytes_of, kind_of};

/// A VAE's decoder with its weights.
#[derive(Debug)]
pub(super) struct FrameDecoder {
    spec: VaeSpec,
    decoder: VaeDecoder,
    /// Those that share tiles.
    ranks: Group,
    pub(super) weights: Loadable,
}

impl FrameDecoder {
    /// The decoder of these shapes, as one of `ranks`.
    pub(super) fn new(spec: &VaeSpec, ranks: Group, weights: Loadable) -> Self {
        Self { spec: spec.clone(), decoder: VaeDecoder::new(spec), ranks, weights }
    }

    /// Frames from latents, some at a time given to `sink` as they are done; `progress` hears of each time.
    pub(super) fn decode(
        &mut self,
        config: &Config,
        link: &mut Link,
        latents: &Tensor,
        sink: &mut dyn FrameSink,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let latents = vae::denormalise(&self.spec, latents)?.f_to_kind(kind_of(config.dtype))?;
        let latents = link.upload(&latents)?;
        let decoding = Pieces::of(config)?;
        let mut counted = Counted { sink, bytes: 0 };
        let decode =
            |weights: &_| vae::decode_video(&self.decoder, weights, &latents, decoding, self.ranks.as_ref(), &mut counted, progress);
        let cached = self.weights.get()?.with(vae::DECODER, decode)?;
        link.passed(Transfers { h2d_bytes: cached.h2d_bytes, d2h_bytes: cached.d2h_bytes, not_page_locked: None });
        link.downloaded(counted.bytes);
        self.weights.release();
        Ok(())
    }
}

/// A sink that counts the bytes that go through it.
struct Counted<'a> {
    sink: &'a mut dyn FrameSink,
    bytes: u64,
}

impl FrameSink for Counted<'_> {
    fn accept(&mut self, first_frame: i64, first_row: i64, pixels: &Tensor) -> Result<()> {
        self.bytes += bytes_of(pixels);
        self.sink.accept(first_frame, first_row, pixels)
    }

    fn takes_colours(&self) -> bool {
        self.sink.takes_colours()
    }

    fn keeps(&self) -> bool {
        self.sink.keeps()
    }
}
