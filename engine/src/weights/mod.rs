//! Weights: which tensors a model has, in which groups they move, and where their values come from.

mod bound;
mod group;
mod source;

pub use bound::Weights;
pub use group::{Group, GroupLayout, Groups, Param, Precision};
pub use source::{Source, kind_of};
