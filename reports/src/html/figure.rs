//! A figure of a case as the page shows it. Each names the column of `results.csv` that has it, so that a test can hold one against the other.

use engine_protocol::{Outcome, RunRecord};

use crate::verdict::{need, total_secs};
use crate::words::{in_gib, time};

/// A figure, or nothing where it is not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figure {
    /// What stands before it: `≥ `.
    pub before: &'static str,
    /// The figure.
    pub text: String,
    /// The column that it is from; empty where it has none.
    pub column: &'static str,
}

impl Figure {
    /// Bytes in GiB.
    pub(super) fn gib(column: &'static str, bytes: Option<u64>) -> Self {
        Self { before: "", text: in_gib(bytes), column }
    }

    /// A time as people say it.
    pub(super) fn time(column: &'static str, secs: Option<f64>) -> Self {
        Self { before: "", text: secs.map(time).unwrap_or_default(), column }
    }

    /// Text as it is.
    pub(super) fn text(column: &'static str, text: String) -> Self {
        Self { before: "", text, column }
    }
}

/// What a case takes of the GPU; of one that ran out of its memory, what it needs at least.
pub(super) fn gpu(record: &RunRecord) -> Figure {
    match need(record) {
        Some(need) if need.is_whole => Figure { before: "≈ ", ..Figure::gib("predicted_need_bytes", Some(need.bytes)) },
        Some(need) => Figure { before: "≥ ", ..Figure::gib("needed_bytes", Some(need.bytes)) },
        None => Figure::gib("peak_device_bytes", record.peak_device_bytes()),
    }
}

/// What a case takes of the machine's memory. One that ran out of the GPU's did not come to its most.
pub(super) fn ram(record: &RunRecord) -> Figure {
    if record.outcome == Outcome::Oom {
        return Figure::default();
    }
    let is_measured = record.host().is_some_and(|host| host.peak_bytes.is_some());
    Figure::gib(if is_measured { "host_peak_bytes" } else { "predicted_host_peak_bytes" }, record.host_needed_bytes())
}

/// How much of that is page-locked.
pub(super) fn pinned(record: &RunRecord) -> Figure {
    if record.outcome == Outcome::Oom {
        return Figure::default();
    }
    if record.host().is_some() {
        return Figure::gib("host_pinned_peak_bytes", record.host_pinned_peak_bytes);
    }
    Figure::gib("predicted_host_pinned_peak_bytes", record.predicted_host().map(|host| host.pinned_peak_bytes))
}

/// From prompt to video.
pub(super) fn total(record: &RunRecord) -> Figure {
    Figure::time("total_secs", total_secs(record).map(|secs| secs.expected))
}
