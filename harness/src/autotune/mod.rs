//! Finding the best settings for a budget: `search_space` says what there is, `predicted` what may fit, `search` runs that, and `answers` judges what ran;
//! `lossy` is tried upon the fastest where that is allowed; `quick` runs the first that fits and no other.

mod answers;
mod lossy;
mod predicted;
mod quick;
mod search;
mod search_space;
mod variant;
mod would_fit;

pub(crate) use answers::{Answers, Objective, Rule, rule_in_words};
pub(crate) use lossy::faster_and_lossy;
pub(crate) use predicted::{Need, Predicted, least_ram, of_best_splits, predicted, smallest};
pub(crate) use quick::{Quick, QuickAnswer};
pub(crate) use search::Search;
pub(crate) use search_space::ladders;
pub(crate) use would_fit::{WouldFit, would_fit};
