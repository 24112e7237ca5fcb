//! How near two frames are: the peak signal-to-noise ratio, and the structural similarity of Wang et al. 2004, "Image quality assessment: from error visibility to
//! structural similarity", with its window and constants.

/// Half of the Gaussian window, which is 11 wide.
const RADIUS: usize = 5;
/// The window's standard deviation.
const SIGMA: f64 = 1.5;
/// The constants that keep its quotients steady, for values from 0 to 1.
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// A frame: `[3, height, width]`, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub(super) values: Vec<f32>,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Frame {
    /// What it looks like without colours, by Rec. 601.
    fn luma(&self) -> Vec<f64> {
        let pixels = self.height * self.width;
        let (red, rest) = self.values.split_at(pixels);
        let (green, blue) = rest.split_at(pixels);
        red.iter().zip(green).zip(blue).map(|((r, g), b)| 0.299 * f64::from(*r) + 0.587 * f64::from(*g) + 0.114 * f64::from(*b)).collect()
    }
}

/// The sum of squared differences of two rows of numbers.
pub(super) fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// The peak signal-to-noise ratio in dB of values from 0 to 1 with that mean squared error; none where there is no error.
pub(super) fn psnr(mean_squared_error: f64) -> Option<f64> {
    (mean_squared_error > 0.0).then(|| -10.0 * mean_squared_error.log10())
}

/// The mean structural similarity of two frames of one size: 1 where they are the same. Of windows, those count that lie within the frame.
pub(super) fn ssim(a: &Frame, b: &Frame) -> f64 {
    let (x, y) = (a.luma(), b.luma());
    let each = |of: fn(f64, f64) -> f64| blurred(&x.iter().zip(&y).map(|(x, y)| of(*x, *y)).collect::<Vec<_>>(), a.height, a.width);
    let [mean_x, mean_y] = [each(|x, _| x), each(|_, y| y)];
    let [square_x, square_y, product] = [each(|x, _| x * x), each(|_, y| y * y), each(|x, y| x * y)];
    let similarity = |at: usize| {
        let (mx, my) = (mean_x[at], mean_y[at]);
        let (variance_x, variance_y, covariance) = (square_x[at] - mx * mx, square_y[at] - my * my, product[at] - mx * my);
        (2.0 * mx * my + C1) * (2.0 * covariance + C2) / ((mx * mx + my * my + C1) * (variance_x + variance_y + C2))
    };
    (0..mean_x.len()).map(similarity).sum::<f64>() / mean_x.len().max(1) as f64
}

/// The Gaussian mean around each pixel whose window lies within the frame; of frames smaller than that, the window is cut.
fn blurred(values: &[f64], height: usize, width: usize) -> Vec<f64> {
    let (rows, columns) = (window(height), window(width));
    let (kept_rows, kept_columns) = (height + 1 - rows.len(), width + 1 - columns.len());
    let mut narrow = Vec::with_capacity(height * kept_columns);
    for row in values.chunks_exact(width) {
        narrow.extend(row.windows(columns.len()).map(|part| part.iter().zip(&columns).map(|(value, weight)| value * weight).sum::<f64>()));
    }
    let at = |row: usize, column: usize| narrow[row * kept_columns + column];
    let mean = |row: usize, column: usize| rows.iter().enumerate().map(|(offset, weight)| at(row + offset, column) * weight).sum();
    (0..kept_rows).flat_map(|row| (0..kept_columns).map(move |column| (row, column))).map(|(row, column)| mean(row, column)).collect()
}

/// The window's weights along a side of so many pixels.
fn window(side: usize) -> Vec<f64> {
    let radius = RADIUS.min(side.saturating_sub(1) / 2) as i64;
    let weight = |offset: i64| (-((offset * offset) as f64) / (2.0 * SIGMA * SIGMA)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    (-radius..=radius).map(|offset| weight(offset) / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of waves, with `noise` times a pattern that has no waves.
    fn frame(noise: f32) -> Frame {
        let (height, width) = (24, 32);
        let value = |channel: usize, row: usize, column: usize| {
            let wave = ((row * (channel + 2) + 3 * column) as f32 * 0.21).sin() * 0.4 + 0.5;
            let pattern = ((row * 7919 + column * 104_729 + channel * 31) % 97) as f32 / 97.0 - 0.5;
            (wave + noise * pattern).clamp(0.0, 1.0)
        };
        let all = (0..3).flat_map(|c| (0..height).flat_map(move |row| (0..width).map(move |column| (c, row, column))));
        Frame { values: all.map(|(c, row, column)| value(c, row, column)).collect(), height, width }
    }

    #[test]
    fn the_same_frame_is_perfect_and_more_noise_is_worse() {
        let clean = frame(0.0);
        assert!((ssim(&clean, &clean) - 1.0).abs() < 1e-12);
        assert_eq!(psnr(squared_error(&clean.values, &clean.values)), None);
        let all = [0.05, 0.1, 0.3].map(|noise| ssim(&clean, &frame(noise)));
        assert!(all[0] > all[1] && all[1] > all[2] && all[2] > 0.0, "{all:?}");
        assert!((ssim(&clean, &frame(0.1)) - ssim(&frame(0.1), &clean)).abs() < 1e-12);
    }

    /// From `skimage.metrics.structural_similarity` 0.25 on the lumas, with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`, its border of
    /// five pixels left out.
    #[test]
    fn it_is_the_published_measure() {
        let found = ssim(&frame(0.0), &frame(0.3));
        assert!((found - SKIMAGE).abs() < 1e-4, "{found}");
    }
    const SKIMAGE: f64 = 0.897_837;

    #[test]
    fn psnr_is_in_decibels() {
        assert_eq!(psnr(0.01), Some(20.0));
        assert_eq!(psnr(1.0), Some(-0.0));
    }

    #[test]
    fn a_frame_smaller_than_the_window_has_an_answer() {
        let tiny = Frame { values: vec![0.5; 3 * 4 * 2], height: 4, width: 2 };
        assert!((ssim(&tiny, &tiny) - 1.0).abs() < 1e-12);
    }
}
