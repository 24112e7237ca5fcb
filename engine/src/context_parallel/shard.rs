//! One rank's part of a sequence: as long as its share says, so that the last ones may have padding at their ends.

use tch::Tensor;

use super::shares::Part;
use crate::error::Result;

/// A part of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Tokens of the whole sequence.
    pub tokens: i64,
    /// Which part this is.
    pub part: Part,
}

impl Shard {
    /// Tokens of a unit, padding included.
    fn unit(self) -> i64 {
        (self.tokens + self.part.units - 1) / self.part.units
    }

    /// Tokens of this part, padding included.
    pub fn length(self) -> i64 {
        self.length_of(self.part.own)
    }

    /// Tokens of so many units, padding included.
    pub fn length_of(self, units: i64) -> i64 {
        units * self.unit()
    }

    /// Where it begins in the whole sequence.
    fn start(self) -> i64 {
        self.length_of(self.part.first)
    }

    /// How many of the `length` tokens from `start` on are within the whole sequence: what is not is padding.
    pub fn real_from(self, start: i64, length: i64) -> i64 {
        (self.tokens - start).clamp(0, length)
    }

    /// How many tokens of this part are no padding.
    pub fn real(self) -> i64 {
        self.real_from(self.start(), self.length())
    }

    /// How many of the whole sequence's first `tokens` are in this part.
    pub fn of_first(self, tokens: i64) -> i64 {
        (tokens - self.start()).clamp(0, self.length())
    }

    /// This part of `x`, which has the whole sequence along `axis`; padding is zeros. All of it is `x` itself.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(self, x: Tensor, axis: usize) -> Result<Tensor> {
        if self.part == Part::WHOLE {
            return Ok(x);
        }
        let mut shape = x.size();
        shape[axis] = self.length();
        let part = x.f_new_zeros(shape.as_slice(), (x.kind(), x.device()))?;
        let (axis, real) = (axis as i64, self.real());
        if real > 0 {
            part.f_narrow(axis, 0, real)?.f_copy_(&x.f_narrow(axis, self.start(), real)?)?;
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

    use super::super::shares::Shares;
    use super::*;

    fn shards(tokens: i64, parts: usize) -> impl Iterator<Item = Shard> {
        (0..parts).map(move |part| Shard { tokens, part: Shares::even(parts, 1).part(part) })
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
    fn parts_are_as_long_as_their_shares() {
        let shares = Shares::new(&[3, 1, 2], 1);
        let x = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([1, 16, 1]);
        let shards: Vec<Shard> = (0..3).map(|part| Shard { tokens: 16, part: shares.part(part) }).collect();
        assert_eq!(shards.iter().map(|shard| (shard.length(), shard.real())).collect::<Vec<_>>(), [(9, 9), (3, 3), (6, 4)]);
        let cut: Vec<Tensor> = shards.iter().map(|shard| shard.of(x.shallow_clone(), 1).unwrap()).collect();
        assert_eq!(Tensor::cat(&cut, 1).narrow(1, 0, 16), x);
    }

    #[test]
    fn the_first_tokens_are_in_the_first_parts() {
        assert_eq!(shards(8, 2).map(|shard| shard.of_first(6)).collect::<Vec<_>>(), [4, 2]);
    }
}
