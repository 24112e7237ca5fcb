//! Where weights live and how they get to the device: the memory levels, kept out of the models. Components say what they want; nothing here knows which they are.

mod hiding;
mod host_prediction;
mod pinned_ring;
mod plan;
mod prediction;
mod residency;
mod settle;
mod staging;

pub use host_prediction::predict_host;
pub use plan::{Place, Plan, Waits};
pub use prediction::{predict, predict_from};
pub use residency::{Residency, Traffic};
pub use settle::{Room, settle};
