//! Context parallelism: the token sequence of one video in parts, a rank each, and cond and uncond on two groups of ranks.
//!
//! A model computes its own part of the sequence as if it were all. What it must ask for is here: which part that is ([`Sequence::shard`]), self-attention over the keys of
//! all ranks ([`Sequence::keys`]), and the parts put together at the end ([`Sequence::whole`]). One rank alone holds all, and nothing is copied.

mod attention;
mod footprint;
mod ranks;
mod sequence;
mod shard;
mod shares;

pub use attention::SequenceKeys;
pub use footprint::RankAttention;
pub use ranks::Ranks;
pub use sequence::Sequence;
pub use shard::Shard;
pub use shares::{Part, Shares};
