//! What a disk gives: for weights that are streamed from their files.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes that a disk gives in a second when large files are read by several readers, and where that is known from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskRate {
    /// At least.
    pub low: f64,
    /// Most likely.
    pub expected: f64,
    /// At best.
    pub high: f64,
    /// Where that comes from.
    pub source: DiskRateSource,
}

/// Where a disk's rate is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskRateSource {
    /// Nobody said it and nothing was measured.
    Assumed,
    /// It was said.
    Given,
    /// It was measured on this machine.
    Measured,
}

impl DiskRate {
    /// Of a disk that nobody described. A rule: weights of this size are kept on NVMe drives, of which those for PCI Express 3.0 x4 give up to 3.5 GB/s, those for 4.0 up to
    /// 7, both less when they are warm or full, and those of cloud machines 1 to 2.
    pub const ASSUMED: Self = Self { low: 1.5e9, expected: 3e9, high: 7e9, source: DiskRateSource::Assumed };

    /// A rate that was said.
    pub fn given(bytes_per_sec: f64) -> Self {
        Self { low: bytes_per_sec, expected: bytes_per_sec, high: bytes_per_sec, source: DiskRateSource::Given }
    }

    /// As a time is modelled by it: at best, most likely, at least.
    pub fn bytes_per_sec(&self) -> [f64; 3] {
        [self.high, self.expected, self.low]
    }
}

/// `3GB/s`, `500MB/s`, or a number of GB/s.
impl FromStr for DiskRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let number = lower.strip_suffix("/s").unwrap_or(&lower);
        let units = [("gib", f64::from(1 << 30)), ("mib", f64::from(1 << 20)), ("gb", 1e9), ("mb", 1e6)];
        let (number, unit) = units.iter().find_map(|&(name, unit)| Some((number.strip_suffix(name)?, unit))).unwrap_or((number, 1e9));
        let rate = number.trim().parse::<f64>().ok().map(|number| number * unit).filter(|rate| rate.is_finite());
        // Nothing that weights are streamed from is slower than a diskette or faster than a processor's caches.
        rate.filter(|rate| (1e6..=1e12).contains(rate))
            .map(Self::given)
            .ok_or_else(|| format!("`{text}` is no rate of a disk: write 3GB/s, 500MB/s, or 3 for 3 GB/s (from 1 MB/s to 1000 GB/s)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_and_without_unit() {
        let of = |text: &str| text.parse::<DiskRate>().map(|rate| rate.expected);
        for text in ["3GB/s", "3", "3.0 GB/s", "3gb", "3000MB/s"] {
            assert_eq!(of(text), Ok(3e9), "{text}");
        }
        assert_eq!(of("1GiB/s"), Ok(f64::from(1 << 30)));
        for text in ["", "0", "-3", "fast", "3TB/s", "nan", "inf", "1e9GB/s", "GB/s"] {
            assert!(of(text).is_err_and(|said| said.contains("write 3GB/s")), "{text}");
        }
    }
}
