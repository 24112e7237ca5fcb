//! Configurations that are alike but for some flags.

use engine_protocol::Config;
use serde_json::Value;

use crate::error::Error;

/// What only decoding looks at, and the level, which is a preset of flags that are named themselves.
pub(crate) const OF_DECODE: [&str; 5] = ["low_mem_level", "vae_tile_size", "vae_tile_overlap", "vae_temporal_chunk", "activation_offload"];

/// The configuration without these flags. Equal ones have equal texts.
pub(crate) fn text_without(config: &Config, flags: &[&str]) -> Result<String, Error> {
    let mut value = serde_json::to_value(config).map_err(|error| Error::Fault(format!("a configuration is no JSON: {error}")))?;
    flags.iter().for_each(|flag| value[*flag] = Value::Null);
    Ok(value.to_string())
}
