//! Caches of sampler steps (FlexCache): which steps leave out transformer blocks (`steps`), and what those add in their place (`pass`), kept on the GPU or on
//! the host (`kept`).
//!
//! A cache never knows the transformer: it is told of the hidden state before the blocks, after a block and after all of them
//! ([`crate::transformer::PassCache`]), and changes it there.
//!
//! Note: what is kept of a hidden state of `[batch, tokens, dim]` costs as much as that state, 0.72 GiB for 14B at 1280x720 in bf16, for each of the two passes of
//! guidance. It takes one tensor, not two: the input is written there with its sign turned before the blocks, and the output is added to it after them.

mod kept;
mod magcache;
mod meancache;
mod pass;
mod steps;
mod teacache;
mod velocity;

pub use kept::{CacheSize, kept_between_steps};
pub use pass::{Pass, StepCache};
pub use steps::{Turn, Turns, check};
pub(crate) use steps::{asks_for_modulations, turns};
pub(crate) use teacache::changes;
pub use velocity::Velocity;
