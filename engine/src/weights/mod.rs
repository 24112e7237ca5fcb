//! Weights: which tensors a model has, in which groups they move, and where their values come from.

mod bound;
pub mod fp8;
mod group;
mod mapped;
mod pickle;
mod pth;
mod safetensors;
mod source;
mod store;

pub use bound::Weights;
pub use group::{Group, GroupLayout, Groups, Param, Precision, WeightTypes};
pub use mapped::StoredTensor;
pub(crate) use source::check_stored;
pub use source::{Source, kind_of};
pub use store::TensorStore;
