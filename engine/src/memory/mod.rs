//! Where weights live and how they get to the device: the memory levels, kept out of the models. Components say what they want; nothing here knows which they are.

mod file_ring;
mod hiding;
mod host_prediction;
mod pinned_ring;
mod plan;
mod prediction;
mod ranks;
mod readers;
mod residency;
mod settle;
mod shards;
mod staging;

pub(crate) use file_ring::PART_BYTES;
pub use host_prediction::{predict_host, predict_host_of};
pub use pinned_ring::PageLocking;
pub use plan::{Place, Plan, Waits};
pub use prediction::{predict, predict_from};
pub use ranks::predict_ranks;
pub(crate) use readers::READERS;
pub use residency::{Residency, Traffic, WithRanks};
pub use settle::{Room, settle};
