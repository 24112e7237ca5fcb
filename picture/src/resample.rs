//! Another size for a picture, in the very arithmetic of Pillow, so that a video begins with the same bytes as diffusers' does.
//!
//! Facts from Pillow `src/libImaging/Resample.c`: columns first and then rows, each rounded to 8 bits; weights in fixed point of 22 bits, their sum one. Pillow 13 takes
//! rows first for some sizes, where that is less work, and then has a few bytes that differ by one or two.

use std::f64::consts::PI;

use crate::{COLOURS, Size};

/// Bits of a weight behind the point.
const BITS: u32 = 22;
/// How old pixels make new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Lanczos' windowed sinc, three lobes to each side.
    Lanczos,
    /// The cubic of Catmull and Rom.
    Bicubic,
}

impl Filter {
    /// How far it reaches to each side, in pixels.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    /// Its value at `x`.
    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        match (self, x.abs()) {
            (Self::Lanczos, distance) if distance < 3.0 => sinc(x) * sinc(x / 3.0),
            (Self::Bicubic, x) if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            (Self::Bicubic, x) if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    }
}

/// What makes one new pixel of a row or a column: so many old ones from `start` on, each with its weight.
struct Taps {
    start: usize,
    weights: Vec<i64>,
}

/// The pixels `rgb`, which are `from` large, in the size `to`.
pub(crate) fn resample(rgb: &[u8], from: Size, to: Size, filter: Filter) -> Vec<u8> {
    let [width, height] = [from.width, from.height].map(|side| side as usize);
    let row = width * COLOURS;
    let columns = taps(width, to.width as usize, filter);
    let narrow: Vec<u8> = match from.width == to.width {
        true => rgb.to_vec(),
        false => rgb.chunks_exact(row).flat_map(|row| columns.iter().flat_map(move |taps| taps.pixel(row, COLOURS, 0))).collect(),
    };
    if from.height == to.height {
        return narrow;
    }
    let row = to.width as usize * COLOURS;
    let rows = taps(height, to.height as usize, filter);
    rows.iter()
        .flat_map(|taps| (0..row).step_by(COLOURS).flat_map(|column| taps.pixel(&narrow, row, column)).collect::<Vec<u8>>())
        .collect()
}

impl Taps {
    /// The new pixel among `values`, where old ones are so many bytes apart and the first is at `offset`.
    fn pixel(&self, values: &[u8], apart: usize, offset: usize) -> [u8; COLOURS] {
        let mut sums = [1 << (BITS - 1); COLOURS];
        let pixels = values[offset + self.start * apart..].chunks(apart);
        for (pixel, weight) in pixels.zip(&self.weights) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += i64::from(value) * weight);
        }
        sums.map(|sum| (sum >> BITS).clamp(0, 255) as u8)
    }
}

/// How `old` pixels in a line become `new` ones.
fn taps(old: usize, new: usize, filter: Filter) -> Vec<Taps> {
    let scale = old as f64 / new as f64;
    // Of a picture that grows, the filter spans old pixels and not new ones.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let of = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(old);
        let weights: Vec<f64> = (start..end).map(|x| filter.at((x as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << BITS)).round() as i64;
        Taps { start, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..new).map(of).collect()
}
