//! Groups in parts: each of some ranks holds one on its device, and all of them gather a group before it is used.
//!
//! Note: who gathers with whom, and in which order.
//! Those that have the parts of one token sequence: they go through the same groups at the same time, and where a cache leaves some out, one decides for all of them. What is on its
//! way follows from the order of groups alone, so all ask for the same ones in the same order. They do so by a communicator of its own, in the stream of copies, that
//! gathering and what is exchanged in the stream of arithmetic do not wait for each other.

use tch::Tensor;

use crate::collectives::Group;
use crate::cuda::CopyStream;
use crate::error::Result;

/// Parts begin at a multiple of so many bytes, as tensors do in a slab.
const ALIGNMENT: i64 = 256;

/// Bytes of the largest part of a group of so many, which is the first rank's.
pub(super) fn part_bytes(bytes: i64, ranks: u32) -> i64 {
    (bytes as u64).div_ceil(ALIGNMENT as u64).div_ceil(ranks.into()) as i64 * ALIGNMENT
}

/// Where each rank's part of a group of `bytes` begins, and its bytes: the last ones may be smaller, or nothing.
fn parts(bytes: i64, ranks: usize) -> impl Iterator<Item = (i64, i64)> {
    let each = part_bytes(bytes, ranks as u32);
    (0..ranks as i64).map(move |rank| {
        let begin = (rank * each).min(bytes);
        (begin, each.min(bytes - begin))
    })
}

/// The ranks, as one of them sees them.
#[derive(Debug, Clone)]
pub(super) struct Shards(Group);

impl Shards {
    pub(super) fn among(ranks: &Group) -> Self {
        Self(ranks.clone())
    }

    /// This rank's part of a group in `whole`, which is all of it.
    pub(super) fn own(&self, whole: &Tensor) -> Result<Tensor> {
        Ok(self.places(whole)?.swap_remove(self.0.rank()))
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.0.size()
    }

    /// Puts the parts of all ranks into `whole`, where this one's own is already: on a GPU in that stream.
    pub(super) fn gather(&self, whole: &Tensor, copies: Option<&mut CopyStream>) -> Result<()> {
        self.0.gather_into(&self.places(whole)?, copies)
    }

    fn places(&self, whole: &Tensor) -> Result<Vec<Tensor>> {
        parts(whole.size()[0], self.0.size()).map(|(begin, bytes)| Ok(whole.f_narrow(0, begin, bytes)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_the_first_is_the_largest() {
        for (bytes, ranks) in [(256, 1), (256, 3), (256 * 7, 2), (256 * 7, 5), (256 * 100, 8)] {
            let all: Vec<_> = parts(bytes, ranks).collect();
            let mut end = 0;
            for (begin, length) in &all {
                assert_eq!((*begin, *length >= 0), (end, true));
                end += length;
            }
            assert_eq!((end, all[0].1), (bytes, part_bytes(bytes, ranks as u32)));
        }
    }
}
