//! Where weights live and how they get to the device: the memory levels, kept out of the models.

mod plan;
mod prediction;
mod residency;
mod staging;

pub use plan::{Place, Plan};
pub use prediction::predict;
pub use residency::Residency;
