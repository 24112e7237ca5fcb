//! Sweeps: what a definition says, the cases that it means, and running them.

mod alike;
mod definition;
mod estimate;
mod expand;
mod forecast;
mod key;
mod preparation;
mod rehearsal;
mod same_kernel;
mod schedule;
pub(crate) mod schema;
mod shard;
mod shared_steps;
mod testbeds;
mod written;

pub(crate) use alike::{OF_DECODE, text_without};
pub(crate) use definition::Definition;
pub(crate) use expand::{Case, Expanded, Rules, expand, resolve};
pub(crate) use key::GPU;
pub(crate) use preparation::prepare;
pub(crate) use same_kernel::run_once;
pub(crate) use schedule::{Limits, Schedule};
pub(crate) use shard::Shard;
pub(crate) use testbeds::Testbeds;
