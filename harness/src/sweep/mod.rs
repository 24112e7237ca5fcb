//! Sweeps: what a definition says, the cases that it means, and running them.

mod definition;
mod expand;
mod forecast;
mod schedule;
pub(crate) mod schema;

pub(crate) use definition::Definition;
pub(crate) use expand::{Case, Rules, expand, resolve_one};
pub(crate) use forecast::Forecast;
pub(crate) use schedule::{Limits, Schedule};
