//! Finding the best memory level for a budget.

mod search;
mod search_space;

pub(crate) use search::{Answer, Search};
pub(crate) use search_space::candidates;
