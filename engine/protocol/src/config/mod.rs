//! The configuration of a case: settings as people give them, made complete by the memory level and checked.
//!
//! `table.rs` has every flag; begin there.

mod flag;
mod lower;
mod resolve;
mod settings;
mod table;
mod tell;
mod value;
mod words;

pub use flag::{At, Flag, Group, Results, told};
pub use resolve::{ConfigError, PARTS_OF_A_BLOCK};
pub use settings::{flag, flattened, parse_setting, parse_values, setting_text, short_key};
pub use table::{Config, FLAGS, Settings};
pub use value::{FlagValue, Kind};
pub use words::{
    Allocator, AttnType, Dtype, Flexcache, OffloadTextEncoder, OnOom, ResidentBlocks, Resolution, Sampler, StreamFrom, WeightDtype,
};
