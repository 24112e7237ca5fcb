//! The configuration of a case: settings as people give them, made complete by the memory level and checked.
//!
//! `table.rs` has every flag; begin there.

mod choice;
mod effect;
mod error;
mod flag;
mod flexcache;
mod lower;
mod resolve;
mod settings;
mod split;
mod table;
mod tell;

pub use error::ConfigError;
pub use flag::{At, FlagOf, Group, Results};
pub use flexcache::{FRESH_STEPS_OF_50, Published};
pub use resolve::PARTS_OF_A_BLOCK;
pub use settings::{flag, flattened, parse_setting, parse_values, setting_text, under_flexcache};
pub use split::Split;
pub use table::{Config, FLAGS, Flag, MOST_GPUS, Settings};
