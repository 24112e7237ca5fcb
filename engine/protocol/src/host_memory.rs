//! What a process holds of the host's memory, and what that did not give.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GIB, gib};

/// What a process holds of the host's memory (RAM) at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostMemory {
    /// All that is resident at once, page-locked memory included; empty where it is not known: on the virtual GPU weights are never written.
    pub peak_bytes: Option<u64>,
    /// Page-locked at once.
    pub pinned_peak_bytes: u64,
}

impl HostMemory {
    /// Both together; not known where one is not.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            peak_bytes: self.peak_bytes.zip(other.peak_bytes).map(|(own, other)| own + other),
            pinned_peak_bytes: self.pinned_peak_bytes + other.pinned_peak_bytes,
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { peak_bytes: self.peak_bytes.max(other.peak_bytes), pinned_peak_bytes: self.pinned_peak_bytes.max(other.pinned_peak_bytes) }
    }
}

/// Memory of the host that a process holds before it has any weights, where it computes on the CPU: code and data of libtorch. Counted on Linux, x86-64.
pub const HOST_PROCESS_BYTES: u64 = 256 << 20;

/// The same where it computes on a GPU: the driver's and the CUDA libraries' share comes on top. A rule, which no GPU has confirmed: libtorch loads kernels as they
/// are first used, and then people see 0.6 to 1.2 GiB.
pub const GPU_HOST_PROCESS_BYTES: u64 = 1 << 30;

/// Memory of the host that was asked for and was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostShortage {
    /// The allocation that failed; empty where that is not known.
    pub requested_bytes: Option<u64>,
    /// What the process could still take of the machine's memory then; empty where that is not known.
    pub available_bytes: Option<u64>,
    /// Whether its pages were to be locked.
    pub is_page_locked: bool,
}

/// What a host's cores copy within its memory in a second, most likely: two channels of DDR4-3200 carry 51 GB/s, and each byte is read and written. It is what passes
/// by way of a ring of page-locked buffers.
pub const HOST_COPY_BYTES_PER_SEC: f64 = 20e9;

/// Memory whose pages were to be locked, and were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotPageLocked {
    /// How much.
    pub bytes: u64,
    /// Whether it is copied by way of a ring that was page-locked; else the driver copies it itself.
    pub by_ring: bool,
}

impl NotPageLocked {
    /// A warning, without its point, of a GPU whose copies from the host reach these rates, page-locked and not.
    pub fn warning(&self, rates: Option<[f64; 2]>) -> String {
        let costs = rates.map(|[pinned, pageable]| {
            let reached = if self.by_ring { pinned.min(HOST_COPY_BYTES_PER_SEC) } else { pageable };
            format!(": they are copied at some {:.0} GB/s, and not at {:.0}", reached / 1e9, pinned / 1e9)
        });
        format!(
            "the machine did not page-lock {} that were to be, which wait in ordinary memory{}",
            size(self.bytes),
            costs.unwrap_or_default()
        )
    }
}

impl fmt::Display for HostShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the machine's own memory (RAM) ran out")?;
        let locked = if self.is_page_locked { " of page-locked memory" } else { "" };
        match (self.requested_bytes, self.available_bytes) {
            (Some(requested), Some(available)) => {
                write!(f, ": {}{locked} more were asked for, and {} were left to take", size(requested), size(available))
            }
            (Some(requested), None) => write!(f, ": {}{locked} more were asked for", size(requested)),
            (None, Some(available)) => write!(f, ": {} were left to take", size(available)),
            (None, None) => Ok(()),
        }
    }
}

/// In GiB, as people see all memory, and in MiB what would round to next to nothing.
fn size(bytes: u64) -> String {
    if bytes >= GIB / 10 { format!("{:.2} GiB", gib(bytes)) } else { format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_page_locked_is_told_with_what_it_costs() {
        let warning = |by_ring| NotPageLocked { bytes: 3 << 30, by_ring }.warning(Some([25e9, 9e9]));
        assert!(
            warning(true)
                .ends_with("3.00 GiB that were to be, which wait in ordinary memory: they are copied at some 20 GB/s, and not at 25")
        );
        assert!(warning(false).ends_with("at some 9 GB/s, and not at 25"));
    }

    #[test]
    fn what_was_asked_for_and_what_was_there_is_said() {
        let said = |requested_bytes, available_bytes, is_page_locked| {
            HostShortage { requested_bytes, available_bytes, is_page_locked }.to_string()
        };
        let start = "the machine's own memory (RAM) ran out";
        assert_eq!(said(None, None, true), start);
        assert_eq!(
            said(Some(3 << 29), Some(1 << 20), true),
            format!("{start}: 1.50 GiB of page-locked memory more were asked for, and 1.00 MiB were left to take")
        );
        assert_eq!(said(Some(1 << 30), None, false), format!("{start}: 1.00 GiB more were asked for"));
    }
}
