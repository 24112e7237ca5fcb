//! One rank's part of a sequence: as long as all others, so that the last ones may have padding at their ends.

use tch::Tensor;

use crate::error::Result;

/// A part of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Tokens of the whole sequence.
    pub tokens: i64,
    /// In how many parts it is.
    pub parts: i64,
    /// Which one this is, from 0.
    pub part: i64,
}

impl Shard {
    /// Tokens of each part, padding included.
    pub fn length(self) -> i64 {
        (self.tokens + self.parts - 1) / self.parts
    }

    /// How many of the `length` tokens from `start` on are within the whole sequence: what is not is padding.
    pub fn real_from(self, start: i64, length: i64) -> i64 {
        (self.tokens - start).clamp(0, length)
    }

    /// How many tokens of this part are no padding.
    pub fn real(self) -> i64 {
        self.real_from(self.part * self.length(), self.length())
    }

    /// How many of the whole sequence's first `tokens` are in this part.
    pub fn of_first(self, tokens: i64) -> i64 {
        (tokens - self.part * self.length()).clamp(0, self.length())
    }

    /// Where the part of some rank is cut by a change after the whole sequence's first `tokens`. All ranks cut there, so that they go in step.
    pub fn cut_at(self, tokens: i64) -> i64 {
        tokens % self.length()
    }

    /// This part of `x`, which has the whole sequence along `axis`; padding is zeros. All of it is `x` itself.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(self, x: Tensor, axis: usize) -> Result<Tensor> {
        if self.parts == 1 {
            return Ok(x);
        }
        let mut shape = x.size();
        shape[axis] = self.length();
        let part = x.f_new_zeros(shape.as_slice(), (x.kind(), x.device()))?;
        let (axis, real) = (axis as i64, self.real());
        if real > 0 {
            part.f_narrow(axis, 0, real)?.f_copy_(&x.f_narrow(axis, self.part * self.length(), real)?)?;
        }
        Ok(part)
    }

    /// This part of a hidden state, `[B, length, dim]`, without its padding: a view.
    ///
    /// # Errors
    /// libtorch's.
    pub fn without_padding(self, hidden: &Tensor) -> Result<Tensor> {
        if self.real() == self.length() { Ok(hidden.shallow_clone()) } else { Ok(hidden.f_narrow(1, 0, self.real())?) }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn shards(tokens: i64, parts: i64) -> impl Iterator<Item = Shard> {
        (0..parts).map(move |part| Shard { tokens, parts, part })
    }

    #[test]
    fn parts_are_alike_and_cover_the_sequence_once() {
        for (tokens, parts) in [(8, 1), (8, 2), (7, 2), (5, 4), (3, 2)] {
            let x = Tensor::arange(tokens, (Kind::Float, Device::Cpu)).view([1, tokens, 1]);
            let cut: Vec<Tensor> = shards(tokens, parts).map(|shard| shard.of(x.shallow_clone(), 1).unwrap()).collect();
            assert!(
                cut.iter().zip(shards(tokens, parts)).all(|(part, shard)| part.size() == [1, shard.length(), 1]),
                "{tokens} in {parts}"
            );
            assert_eq!(Tensor::cat(&cut, 1).narrow(1, 0, tokens), x, "{tokens} in {parts}");
            let real: i64 = shards(tokens, parts).map(Shard::real).sum();
            assert_eq!(real, tokens);
        }
        assert_eq!(shards(5, 4).map(Shard::real).collect::<Vec<_>>(), [2, 2, 1, 0]);
    }

    #[test]
    fn a_change_within_one_part_cuts_all() {
        let of_first: Vec<i64> = shards(8, 2).map(|shard| shard.of_first(6)).collect();
        let cuts: Vec<i64> = shards(8, 2).map(|shard| shard.cut_at(6)).collect();
        assert_eq!((of_first, cuts), (vec![4, 2], vec![2, 2]));
    }
}
