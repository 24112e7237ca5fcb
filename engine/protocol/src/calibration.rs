//! What a GPU was measured to reach.

use serde::{Deserialize, Serialize};

use crate::{Secs, WorkKind};

/// What moved or computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// From page-locked memory of the host.
    PinnedToDevice,
    /// From memory of the host that is not page-locked.
    PageableToDevice,
    /// To page-locked memory of the host.
    ToPinned,
    /// Work of the GPU, in bf16.
    Work(WorkKind),
}

impl Measured {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::PinnedToDevice => "copy from pinned memory",
            Self::PageableToDevice => "copy from pageable memory",
            Self::ToPinned => "copy to pinned memory",
            Self::Work(WorkKind::CudnnAttention) => "attention (sdpa)",
            Self::Work(WorkKind::Attention) => "attention (flash)",
            Self::Work(kind) => kind.name(),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured.
    pub what: Measured,
    /// Its sizes, in words.
    pub size: String,
    /// Operations of products, attention and convolutions; else bytes.
    pub amount: f64,
    /// How long it took, by the device's own events: the median of several.
    pub secs: Secs,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The name that the device reports.
    pub device_name: String,
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
}
