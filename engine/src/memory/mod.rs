//! Where weights live and how they get to the device: the memory levels, kept out of the models.

mod hiding;
mod host_slab;
mod plan;
mod prediction;
mod residency;
mod settle;
mod staging;

pub use plan::{Place, Plan, Waits};
pub use prediction::{predict, predict_from};
pub use residency::Residency;
pub use settle::{Room, settle};
