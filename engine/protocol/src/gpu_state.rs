//! What a real GPU was like before a case and while it ran, and what of it makes the case's figures doubtful.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gib;

/// Bytes that nobody visible holds, as a share of the GPU's memory, from which on somebody does: the driver itself keeps a little.
const UNSEEN_SHARE: f64 = 0.01;

/// What a real GPU was like, as its driver says. What it does not say is empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct GpuState {
    /// Before the case, in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Before the case: the clock of its multiprocessors.
    pub sm_clock_mhz: Option<u32>,
    /// Memory in use before the case.
    pub held_bytes: Option<u64>,
    /// All of its memory.
    pub memory_bytes: Option<u64>,
    /// Processes on it before the case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<GpuProcess>,
    /// The highest temperature as sampler steps ended, in degrees Celsius.
    #[serde(default)]
    pub highest_temperature_c: Option<u32>,
    /// The lowest clock then.
    #[serde(default)]
    pub lowest_sm_clock_mhz: Option<u32>,
    /// What held its clocks down, before or then, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled_by: Vec<Throttle>,
}

/// A process on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuProcess {
    /// Its id, as the driver knows it.
    pub process: u32,
    /// What it holds; empty where the driver does not say.
    pub bytes: Option<u64>,
}

/// What holds a GPU's clocks down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// It is at its power limit.
    PowerLimit,
    /// It is too hot.
    Heat,
    /// Its power supply asks for less.
    PowerSupply,
    /// Its hardware does, for a reason that the driver does not name.
    Hardware,
}

impl Throttle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PowerLimit, Self::Heat, Self::PowerSupply, Self::Hardware];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Throttle::PowerLimit => "power_limit",
            Throttle::Heat => "heat",
            Throttle::PowerSupply => "power_supply",
            Throttle::Hardware => "hardware",
        }
    }

    /// In words, after "held down by".
    pub fn told(self) -> &'static str {
        match self {
            Throttle::PowerLimit => "its power limit",
            Throttle::Heat => "heat",
            Throttle::PowerSupply => "its power supply",
            Throttle::Hardware => "its hardware",
        }
    }
}

impl GpuState {
    /// What makes the case's figures doubtful, in sentences without their point.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.others.is_empty() {
            let one = |other: &GpuProcess| match other.bytes {
                Some(bytes) => format!("{} ({:.2} GiB)", other.process, gib(bytes)),
                None => other.process.to_string(),
            };
            let word = if self.others.len() == 1 { "process" } else { "processes" };
            warnings.push(format!("another program was on the GPU: {word} {}", self.others.iter().map(one).collect::<Vec<_>>().join(", ")));
        } else if let (Some(held), Some(all)) = (self.held_bytes, self.memory_bytes)
            && held as f64 > UNSEEN_SHARE * all as f64
        {
            warnings.push(format!("{:.2} GiB of the GPU were in use before, by whom the driver does not say", gib(held)));
        }
        if !self.throttled_by.is_empty() {
            let reasons: Vec<_> = self.throttled_by.iter().map(|reason| reason.told()).collect();
            warnings.push(format!("the GPU's clocks were held down by {}", reasons.join(" and ")));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_figures_doubtful_is_said() {
        let calm = GpuState { temperature_c: Some(40), held_bytes: Some(4 << 20), memory_bytes: Some(24 << 30), ..GpuState::default() };
        assert_eq!(calm.warnings(), [""; 0]);
        assert_eq!(GpuState::default().warnings(), [""; 0], "what is not known is no warning");
        let unseen = GpuState { held_bytes: Some(2 << 30), ..calm.clone() };
        assert_eq!(unseen.warnings(), ["2.00 GiB of the GPU were in use before, by whom the driver does not say"]);
        let others = vec![GpuProcess { process: 7, bytes: Some(5 << 30) }, GpuProcess { process: 9, bytes: None }];
        let shared = GpuState { others, throttled_by: vec![Throttle::PowerLimit, Throttle::Heat], ..unseen };
        let wanted =
            ["another program was on the GPU: processes 7 (5.00 GiB), 9", "the GPU's clocks were held down by its power limit and heat"];
        assert_eq!(shared.warnings(), wanted);
    }
}
