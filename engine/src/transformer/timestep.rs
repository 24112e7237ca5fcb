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
    change: Option<i64>,
}

impl<T> ByToken<T> {
    /// The same for all.
    pub(super) fn all(rest: T) -> Self {
        Self { given: None, rest, change: None }
    }

    /// `first` for so many of these tokens, then `rest`; here or on another rank it changes at token `change`.
    pub(super) fn new(given: i64, change: i64, first: T, rest: T) -> Self {
        Self { given: Some((given, first)), rest, change: Some(change) }
    }

    /// That of the tokens from `start` on, up to where it changes.
    pub(super) fn at(&self, start: i64) -> &T {
        match &self.given {
            Some((tokens, value)) if start < *tokens => value,
            _ => &self.rest,
        }
    }

    /// The token at which it changes, where it does, be it on another rank: all cut their slices there.
    pub(super) fn change(&self) -> Option<i64> {
        self.change
    }

    /// What `make` makes of each value.
    pub(super) fn map<U, E>(&self, make: impl Fn(&T) -> Result<U, E>) -> Result<ByToken<U>, E> {
        let given = self.given.as_ref().map(|(tokens, value)| Ok((*tokens, make(value)?))).transpose()?;
        Ok(ByToken { given, rest: make(&self.rest)?, change: self.change })
    }
}
