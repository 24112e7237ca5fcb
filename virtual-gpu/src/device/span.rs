//! Times of the virtual clock: seconds, in three worlds at once.
//!
//! What a piece of work takes is known no closer than between two ends. So each clock runs three times over: in a world where everything takes as little
//! as it may, in the likely one, and in one where everything takes as long as it may. Each is a possible course of events by itself.

use std::ops::{Add, AddAssign, Mul, Sub};

/// Seconds in the quick, the likely and the slow world.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Span(pub [f64; 3]);

impl Span {
    /// The likely one.
    pub fn expected(self) -> f64 {
        self.0[1]
    }

    /// In each world the later of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.with(other, f64::max)
    }

    /// In rising order: what lies between two moments need not be least in the quick world.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(f64::total_cmp);
        self
    }

    fn with(self, other: Self, operation: impl Fn(f64, f64) -> f64) -> Self {
        Self(std::array::from_fn(|world| operation(self.0[world], other.0[world])))
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, Add::add)
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Span {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, Sub::sub)
    }
}

impl Mul<f64> for Span {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self(self.0.map(|secs| secs * times))
    }
}
