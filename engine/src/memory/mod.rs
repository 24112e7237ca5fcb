//! Where weights live and how they get to the device: the memory levels, kept out of the models. Components say what they want; nothing here knows which they are.

mod hiding;
mod pinned_ring;
mod plan;
mod prediction;
mod residency;
mod settle;
mod staging;

pub use plan::{Place, Plan, Waits};
pub use prediction::{predict, predict_from};
pub use residency::Residency;
pub use settle::{Room, settle};
