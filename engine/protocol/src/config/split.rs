//! How a video is split over ranks, a GPU each.

use std::fmt;

use crate::flag_values::AttnType;

/// How a video is split over ranks: cond and uncond on two groups of them or not, and in each group the token sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Groups of ranks for the predictions of guidance: 1 or 2.
    pub cfg_size: u32,
    /// Ranks that exchange heads for tokens.
    pub cp_ulysses: u32,
    /// Ranks that pass keys and values on.
    pub cp_ring: u32,
}

impl Split {
    /// No split.
    pub const ONE: Self = Self { cfg_size: 1, cp_ulysses: 1, cp_ring: 1 };

    /// Parts of the token sequence.
    pub fn cp_size(self) -> u32 {
        self.cp_ulysses * self.cp_ring
    }

    /// Ranks in all.
    pub fn ranks(self) -> u32 {
        self.cfg_size * self.cp_size()
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cfg_size={} cp_ulysses={} cp_ring={}", self.cfg_size, self.cp_ulysses, self.cp_ring)
    }
}

impl AttnType {
    /// Those that keep a sum of each row of scores, by which attention over some of the keys at a time is merged: what a ring needs.
    pub const IN_PARTS: [Self; 3] = [Self::Sdpa, Self::Flash, Self::MemEfficient];
}
