//! The timestep of a pass: one for all tokens, but for those of frames that are given, which have no noise in them.

/// At which timestep the transformer predicts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timestep {
    /// That of all tokens that are to be denoised.
    pub value: f64,
    /// Latent frames at the start that are given, and so at timestep 0.
    pub given_frames: i64,
}

impl From<f64> for Timestep {
    /// The same for all tokens.
    fn from(value: f64) -> Self {
        Self { value, given_frames: 0 }
    }
}

/// A value for each token, of which there are two at most: one for the first tokens, whose frames are given, and one for all others.
#[derive(Debug)]
pub(super) struct ByToken<T> {
    given: Option<(i64, T)>,
    rest: T,
}

impl<T> ByToken<T> {
    /// The same for all.
    pub(super) fn all(rest: T) -> Self {
        Self { given: None, rest }
    }

    /// `first` for so many of these tokens, then `rest`.
    pub(super) fn new(given: i64, first: T, rest: T) -> Self {
        Self { given: Some((given, first)), rest }
    }

    /// Those of `length` tokens from `start` on: start and length of those that have one, and which.
    pub(super) fn over(&self, (start, length): (i64, i64)) -> impl Iterator<Item = ((i64, i64), &T)> {
        let end = start + length;
        let change = self.given.as_ref().map_or(start, |(tokens, _)| (*tokens).clamp(start, end));
        let given = self.given.iter().map(move |(_, value)| ((start, change - start), value));
        given.chain([((change, end - change), &self.rest)]).filter(|((_, length), _)| *length > 0)
    }

    /// The value of all tokens, where all have the same.
    pub(super) fn only(&self) -> Option<&T> {
        self.given.is_none().then_some(&self.rest)
    }

    /// What `make` makes of each value.
    pub(super) fn map<U, E>(&self, make: impl Fn(&T) -> Result<U, E>) -> Result<ByToken<U>, E> {
        let given = self.given.as_ref().map(|(tokens, value)| Ok((*tokens, make(value)?))).transpose()?;
        Ok(ByToken { given, rest: make(&self.rest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_value_of_their_frame() {
        let by_token = ByToken::new(4, 'g', 'r');
        let over = |span| by_token.over(span).map(|(span, value)| (span, *value)).collect::<Vec<_>>();
        assert_eq!(over((0, 3)), [((0, 3), 'g')]);
        assert_eq!(over((3, 3)), [((3, 1), 'g'), ((4, 2), 'r')]);
        assert_eq!(over((1, 3)), [((1, 3), 'g')]);
        assert_eq!(over((4, 3)), [((4, 3), 'r')]);
        assert_eq!(ByToken::all('a').over((2, 5)).collect::<Vec<_>>(), [((2, 5), &'a')]);
        assert_eq!((by_token.only(), ByToken::all('a').only()), (None, Some(&'a')));
    }
}
