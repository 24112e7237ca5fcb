//! Sweeps: what a definition says, the cases that it means, and running them.

mod definition;
mod estimate;
mod expand;
mod forecast;
mod rehearsal;
mod same_kernel;
mod schedule;
pub(crate) mod schema;
mod shared_steps;

pub(crate) use definition::Definition;
pub(crate) use estimate::sentences as estimate;
pub(crate) use expand::{Case, Rules, expand, resolve_one};
pub(crate) use rehearsal::rehearse;
pub(crate) use same_kernel::run_once;
pub(crate) use schedule::{Limits, Schedule};
pub(crate) use shared_steps::SharedSteps;
