//! Tiles and chunks: how a frame and a video are cut, and how much each tile counts where tiles overlap.

use crate::error::{Error, Result};

/// How a frame is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    size: i64,
    overlap: i64,
    /// Whether tiles are as small as so many of them can be.
    is_tight: bool,
}

/// A tile's extent along one side of the frame, in latent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First pixel.
    pub start: i64,
    /// The pixel after the last one.
    pub end: i64,
}

impl Span {
    /// Pixels from start to end.
    pub fn len(&self) -> i64 {
        self.end - self.start
    }

    /// The same of pixels that are so many times as small.
    pub(super) fn times(self, scale: i64) -> Self {
        Self { start: self.start * scale, end: self.end * scale }
    }

    /// Whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() <= 0
    }
}

impl Tiling {
    /// Square tiles of `size` latent pixels a side, of which neighbours share `overlap`.
    ///
    /// # Errors
    /// A size below 1, or an overlap that is negative or not smaller than the size.
    pub fn new(size: i64, overlap: i64) -> Result<Self> {
        if size < 1 || !(0..size).contains(&overlap) {
            return Err(Error::Input(format!(
                "VAE tiles of {size} latent pixels cannot overlap by {overlap}: use a size of 1 or more, and an overlap below the size"
            )));
        }
        Ok(Self { size, overlap, is_tight: false })
    }

    /// As many tiles, but no larger than it takes: what they share beyond the overlap would be computed twice for nothing.
    #[must_use]
    pub fn tight(self) -> Self {
        Self { is_tight: true, ..self }
    }

    /// The tiles along a side of `extent` latent pixels. All have one size, so that every tile is the same work in the same memory: the
    /// last one is moved back to the border and overlaps its neighbour by more. Where the side is shorter than a tile there is one, as long.
    pub fn spans(&self, extent: i64) -> Vec<Span> {
        if self.size >= extent {
            return vec![Span { start: 0, end: extent }];
        }
        let in_steps = |size: i64| {
            let last = extent - size;
            (0..last).step_by((size - self.overlap) as usize).chain([last]).map(move |start| Span { start, end: start + size })
        };
        let count = in_steps(self.size).count() as i64;
        let tight = (extent + (count - 1) * self.overlap + count - 1) / count;
        in_steps(if self.is_tight { tight } else { self.size }).collect()
    }
}

/// `extent` in as many spans of at most `size` as it takes, as even as can be.
pub(super) fn even_spans(extent: i64, size: i64) -> Vec<Span> {
    let count = (extent + size - 1) / size;
    let start = |index: i64| (index * extent + count - 1) / count;
    (0..count).map(|index| Span { start: start(index), end: start(index + 1) }).collect()
}

/// How much each of `spans` counts at each of its pixels, with `scale` pixels a latent pixel. Towards a neighbour the weight falls in a
/// straight line; at every pixel the weights of all tiles sum to one. Weights of a frame are the product of those of its two sides.
pub fn blend_weights(spans: &[Span], scale: i64) -> Vec<Vec<f32>> {
    let pixels = |span: &Span| (span.start * scale, span.end * scale);
    let mut sums = vec![0.0; spans.last().map_or(0, |last| pixels(last).1) as usize];
    let mut weights = Vec::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        let (start, end) = pixels(span);
        let before = index.checked_sub(1).map_or(start, |index| pixels(&spans[index]).1);
        let after = spans.get(index + 1).map_or(end, |next| pixels(next).0);
        let ramp = |pixel: i64| {
            let centre = pixel as f64 + 0.5;
            let rise = if pixel < before { (centre - start as f64) / (before - start) as f64 } else { 1.0 };
            let fall = if pixel >= after { (end as f64 - centre) / (end - after) as f64 } else { 1.0 };
            rise * fall
        };
        let ramp: Vec<f64> = (start..end).map(ramp).collect();
        sums[start as usize..end as usize].iter_mut().zip(&ramp).for_each(|(sum, weight)| *sum += weight);
        weights.push(ramp);
    }
    let normalised = |(span, ramp): (&Span, Vec<f64>)| {
        let sums = &sums[pixels(span).0 as usize..];
        ramp.iter().zip(sums).map(|(weight, sum)| (weight / sum) as f32).collect()
    };
    spans.iter().zip(weights).map(normalised).collect()
}
