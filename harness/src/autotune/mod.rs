//! Finding the best memory level for a budget.

mod search;
mod search_space;

pub(crate) use search::{Answer, Objective, Search};
pub(crate) use search_space::candidates;
