//! The profile of a kind of GPU, as a device needs it.

use virtual_gpu_protocol::GpuProfile;

/// Reads a profile and refuses one that no device can have.
pub fn read_profile(json: &str) -> Result<GpuProfile, String> {
    let profile: GpuProfile = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if profile.capability().is_none() {
        return Err(format!("compute_capability: not of the form 8.9: {}", profile.compute_capability.value));
    }
    if profile.context_bytes.value >= profile.memory_bytes.value {
        return Err("context_bytes: larger than memory_bytes".to_owned());
    }
    Ok(profile)
}

/// The compute capability, which a profile that was read has.
pub(super) fn capability(profile: &GpuProfile) -> (u32, u32) {
    profile.capability().unwrap_or((0, 0))
}

/// Sixteen bytes that are the same for the same kind of GPU: FNV-1a over its name, twice.
pub(super) fn uuid_of(profile: &GpuProfile) -> [u8; 16] {
    let hash = |seed: u64| profile.name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&hash(0xcbf2_9ce4_8422_2325).to_be_bytes());
    uuid[8..].copy_from_slice(&hash(0x8422_2325_cbf2_9ce4).to_be_bytes());
    uuid
}

#[cfg(test)]
pub(super) mod tests {
    use virtual_gpu_protocol::{Efficiency, Figure, Interval, Pcie, PeakFlops};

    use super::*;

    /// A profile with round rates: see `rates`.
    pub(in crate::device) fn with_round_rates() -> GpuProfile {
        fn figure<T>(value: T) -> Figure<T> {
            Figure { value, source: String::new() }
        }
        let share = || Interval { low: 0.4, expected: 0.5, high: 0.8, source: String::new() };
        GpuProfile {
            name: "rtx-4090".into(),
            title: "NVIDIA GeForce RTX 4090".into(),
            nominal_gb: 24,
            compute_capability: figure("8.9".into()),
            multiprocessors: figure(128),
            memory_bytes: figure(25_250_627_584),
            context_bytes: figure(400_000_000),
            code_bytes: figure(100 << 20),
            stream_bytes: figure(1 << 20),
            page_table_share: figure(1.0 / 512.0),
            memory_bytes_per_sec: figure(1e11),
            l2_cache_bytes: figure(75_497_472),
            clock_hz: figure(2.52e9),
            flops: PeakFlops { fp32: figure(1e12), tf32: figure(2e12), bf16: figure(4e12), fp16: figure(4e12), fp8: None, int8: None },
            pcie: Pcie { generation: figure(4), lanes: figure(16), pinned_bytes_per_sec: figure(1e10), pageable_bytes_per_sec: None },
            nvlink_bytes_per_sec: None,
            efficiency: Efficiency {
                gemm: share(),
                attention: share(),
                cudnn_attention: None,
                sage_attention: None,
                flash_attention_3: None,
                convolution: share(),
                pointwise: share(),
                reduction: share(),
            },
            power_limit: None,
            small_kernels: None,
        }
    }

    fn read(change: impl FnOnce(&mut GpuProfile)) -> Result<GpuProfile, String> {
        let mut profile = with_round_rates();
        change(&mut profile);
        read_profile(&serde_json::to_string(&profile).expect("JSON"))
    }

    #[test]
    fn a_profile_says_which_kind_of_gpu_it_is() {
        let profile = read(|_| {}).expect("a valid profile");
        assert_eq!(capability(&profile), (8, 9));
        assert_eq!(uuid_of(&profile), uuid_of(&with_round_rates()));
        let other = read(|profile| profile.name = "l4".into()).expect("a valid profile");
        assert_ne!(uuid_of(&profile), uuid_of(&other));
    }

    #[test]
    fn a_profile_that_cannot_be_is_refused() {
        assert!(read_profile("{").is_err());
        let error = read(|profile| profile.compute_capability.value = "ada".into());
        assert!(error.is_err_and(|error| error.contains("compute_capability")));
        assert!(read(|profile| profile.context_bytes.value *= 100).is_err_and(|error| error.contains("context_bytes")));
    }
}
