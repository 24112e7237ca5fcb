//! The segments of a snapshot: what the allocator held from the driver at the end, and which parts of it were in use.

use std::cmp::Reverse;

/// Segments that are told of by themselves.
const LARGEST: usize = 32;
/// Parts that a segment is looked at in.
const CELLS: usize = 64;

/// A block: what was asked for, what it takes, and whether it is in use.
pub(super) type Block = (i64, i64, bool);

/// What there is at the end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) reserved: i64,
    pub(super) used: i64,
    pub(super) asked: i64,
    pub(super) split_blocks: u64,
    pub(super) split_bytes: i64,
    pub(super) count: u64,
    segments: Vec<Segment>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    /// Its place among all segments, counted from 1.
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) used_bytes: u64,
    /// Blocks that are not in use.
    pub(crate) unused_blocks: u64,
    pub(crate) largest_unused_bytes: u64,
    /// Of parts of equal length, how much of each is in use: 0 to 100.
    pub(crate) cells: Vec<u8>,
}

impl Ending {
    pub(super) fn add(&mut self, bytes: i64, blocks: &[Block]) {
        self.reserved = self.reserved.saturating_add(bytes);
        self.count += 1;
        let is_split = blocks.iter().any(|(.., is_used)| *is_used);
        for (asked, bytes, is_used) in blocks {
            if *is_used {
                self.used = self.used.saturating_add(*bytes);
                self.asked = self.asked.saturating_add(*asked);
            } else if is_split {
                self.split_blocks += 1;
                self.split_bytes = self.split_bytes.saturating_add(*bytes);
            }
        }
        self.segments.push(Segment::of(self.count, bytes, blocks));
        // Room for twice as many, so that they are rarely sorted.
        if self.segments.len() >= 2 * LARGEST {
            self.keep_largest();
        }
    }

    fn keep_largest(&mut self) {
        self.segments.sort_by_key(|segment| (Reverse(segment.bytes), segment.number));
        self.segments.truncate(LARGEST);
    }

    /// The largest segments, the largest first.
    pub(super) fn largest(mut self) -> Vec<Segment> {
        self.keep_largest();
        self.segments
    }
}

impl Segment {
    fn of(number: u64, bytes: i64, blocks: &[Block]) -> Self {
        let unsigned = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        let unused = blocks.iter().filter(|(.., is_used)| !is_used).map(|(_, bytes, _)| unsigned(*bytes));
        let sum = |used: bool| {
            blocks.iter().filter(|(.., is_used)| *is_used == used).fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(unsigned(*bytes)))
        };
        Self {
            number,
            bytes: unsigned(bytes),
            used_bytes: sum(true),
            unused_blocks: unused.clone().count() as u64,
            largest_unused_bytes: unused.max().unwrap_or(0),
            cells: cells(unsigned(bytes), blocks),
        }
    }
}

/// How much of each part is in use. Blocks stand in the order of their addresses, without gaps.
fn cells(bytes: u64, blocks: &[Block]) -> Vec<u8> {
    let length = (bytes as f64 / CELLS as f64).max(1.0);
    let mut used = [0.0_f64; CELLS];
    let mut at = 0.0;
    for (_, bytes, is_used) in blocks {
        let end = at + (*bytes).max(0) as f64;
        let last = ((end / length).ceil() as usize).min(CELLS);
        for (cell, share) in used.iter_mut().enumerate().take(last).skip((at / length) as usize).filter(|_| *is_used) {
            let from = at.max(cell as f64 * length);
            *share += ((end.min((cell + 1) as f64 * length) - from) / length).max(0.0);
        }
        at = end;
    }
    used.map(|share| (share.min(1.0) * 100.0).round() as u8).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_used_as_far_as_their_blocks_are() {
        let half = Segment::of(1, 6400, &[(3200, 3200, true), (0, 3200, false)]);
        assert_eq!((half.used_bytes, half.unused_blocks, half.largest_unused_bytes), (3200, 1, 3200));
        assert_eq!(half.cells, [[100; 32], [0; 32]].concat());
        assert_eq!(Segment::of(1, 6400, &[(0, 50, false), (150, 150, true)]).cells[..3], [50, 100, 0]);
        // What cannot be does no harm.
        assert_eq!(Segment::of(1, -5, &[(0, i64::MAX, true), (0, -7, true)]).cells.len(), CELLS);
    }

    #[test]
    fn the_largest_segments_are_kept() {
        let mut ending = Ending::default();
        (1..=1000).for_each(|bytes| ending.add(bytes, &[]));
        assert_eq!(ending.count, 1000);
        assert_eq!(ending.largest().iter().map(|segment| segment.bytes).collect::<Vec<_>>(), (969..=1000).rev().collect::<Vec<_>>());
    }
}
