//! Sweeps: what a definition says, the cases that it means, and running them.

mod definition;
mod expand;
mod forecast;
mod rehearsal;
mod schedule;
pub(crate) mod schema;

pub(crate) use definition::Definition;
pub(crate) use expand::{Case, Rules, expand, resolve_one};
pub(crate) use rehearsal::rehearse;
pub(crate) use schedule::{Limits, Schedule};
