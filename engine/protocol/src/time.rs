//! Times: measured ones, and modelled ones, which are known no closer than between two ends.

use std::iter::Sum;
use std::ops::{Add, Mul, Sub};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds. Of a measured time all three are the same.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Secs {
    /// No less than this.
    pub low: f64,
    /// The most likely.
    pub expected: f64,
    /// No more than this.
    pub high: f64,
}

impl Secs {
    /// A time that is known.
    pub fn measured(secs: f64) -> Self {
        Self { low: secs, expected: secs, high: secs }
    }

    /// The later of both, end by end.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), expected: self.expected.max(other.expected), high: self.high.max(other.high) }
    }

    /// With the least of the three first: what is left of a time need not be least where it was least.
    #[must_use]
    pub fn in_order(self) -> Self {
        let mut all = [self.low, self.expected, self.high];
        all.sort_by(f64::total_cmp);
        let [low, expected, high] = all;
        Self { low, expected, high }
    }

    /// Whether it is known no closer than between two ends.
    pub fn is_interval(self) -> bool {
        self.low < self.high
    }
}

impl Add for Secs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { low: self.low + other.low, expected: self.expected + other.expected, high: self.high + other.high }
    }
}

impl Sub for Secs {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { low: self.low - other.low, expected: self.expected - other.expected, high: self.high - other.high }
    }
}

impl Mul<f64> for Secs {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { low: self.low * times, expected: self.expected * times, high: self.high * times }
    }
}

impl Sum for Secs {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), Add::add)
    }
}

/// What the GPU was asked for in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StageWork {
    /// Multiplications and additions of matrix products, convolutions and attention.
    pub operations: f64,
    /// Bytes that all operations read and write of its memory.
    pub bytes: f64,
}

/// How long a stage took, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageTime {
    /// From its first to its last moment on the device.
    pub secs: Secs,
    /// How long arithmetic stood still in it because a copy had not arrived; empty on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_stall: Option<Secs>,
    /// How long it stood still in it while ranks sent each other what they need; empty where there is one, and on the CPU. Where nobody knows `waiting`, that is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Secs>,
    /// How long it stood still in it since another rank was not there yet to exchange with; empty where there is one, and but on the virtual GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Secs>,
    /// What the GPU did meanwhile; empty on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<StageWork>,
}
