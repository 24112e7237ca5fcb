//! On which GPUs a program fits and on which not, as far as one run of it tells.
//!
//! # Note: what one run tells of another GPU
//! What is needed there at least is what lived at the same time, and what the process holds beside it. What surely suffices is all that was held. Between the two the
//! program would have to do with less cached memory than it had here: whether it can, only a run tells.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use engine_protocol::{AttentionKernel, AttnType, Dtype, GpuProfile, WAN_HEAD_SIZE, WorkKind, WorkType};
use schemars::JsonSchema;
use serde::Serialize;
use signal_hook::consts::SIGKILL;

use super::need::{Counted, DeviceUse, Need};
use crate::gpu_profile::GpuProfiles;

/// What is known of a program on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) enum Word {
    /// It ran there, or all that was held fits there by the same path.
    #[serde(rename = "fits")]
    Fits,
    /// It would have to do something else there than it did here.
    #[serde(rename = "not known")]
    NotKnown,
    /// What lived at the same time is more than there is.
    #[serde(rename = "too small")]
    TooSmall,
}

/// How far the program came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Course {
    /// To its end.
    Ended,
    /// Memory ran out, and it went on.
    WentOn,
    /// Until memory ran out: what would have come after it is not known.
    RanOut,
    /// Until something else stopped it, or it ended with an exit code that says that it failed, or not all of it was told.
    Cut,
}

impl Course {
    /// By what the program left, and how it ended.
    pub(super) fn of(need: &Need, status: ExitStatus) -> Self {
        // What PyTorch gave up has been told; what stopped the program after it has not.
        if status.signal().is_some()
            || is_killed(status)
            || need.lacked_host_memory(status)
            || need.kernel_killed
            || !need.unreadable.is_empty()
        {
            Self::Cut
        } else if need.ran_out() {
            if status.success() { Self::WentOn } else { Self::RanOut }
        } else if status.success() && !need.stopped {
            Self::Ended
        } else {
            Self::Cut
        }
    }
}

/// Whether a signal ended the program that no process can do anything about, or, as shells and containers tell it, a process of it.
pub(super) fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(SIGKILL) || status.code() == Some(128 + SIGKILL)
}

/// What a run on one GPU tells of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) need: &'a Need,
    /// The GPU that it ran on.
    pub(super) here: &'a GpuProfile,
    pub(super) course: Course,
    /// It had more memory than the GPU has.
    pub(super) went_beyond: bool,
}

/// The profiles by what is known of them.
#[derive(Debug, Default)]
pub(super) struct Sorted<'a> {
    /// From the smallest.
    pub(super) fits: Vec<&'a GpuProfile>,
    /// From the smallest.
    pub(super) unknown: Vec<&'a GpuProfile>,
    /// From the largest.
    pub(super) small: Vec<&'a GpuProfile>,
}

impl<'a> Judge<'a> {
    /// What is known of that GPU.
    pub(super) fn word(&self, card: &GpuProfile) -> Word {
        let capacity = card.memory_bytes.value;
        let is_here = card.name == self.here.name && capacity == self.here.memory_bytes.value && !self.went_beyond;
        let fits = self.held_on(card) <= capacity && !self.is_over_limit(card, |counted| counted.peak_reserved_bytes);
        if !is_here && (self.adapts() || (self.falls_back() && !lacks_attention(card))) {
            return Word::NotKnown;
        }
        if self.course != Course::WentOn
            && (self.at_least_on(card) > capacity || self.is_over_limit(card, |counted| counted.peak_allocated_bytes))
        {
            return Word::TooSmall;
        }
        let ended = matches!(self.course, Course::Ended | Course::WentOn);
        let same_kernels = lacks_attention(card) == lacks_attention(self.here) || !self.may_use_attention();
        if ended && fits && (is_here || same_kernels && self.lacks_product(card).is_none()) { Word::Fits } else { Word::NotKnown }
    }

    /// All profiles.
    pub(super) fn sorted(&self, profiles: &'a GpuProfiles) -> Sorted<'a> {
        let mut all: Vec<_> = profiles.iter().collect();
        all.sort_by_key(|card| card.memory_bytes.value);
        let mut sorted = Sorted::default();
        for card in all {
            match self.word(card) {
                Word::Fits => sorted.fits.push(card),
                Word::NotKnown => sorted.unknown.push(card),
                Word::TooSmall => sorted.small.insert(0, card),
            }
        }
        sorted
    }

    /// What is needed of a GPU of that kind at least. Processes may run one after the other, so the largest counts.
    pub(super) fn at_least_on(&self, card: &GpuProfile) -> u64 {
        let of = |used: &DeviceUse| {
            let less = if used.report.process_use.has_code { workspace_bytes(self.here).saturating_sub(workspace_bytes(card)) } else { 0 };
            used.live_bytes().saturating_sub(less).saturating_add(card.process_bytes(used.report.process_use))
        };
        self.need.uses.iter().map(of).max().unwrap_or_default()
    }

    /// All that was held, on a GPU of that kind.
    pub(super) fn held_on(&self, card: &GpuProfile) -> u64 {
        self.need.bytes_on(card).saturating_add(workspace_bytes(card).saturating_sub(workspace_bytes(self.here)))
    }

    /// Whether that is more than the share of the GPU's memory that the program allows itself.
    fn is_over_limit(&self, card: &GpuProfile, bytes: impl Fn(Counted) -> u64) -> bool {
        let is_over = |used: &DeviceUse| {
            let limit = used.limit.map(|share| (share * card.memory_bytes.value as f64) as u64);
            limit.zip(used.counted).is_some_and(|(limit, counted)| bytes(counted) > limit)
        };
        self.need.uses.iter().any(is_over)
    }

    /// Whether it may do something else where there is more memory or less.
    pub(super) fn adapts(&self) -> bool {
        self.course == Course::WentOn || self.asked_memory()
    }

    /// Whether it asked how much memory there is or is free.
    pub(super) fn asked_memory(&self) -> bool {
        self.need.uses.iter().any(|used| used.asked_memory)
    }

    /// Whether it asked PyTorch for attention, or did not say what it asked for.
    fn may_use_attention(&self) -> bool {
        self.need.uses.iter().any(|used| !used.tells_work || used.report.work.contains_key(WorkKind::Attention.name()))
    }

    /// A type in which the program multiplies matrices, and that GPU does not.
    fn lacks_product(&self, card: &GpuProfile) -> Option<WorkType> {
        let mut types = self.need.uses.iter().flat_map(|used| &used.report.products).copied();
        types.find(|dtype| card.capability() < Some(dtype.first_capability()))
    }

    /// A type in which the program multiplies matrices, and some of the GPUs do not of which nothing is known.
    pub(super) fn lacking(&self, sorted: &Sorted<'_>) -> Option<WorkType> {
        sorted.unknown.iter().find_map(|card| self.lacks_product(card))
    }

    /// Whether the program's attention holds a score matrix that it would not hold on a later GPU.
    pub(super) fn falls_back(&self) -> bool {
        lacks_attention(self.here) && self.need.uses.iter().any(|used| used.report.has_score_matrix)
    }
}

fn lacks_attention(card: &GpuProfile) -> bool {
    AttentionKernel::of(AttnType::Sdpa, Dtype::Bf16, Some(card), WAN_HEAD_SIZE) == Some(AttentionKernel::Math)
}

/// PyTorch's workspace for cuBLAS, which is among its tensors.
fn workspace_bytes(card: &GpuProfile) -> u64 {
    if card.capability().is_some_and(|(major, _)| major == 9) { 32 << 20 } else { 8 << 20 }
}
