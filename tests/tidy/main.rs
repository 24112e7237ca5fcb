//! The invariants of docs/architecture.md, held against the tree.

mod arrows;
mod files;
mod tree;
mod work_kinds;
