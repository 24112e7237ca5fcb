//! What a process holds on a GPU beside what it allocates there: its context, machine code, streams, and page tables of page-locked memory.

use serde::{Deserialize, Serialize};

use crate::GpuProfile;

/// How much of what takes such memory a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessUse {
    /// Whether it calls libraries whose machine code is loaded: cuBLAS, cuDNN.
    pub has_code: bool,
    /// Streams that it made.
    pub streams: u64,
    /// Page-locked memory of the host.
    pub pinned_bytes: u64,
}

impl ProcessUse {
    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            has_code: self.has_code || other.has_code,
            streams: self.streams.max(other.streams),
            pinned_bytes: self.pinned_bytes.max(other.pinned_bytes),
        }
    }
}

/// Page tables grow by so much: an H100's free memory went in steps of it.
const PAGE_TABLE_STEP: u64 = 2 << 20;

impl GpuProfile {
    /// What a process that uses so much holds beside what it allocates.
    pub fn process_bytes(&self, used: ProcessUse) -> u64 {
        let code = if used.has_code { self.code_bytes.value } else { 0 };
        let tables = (used.pinned_bytes as f64 * self.page_table_share.value) as u64;
        let parts = [self.context_bytes.value, code, used.streams.saturating_mul(self.stream_bytes.value)];
        parts.into_iter().fold(tables.next_multiple_of(PAGE_TABLE_STEP), u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that lacks all parts but the context.
    fn profile() -> GpuProfile {
        let figure = |value: f64| serde_json::json!({ "value": value, "source": "" });
        let whole = |value: u64| serde_json::json!({ "value": value, "source": "" });
        let share = serde_json::json!({ "low": 0.5, "expected": 0.6, "high": 0.7, "source": "" });
        serde_json::from_value(serde_json::json!({
            "name": "a", "title": "A", "nominal_gb": 24, "compute_capability": { "value": "8.9", "source": "" },
            "multiprocessors": whole(128), "memory_bytes": whole(24 << 30), "context_bytes": whole(500 << 20),
            "memory_bytes_per_sec": figure(1e12), "l2_cache_bytes": whole(1), "clock_hz": figure(2e9),
            "flops": { "fp32": figure(1e12), "tf32": figure(1e12), "bf16": figure(1e12), "fp16": figure(1e12), "fp8": null, "int8": null },
            "pcie": { "generation": whole(4), "lanes": whole(16), "pinned_bytes_per_sec": figure(2e10) },
            "efficiency": { "gemm": share, "attention": share, "convolution": share, "pointwise": share, "reduction": share },
        }))
        .expect("a profile")
    }

    #[test]
    fn each_part_counts_where_it_is_used() {
        let profile = profile();
        assert_eq!(profile.process_bytes(ProcessUse::default()), 500 << 20);
        let all = ProcessUse { has_code: true, streams: 128, pinned_bytes: (1 << 30) + 1 };
        // Page tables of 1 GiB take 2 MiB, and those of the byte more begin another step.
        assert_eq!(profile.process_bytes(all), (500 + 114 + 70 + 2) << 20);
        let more = ProcessUse { pinned_bytes: (1 << 30) + 4096, ..all };
        assert_eq!(profile.process_bytes(more), (500 + 114 + 70 + 4) << 20);
        assert_eq!(all.max(ProcessUse { streams: 140, ..ProcessUse::default() }), ProcessUse { streams: 140, ..all });
        assert_eq!(profile.process_bytes(ProcessUse { streams: u64::MAX, ..all }), u64::MAX);
    }
}
