//! Finding the best memory level for a budget.

mod search;
mod search_space;
mod under_ram;

pub(crate) use search::{Answer, Objective, Search};
pub(crate) use search_space::candidates;
pub(crate) use under_ram::{UnderRam, under_ram};
