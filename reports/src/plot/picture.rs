//! What each plot is once it is drawn.

use engine_protocol::RunRecord;

use super::files::Files;
use crate::error::Error;
use crate::sentences::source;

/// A plot of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// Its file's name, without the ending.
    pub name: &'static str,
    /// What it shows, in which unit, and where the figures come from.
    pub caption: String,
    /// The picture.
    pub files: Files,
}

impl Plot {
    /// A plot of that name, with a picture that was drawn, or was not.
    pub(super) fn new(name: &'static str, caption: String, drawn: Result<Files, String>) -> Result<Self, Error> {
        drawn.map(|files| Self { name, caption, files }).map_err(|message| Error::Plot { name, message })
    }
}

/// Where the figures of a run come from, in a word.
pub(super) fn source_of_all(records: &[RunRecord]) -> &'static str {
    records.first().map_or("not measured", source)
}
