//! The part of a GPU profile that the virtual GPU needs. The profile's own types live in another crate, which this one
//! must not link: the fields' names are the contract, and fields that are not read here may change freely.

use serde::Deserialize;

/// A figure; its source is of no use here.
#[derive(Debug, Clone, Deserialize)]
pub struct Figure<T> {
    /// The figure, in the unit that its field's name says.
    pub value: T,
}

/// Dense peak rates, operations a second.
#[derive(Debug, Clone, Deserialize)]
pub struct PeakFlops {
    pub fp32: Figure<f64>,
    pub tf32: Figure<f64>,
    pub bf16: Figure<f64>,
    pub fp16: Figure<f64>,
    pub fp8: Option<Figure<f64>>,
    pub int8: Option<Figure<f64>>,
}

/// The link to the host.
#[derive(Debug, Clone, Deserialize)]
pub struct Pcie {
    /// What a large copy from pinned memory reaches in one direction.
    pub pinned_bytes_per_sec: Figure<f64>,
}

/// Which share of a peak is reached: at least, most likely, at most.
#[derive(Debug, Clone, Deserialize)]
pub struct Share {
    pub low: f64,
    pub expected: f64,
    pub high: f64,
}

/// Shares by kind of work: of the peak rate for the first three, of the memory's bandwidth for the others.
#[derive(Debug, Clone, Deserialize)]
pub struct Efficiency {
    pub gemm: Share,
    pub attention: Share,
    pub cudnn_attention: Option<Share>,
    pub convolution: Share,
    pub pointwise: Share,
    pub reduction: Share,
}

/// One kind of GPU.
#[derive(Debug, Clone, Deserialize)]
pub struct GpuProfile {
    /// The name on the command line, `rtx-4090`.
    pub name: String,
    /// The name that its driver reports.
    pub title: String,
    /// Major and minor, `8.9`.
    pub compute_capability: Figure<String>,
    /// Streaming multiprocessors.
    pub multiprocessors: Figure<u32>,
    /// All of the memory, as `cudaMemGetInfo` reports it.
    pub memory_bytes: Figure<u64>,
    /// What a context takes of it before the first allocation.
    pub context_bytes: Figure<u64>,
    /// Level 2 cache.
    pub l2_cache_bytes: Figure<u64>,
    /// Boost clock.
    pub clock_hz: Figure<f64>,
    /// What it computes at most.
    pub flops: Option<PeakFlops>,
    /// Bandwidth of its memory.
    pub memory_bytes_per_sec: Option<Figure<f64>>,
    /// Its link to the host.
    pub pcie: Option<Pcie>,
    /// What of all that is reached.
    pub efficiency: Option<Efficiency>,
    /// Whether the device calls itself by the real GPU's name: for programs that choose by it.
    #[serde(skip)]
    pub is_masked: bool,
}

impl GpuProfile {
    /// Reads a profile and refuses one that no device can have.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let profile: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if parse_capability(&profile.compute_capability.value).is_none() {
            return Err(format!("compute_capability: not of the form 8.9: {}", profile.compute_capability.value));
        }
        if profile.context_bytes.value >= profile.memory_bytes.value {
            return Err("context_bytes: larger than memory_bytes".to_owned());
        }
        Ok(profile)
    }

    /// Compute capability as major and minor.
    pub fn capability(&self) -> (u32, u32) {
        parse_capability(&self.compute_capability.value).unwrap_or((0, 0))
    }

    /// What the device calls itself. "Virtual" stands first so that no listing is mistaken for a real GPU's, unless a mask is asked for.
    pub fn device_name(&self) -> String {
        if self.is_masked { self.title.clone() } else { format!("Virtual {}", self.title) }
    }

    /// Sixteen bytes that are the same for the same kind of GPU: FNV-1a over its name, twice.
    pub fn uuid(&self) -> [u8; 16] {
        let hash = |seed: u64| self.name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&hash(0xcbf2_9ce4_8422_2325).to_be_bytes());
        uuid[8..].copy_from_slice(&hash(0x8422_2325_cbf2_9ce4).to_be_bytes());
        uuid
    }
}

fn parse_capability(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const PROFILE: &str = r#"{"name": "rtx-4090", "title": "NVIDIA GeForce RTX 4090", "something_new": 3,
        "compute_capability": {"value": "8.9", "source": "data sheet"}, "multiprocessors": {"value": 128, "source": ""},
        "memory_bytes": {"value": 25250627584, "source": ""}, "context_bytes": {"value": 400000000, "source": ""},
        "l2_cache_bytes": {"value": 75497472, "source": ""}, "clock_hz": {"value": 2.52e9, "source": ""}}"#;

    /// A profile with round rates: see `work`.
    pub(in crate::device) fn with_rates() -> GpuProfile {
        let share = r#"{"low": 0.4, "expected": 0.5, "high": 0.8}"#;
        let rates = format!(
            r#""flops": {{"fp32": {{"value": 1e12}}, "tf32": {{"value": 2e12}}, "bf16": {{"value": 4e12}}, "fp16": {{"value": 4e12}}}},
            "memory_bytes_per_sec": {{"value": 1e11}}, "pcie": {{"pinned_bytes_per_sec": {{"value": 1e10}}}},
            "efficiency": {{"gemm": {share}, "attention": {share}, "convolution": {share}, "pointwise": {share}, "reduction": {share}}},"#
        );
        GpuProfile::from_json(&PROFILE.replacen('{', &format!("{{{rates}"), 1)).expect("a valid profile")
    }

    #[test]
    fn unknown_fields_are_left_alone() {
        let mut profile = GpuProfile::from_json(PROFILE).expect("a valid profile");
        assert_eq!(profile.capability(), (8, 9));
        assert_eq!(profile.device_name(), "Virtual NVIDIA GeForce RTX 4090");
        profile.is_masked = true;
        assert_eq!(profile.device_name(), "NVIDIA GeForce RTX 4090");
        assert_eq!(profile.uuid(), GpuProfile::from_json(PROFILE).expect("the same").uuid());
    }

    #[test]
    fn a_profile_that_cannot_be_is_refused() {
        assert!(GpuProfile::from_json("{").is_err());
        assert!(GpuProfile::from_json(&PROFILE.replace("8.9", "ada")).is_err_and(|error| error.contains("compute_capability")));
        assert!(GpuProfile::from_json(&PROFILE.replace("400000000", "40000000000")).is_err_and(|error| error.contains("context_bytes")));
    }
}
