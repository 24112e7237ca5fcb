//! Slices of the token sequence: everything but keys and values needs only some tokens at a time.

use tch::Tensor;

use crate::error::Result;

/// Which dimension of a hidden state counts tokens.
const TOKENS: i64 = 1;

/// Start and length of each slice of at most `chunk` out of so many tokens, or heads; one slice of all where `chunk` is nothing.
pub(super) fn slices(all: i64, chunk: Option<i64>) -> impl Iterator<Item = (i64, i64)> {
    let length = chunk.unwrap_or(all).max(1);
    (0..all).step_by(length as usize).map(move |start| (start, length.min(all - start)))
}

/// The tokens from `start` on, a view.
///
/// # Errors
/// libtorch's.
pub(super) fn slice(x: &Tensor, start: i64, length: i64) -> Result<Tensor> {
    Ok(x.f_narrow(TOKENS, start, length)?)
}

/// A sequence put together from its slices, without a copy where there is only one.
#[derive(Debug)]
pub(super) struct Gathered {
    tokens: i64,
    whole: Option<Tensor>,
}

impl Gathered {
    /// Of `tokens` tokens, none of them there yet.
    pub(super) fn new(tokens: i64) -> Self {
        Self { tokens, whole: None }
    }

    /// Where the slice that begins at `start` and is like `part` belongs, for it to be made there; nothing where it is all of the sequence, or does not lie whole.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn place(&mut self, start: i64, part: &Tensor) -> Result<Option<Tensor>> {
        let size = part.size();
        if size[0] > 1 || size[TOKENS as usize] == self.tokens {
            return Ok(None);
        }
        Ok(Some(slice(self.room(part)?, start, size[TOKENS as usize])?))
    }

    /// Room for all, of numbers like those of `part`.
    fn room(&mut self, part: &Tensor) -> Result<&Tensor> {
        let whole = match self.whole.take() {
            Some(whole) => whole,
            None => {
                let mut shape = part.size();
                shape[TOKENS as usize] = self.tokens;
                part.f_new_empty(shape.as_slice(), (part.kind(), part.device()))?
            }
        };
        Ok(self.whole.insert(whole))
    }

    /// Puts in the slice that begins at `start`. One that was made in its place is not copied.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn put(&mut self, start: i64, part: Tensor) -> Result<()> {
        let length = part.size()[TOKENS as usize];
        if length == self.tokens {
            self.whole = Some(part);
            return Ok(());
        }
        let mut place = slice(self.room(&part)?, start, length)?;
        if place.data_ptr() != part.data_ptr() {
            place.f_copy_(&part)?;
        }
        Ok(())
    }

    /// The sequence.
    ///
    /// # Panics
    /// When nothing was put in: a sequence has at least one token.
    pub(super) fn whole(self) -> Tensor {
        self.whole.expect("a sequence has at least one slice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn slices_cover_all_tokens_once() {
        assert_eq!(slices(7, Some(3)).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(slices(7, None).collect::<Vec<_>>(), [(0, 7)]);
        assert_eq!(slices(7, Some(9)).collect::<Vec<_>>(), [(0, 7)]);
    }

    #[test]
    fn what_is_made_in_its_place_is_not_copied() {
        let x = Tensor::rand([1, 7, 3], (Kind::Float, Device::Cpu));
        let mut gathered = Gathered::new(7);
        for (start, length) in slices(7, Some(3)) {
            let part = slice(&x, start, length).unwrap();
            let mut place = gathered.place(start, &part).unwrap().expect("some of the tokens of one video");
            place.copy_(&part);
            gathered.put(start, place).unwrap();
        }
        assert_eq!(gathered.whole(), x);
        assert!(Gathered::new(7).place(0, &x).unwrap().is_none(), "all of them need no place");
        assert!(Gathered::new(7).place(0, &Tensor::rand([2, 3, 3], (Kind::Float, Device::Cpu))).unwrap().is_none(), "two videos");
    }

    #[test]
    fn gathering_gives_back_what_was_cut() {
        let x = Tensor::rand([2, 7, 3], (Kind::Float, Device::Cpu));
        for chunk in [None, Some(3)] {
            let mut gathered = Gathered::new(7);
            for (start, length) in slices(7, chunk) {
                gathered.put(start, slice(&x, start, length).unwrap()).unwrap();
            }
            assert_eq!(gathered.whole(), x);
        }
    }
}
