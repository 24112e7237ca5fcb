//! What flags take: numbers, switches, texts, and words with a meaning each.
//!
//! Nothing here knows which flags there are.

mod sigmas;
mod value;
mod words;

pub use sigmas::Sigmas;
pub(crate) use value::text;
pub use value::{FlagValue, Kind, told};
pub use words::{
    Allocator, AttnType, CpSplit, Dtype, Flexcache, FlexcacheOffload, Fused, LinearDtype, LoadWeights, OffloadTextEncoder, OnOom,
    PinnedMemory, ResidentBlocks, Resolution, Sampler, StepsMeasured, StreamFrom, WeightDtype,
};
