//! What the virtual GPU's NVML tells beside memory, where a test wants it to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Readings of every device, always the same. One that is left out is a sensor that the device lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sensors {
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
    /// The clock of its multiprocessors.
    pub sm_clock_mhz: Option<u32>,
    /// What it draws, in thousandths of a watt.
    pub power_mw: Option<u32>,
    /// What holds its clocks down: NVML's bits.
    pub throttle_reasons: Option<u64>,
    /// Processes beside those on the virtual GPU, and the bytes that each holds.
    pub processes: BTreeMap<u32, u64>,
}
