//! TeaCache: a step whose timestep embedding has changed little reuses.
//!
//! The polynomials are those of ali-vilab/TeaCache@7c10efc, `TeaCache4Wan2.1/teacache_generate.py`, and for 5B of LightX2V@f8aee98,
//! `configs/caching/teacache/wan_ti2v_tea_720p.json`. They map the relative change of the embedding to that of the transformer's output.

use engine_protocol::Published;
use tch::{Kind, Tensor};

use crate::error::Result;

/// What was published for a model.
#[derive(Debug)]
pub(super) struct Fit {
    /// Which embedding the polynomial takes.
    pub(super) input: Input,
    /// Highest power first.
    polynomial: &'static [f64],
    /// The threshold where none is set.
    pub(super) threshold: f64,
    /// Steps at the start and at the end that are computed.
    pub(super) ends: [usize; 2],
    /// Thresholds, each with the share of a video's time that was left (its README, on an A800): all steps where it is 0.
    published: &'static [[f64; 2]],
}

/// What the timestep becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// The embedding, `e` there.
    Embedding,
    /// Its six modulations, `e0` there.
    Modulation,
}

/// Wan2.1 14B: 55 min; 38, 30 and 27 with the cache.
const OF_14B: &[[f64; 2]] = &[[0.0, 1.0], [0.14, 38.0 / 55.0], [0.15, 30.0 / 55.0], [0.20, 27.0 / 55.0]];

impl Fit {
    /// That of a model; none where there is none.
    pub(super) fn of(model: Published) -> Option<Self> {
        Some(match model {
            Published::T2v1_3b => Self {
                input: Input::Modulation,
                polynomial: &[-5.218_624_37e4, 9.230_414_04e3, -5.282_759_48e2, 1.369_876_16e1, -4.998_756_64e-2],
                threshold: 0.08,
                ends: [5, 0],
                // 175 s; 117, 110 and 88.
                published: &[[0.0, 1.0], [0.05, 117.0 / 175.0], [0.07, 110.0 / 175.0], [0.08, 88.0 / 175.0]],
            },
            Published::T2v14b => Self {
                input: Input::Modulation,
                polynomial: &[-3.033_187_25e5, 4.905_370_29e4, -2.655_305_56e3, 5.873_651_15e1, -3.155_835_25e-1],
                threshold: 0.20,
                ends: [5, 0],
                published: OF_14B,
            },
            Published::Ti2v5b => Self {
                input: Input::Embedding,
                polynomial: &[1.574_726_69e5, -1.157_023_95e5, 3.107_616_69e4, -3.831_166_51e3, 2.216_087_77e2, -4.811_795_67],
                threshold: 0.26,
                ends: [1, 1],
                published: OF_14B,
            },
            Published::T2vA14b => return None,
        })
    }

    /// The polynomial at a relative change.
    pub(super) fn at(&self, change: f64) -> f64 {
        self.polynomial.iter().fold(0.0, |sum, coefficient| sum * change + coefficient)
    }

    /// The share of steps that were computed with this threshold, by what was published; between those in a line, beyond the last as it.
    pub(super) fn published_share(&self, threshold: f64) -> f64 {
        share_between(self.published, threshold)
    }
}

/// How much each of `conditions`, what timesteps become in their order, differs from the one before, over how much there is of that: of the first nothing.
///
/// # Shapes
/// `[timesteps, channels]`, in fp32.
///
/// # Errors
/// libtorch's.
pub(crate) fn changes(conditions: &Tensor) -> Result<Vec<f64>> {
    let conditions = conditions.f_unbind(0)?;
    let changes = conditions.windows(2).map(|pair| Ok(size(&pair[1].f_sub(&pair[0])?)? / size(&pair[0])?));
    [Ok(0.0)].into_iter().chain(changes).collect()
}

/// The sum of absolute values, which is read from the device.
///
/// # Errors
/// libtorch's.
pub(super) fn size(x: &Tensor) -> Result<f64> {
    Ok(x.f_abs()?.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// What lies at `x` between points in the order of their first number.
pub(super) fn share_between(points: &[[f64; 2]], x: f64) -> f64 {
    let after = points.iter().position(|[at, _]| *at >= x);
    match after {
        None => points.last().map_or(1.0, |[_, share]| *share),
        Some(0) => points[0][1],
        Some(after) => {
            let ([x0, y0], [x1, y1]) = (points[after - 1], points[after]);
            y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        }
    }
}
