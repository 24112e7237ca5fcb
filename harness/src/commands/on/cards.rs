//! On which GPUs a program fits and on which not, as far as one run of it tells.
//!
//! # Note: what one run tells of another GPU
//! What is needed there at least is what lived at the same time, and what the process holds beside it. What surely suffices is all that was held. Between the two the
//! program would have to do with less cached memory than it had here: whether it can, only a run tells.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use engine_protocol::{AttentionKernel, AttnType, Dtype, GpuProfile, WAN_HEAD_SIZE, WorkKind};
use schemars::JsonSchema;
use serde::Serialize;
use signal_hook::consts::SIGKILL;

use super::need::{DeviceUse, Need};
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
    /// Until something else stopped it, or not all of it was told.
    Cut,
}

impl Course {
    /// By what the program left, and how it ended.
    pub(super) fn of(need: &Need, status: ExitStatus) -> Self {
        // What PyTorch gave up has been told; what stopped the program after it has not.
        if status.signal().is_some() || is_killed(status) || need.lacked_host_memory || !need.unreadable.is_empty() {
            Self::Cut
        } else if need.ran_out() {
            if status.success() { Self::WentOn } else { Self::RanOut }
        } else {
            Self::Ended
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
        let fits = self.held_on(card) <= capacity;
        if !is_here && (self.adapts() || (self.falls_back() && !lacks_attention(card))) {
            return Word::NotKnown;
        }
        if self.course != Course::WentOn && self.at_least_on(card) > capacity {
            return Word::TooSmall;
        }
        let ended = matches!(self.course, Course::Ended | Course::WentOn);
        let same_kernels = lacks_attention(card) == lacks_attention(self.here) || !self.may_use_attention();
        if ended && fits && same_kernels { Word::Fits } else { Word::NotKnown }
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

    /// Whether it may do something else where there is more memory or less.
    pub(super) fn adapts(&self) -> bool {
        self.course == Course::WentOn || self.asked_free()
    }

    /// Whether it asked how much is free.
    pub(super) fn asked_free(&self) -> bool {
        self.need.uses.iter().any(|used| used.report.asked_free)
    }

    /// Whether it asked PyTorch for attention, or did not say what it asked for.
    fn may_use_attention(&self) -> bool {
        self.need.uses.iter().any(|used| !used.tells_work || used.report.work.contains_key(WorkKind::Attention.name()))
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
