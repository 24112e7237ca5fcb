//! A document's open places filled in from runs: those of a page with the headings of "Low Memory Mode".
//!
//! It goes by structure, titles of tables and labels of lines, and touches nothing else. What it writes is marked (`marks`), so that a filled document is taken back
//! first and the same runs give the same bytes again.

mod cards;
mod document;
mod filled;
mod levels;
mod marks;
mod meaning;
mod notes;
mod page;
#[cfg(test)]
mod tests;
mod use_cases;
mod videos;

pub use filled::{Filled, Open};

use crate::run::Run;

/// Fills the open places of a Markdown document from what the runs say. What was filled in before is filled anew.
pub fn fill(document: &str, runs: &[Run]) -> Filled {
    page::filled(&marks::taken_back(document), runs)
}
