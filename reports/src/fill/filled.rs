//! What comes of filling: the text, and places that no run covers, with what would fill them.

use schemars::JsonSchema;
use serde::Serialize;

/// A document that was filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// Its text.
    pub text: String,
    /// How many places were filled.
    pub places: usize,
    /// Places that no run covers.
    pub open: Vec<Open>,
}

/// A place that stays open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Open {
    /// The line, from 1.
    pub line: usize,
    /// What is open: `Memory Comparison: level 1, VRAM`.
    pub what: String,
    /// The command whose run would fill it.
    pub command: String,
}

impl Open {
    /// One that a sweep of these words fills.
    pub(super) fn new(line: usize, what: &str, words: &str) -> Self {
        Self { line: line + 1, what: untrusted::line(what), command: format!("lowmem sweep hardware {words}") }
    }
}
