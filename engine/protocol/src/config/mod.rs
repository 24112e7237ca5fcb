//! The configuration of a case: settings as people give them, made complete by the memory level and checked.

mod effect;
mod flags;
mod lower;
mod resolve;
mod settings;

pub use flags::{Allocator, AttnType, Dtype, OffloadTextEncoder, OnOom, ResidentBlocks, Sampler, StreamFrom, WeightDtype};
pub use resolve::{Config, ConfigError, PARTS_OF_A_BLOCK};
pub use settings::{LONG_SPELLINGS, Settings, parse_resolution, parse_setting, setting_names, short_key};
