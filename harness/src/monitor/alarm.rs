//! Where memory in use crosses a line: said once when it gets there, and once when it is below again.

use std::collections::BTreeMap;
use std::str::FromStr;

use engine_protocol::gib;

use super::sample::{GpuSample, Sample};
use crate::gpu_profile::size;

/// From which on memory in use is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Threshold {
    /// A part of 1 of the GPU's memory.
    Share(f64),
    Bytes(u64),
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.trim().strip_suffix('%').map(|number| number.trim().parse::<f64>().ok().map(|percent| percent / 100.0));
        let found = match share {
            Some(share) => share.filter(|share| *share > 0.0 && *share <= 1.0).map(Self::Share),
            None => size(text).filter(|gib| *gib > 0.0 && gib.is_finite()).map(|gib| Self::Bytes((gib * (1_u64 << 30) as f64) as u64)),
        };
        found.ok_or_else(|| "say a share of a GPU's memory or a size: 90% or 20GiB".to_owned())
    }
}

impl Threshold {
    /// Whether a GPU is there. Not known where NVML does not say what is in use.
    fn is_reached(self, gpu: &GpuSample) -> Option<bool> {
        let used = gpu.memory_used_bytes?;
        Some(match self {
            Self::Share(share) => used as f64 >= share * gpu.memory_total_bytes? as f64,
            Self::Bytes(bytes) => used >= bytes,
        })
    }

    fn told(self) -> String {
        match self {
            Self::Share(share) => format!("{}%", (share * 1e4).round() / 1e2),
            Self::Bytes(bytes) => format!("{:.2} GiB", gib(bytes)),
        }
    }
}

/// The alarms of all GPUs.
#[derive(Debug)]
pub(crate) struct Alarms {
    threshold: Threshold,
    /// Whether it is raised, by GPU.
    raised: BTreeMap<u32, bool>,
    was_raised: bool,
}

impl Alarms {
    pub(crate) fn at(threshold: Threshold) -> Self {
        Self { threshold, raised: BTreeMap::new(), was_raised: false }
    }

    /// Whether one was raised at any time.
    pub(crate) fn was_raised(&self) -> bool {
        self.was_raised
    }

    /// Marks the GPUs of a sample, and says what has changed. What is not known changes nothing.
    pub(crate) fn see(&mut self, sample: &mut Sample) -> Vec<String> {
        let (time, mut said) = (sample.time.clone(), Vec::new());
        for gpu in &mut sample.gpus {
            gpu.alarm = self.threshold.is_reached(gpu);
            let (Some(now), Some(used)) = (gpu.alarm, gpu.memory_used_bytes) else { continue };
            let before = self.raised.insert(gpu.gpu, now).unwrap_or(false);
            if now != before {
                let what = if now { "alarm: memory in use has reached" } else { "alarm over: memory in use is below" };
                said.push(format!("{time} GPU {}: {what} {}: {:.2} GiB", gpu.gpu, self.threshold.told(), gib(used)));
            }
            self.was_raised |= now;
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(used: Option<u64>) -> Sample {
        let gpu = GpuSample { memory_used_bytes: used.map(|gib| gib << 30), memory_total_bytes: Some(24 << 30), ..GpuSample::default() };
        Sample { time: "T".into(), gpus: vec![gpu] }
    }

    #[test]
    fn an_alarm_is_said_once_and_once_when_it_is_over() {
        let mut alarms = Alarms::at("50%".parse().expect("a share"));
        let mut see = |used| alarms.see(&mut sample(used));
        assert_eq!(see(Some(11)), [""; 0]);
        assert_eq!(see(Some(12)), ["T GPU 0: alarm: memory in use has reached 50%: 12.00 GiB"]);
        assert_eq!(see(Some(20)), [""; 0]);
        assert_eq!(see(None), [""; 0], "what is not known is no end");
        assert_eq!(see(Some(2)), ["T GPU 0: alarm over: memory in use is below 50%: 2.00 GiB"]);
        assert_eq!(see(Some(3)), [""; 0]);
        assert!(alarms.was_raised());
    }

    #[test]
    fn a_line_is_a_share_or_a_size() {
        let parsed = |text: &str| text.parse::<Threshold>().ok();
        assert_eq!(parsed("90%"), Some(Threshold::Share(0.9)));
        assert_eq!(parsed("20GiB"), Some(Threshold::Bytes(20 << 30)));
        assert_eq!(parsed("0.5GB"), Some(Threshold::Bytes(1 << 29)));
        for wrong in ["", "%", "0%", "101%", "-1GB", "0", "much", "NaN%", "inf"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
