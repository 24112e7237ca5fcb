//! The invariants of docs/architecture.md, held against the tree.

mod arrows;
mod circles;
mod files;
mod tree;
mod work_kinds;
