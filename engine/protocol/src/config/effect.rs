//! Settings that change nothing in the configuration that they became part of: said, never silent.

use super::table::{Config, FLAGS, Settings};
use crate::Device;

impl Config {
    /// Keys of `settings` that have no effect in this configuration, and why.
    pub fn without_effect(&self, settings: &Settings, device: Device) -> Vec<String> {
        let given = FLAGS.iter().filter(|flag| !flag.asks_for_nothing(settings));
        let idle = given.filter_map(|flag| Some((flag.key, flag.idle_in(self, device)?)));
        idle.map(|(key, why)| format!("{key} has no effect: {why}")).collect()
    }
}
