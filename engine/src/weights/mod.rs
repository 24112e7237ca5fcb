//! Weights: which tensors a model has, in which groups they move, and where their values come from. Where they live is `memory`'s.

mod archive;
mod beside;
pub mod blocks;
mod bound;
mod changes;
mod fp8;
pub(crate) mod gguf;
mod group;
mod mapped;
mod name;
pub mod packing;
mod parts;
mod pickle;
pub mod products;
mod pth;
mod safetensors;
mod scales;
mod shared;
mod source;
mod store;
mod types;
mod waiting;

pub use bound::{Groups, Weights};
pub use changes::{Change, Difference};
pub use group::{Group, GroupLayout, GroupWork, Param};
pub(crate) use mapped::AGAIN;
pub use mapped::StoredTensor;
pub use name::{GroupName, LeftOut};
pub use parts::GroupParts;
pub use shared::shared;
pub use source::Source;
pub(crate) use source::check_stored;
pub use store::TensorStore;
pub(crate) use types::bytes_of;
pub use types::{Precision, WeightTypes, kind_of};
pub use waiting::WaitingGroup;
