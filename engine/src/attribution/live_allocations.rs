//! Live allocations: which purpose each belongs to, and what the peaks were made of.

use std::collections::BTreeMap;

use engine_protocol::{PeakParts, Purpose};

const PURPOSES: usize = Purpose::ALL.len();

/// A live allocation.
#[derive(Debug, Clone, Copy)]
struct Block {
    bytes: u64,
    purpose: Purpose,
    /// Its number among all allocations, which says whether it was there at a peak.
    number: u64,
}

/// The most that was allocated at once since some moment, by purpose, and the most that was reserved.
#[derive(Debug, Clone, Copy)]
struct Peak {
    purposes: [u64; PURPOSES],
    reserved: u64,
    /// The last allocation before or at the peak.
    number: u64,
}

impl Peak {
    const NONE: Self = Self { purposes: [0; PURPOSES], reserved: 0, number: 0 };

    fn parts(&self) -> PeakParts {
        PeakParts::new(self.purposes, self.reserved)
    }

    fn allocated(&self) -> u64 {
        self.purposes.iter().sum()
    }
}

/// All live allocations, in the bytes that the caching allocator counts for them.
#[derive(Debug)]
pub(super) struct LiveAllocations {
    blocks: BTreeMap<usize, Block>,
    /// Bytes of each purpose now.
    purposes: [u64; PURPOSES],
    /// Allocations until now.
    number: u64,
    /// Since the stage and since the step began.
    stage: Peak,
    step: Peak,
    failure: Option<PeakParts>,
}

impl LiveAllocations {
    /// Nothing allocated yet.
    pub(super) const fn new() -> Self {
        Self { blocks: BTreeMap::new(), purposes: [0; PURPOSES], number: 0, stage: Peak::NONE, step: Peak::NONE, failure: None }
    }

    /// So many bytes at `address` are allocated, and `reserved` bytes are held from the driver.
    pub(super) fn allocated(&mut self, address: usize, bytes: u64, reserved: u64, purpose: Purpose) {
        // One that was freed where nobody listened.
        self.freed(address);
        self.number += 1;
        self.blocks.insert(address, Block { bytes, purpose, number: self.number });
        self.purposes[purpose as usize] += bytes;
        let now = Peak { purposes: self.purposes, reserved, number: self.number };
        for peak in [&mut self.stage, &mut self.step] {
            let reserved = peak.reserved.max(reserved);
            if now.allocated() > peak.allocated() {
                *peak = now;
            }
            peak.reserved = reserved;
        }
    }

    /// What was at `address` is free.
    pub(super) fn freed(&mut self, address: usize) {
        if let Some(block) = self.blocks.remove(&address) {
            self.purposes[block.purpose as usize] -= block.bytes;
        }
    }

    /// What is at `address` belongs to `purpose`, and did from its first moment: a peak that it was part of counts it so too.
    pub(super) fn retag(&mut self, address: usize, purpose: Purpose) {
        let Some(block) = self.blocks.get_mut(&address) else { return };
        let before = std::mem::replace(&mut block.purpose, purpose);
        let shift = |purposes: &mut [u64; PURPOSES]| {
            purposes[before as usize] -= block.bytes;
            purposes[purpose as usize] += block.bytes;
        };
        shift(&mut self.purposes);
        // It is alive now, so it was at each peak since it was made.
        for peak in [&mut self.stage, &mut self.step] {
            if block.number <= peak.number {
                shift(&mut peak.purposes);
            }
        }
    }

    /// An allocation failed while so many bytes were held from the driver.
    pub(super) fn ran_out(&mut self, reserved: u64) {
        self.failure = Some(PeakParts::new(self.purposes, reserved));
    }

    /// A stage begins, and its first step, with so many bytes held from the driver.
    pub(super) fn begin_stage(&mut self, reserved: u64) {
        self.begin_step(reserved);
        self.stage = self.step;
        self.failure = None;
    }

    /// A step begins, with so many bytes held from the driver.
    pub(super) fn begin_step(&mut self, reserved: u64) {
        self.step = Peak { purposes: self.purposes, reserved, number: self.number };
    }

    /// Bytes that are allocated now.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.purposes.iter().sum()
    }

    /// The peak since the stage began.
    pub(super) fn stage(&self) -> PeakParts {
        self.stage.parts()
    }

    /// The peak since the step began.
    pub(super) fn step(&self) -> PeakParts {
        self.step.parts()
    }

    /// What was allocated when an allocation of this stage failed.
    pub(super) fn failure(&self) -> Option<PeakParts> {
        self.failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Purpose::{Activations, Weights, Workspace};

    #[test]
    fn a_peak_is_what_was_alive_at_once() {
        let mut live = LiveAllocations::new();
        live.allocated(1, 100, 200, Weights);
        live.allocated(2, 50, 200, Activations);
        live.freed(2);
        live.allocated(3, 20, 300, Workspace);
        let peak = PeakParts { weights_bytes: 100, activations_bytes: 50, slack_bytes: 150, ..PeakParts::default() };
        assert_eq!((live.stage(), live.step()), (peak, peak));
        assert_eq!(live.allocated_bytes(), 120);

        // From here on, what is alive now is the peak until more is.
        live.begin_step(300);
        assert_eq!(live.step(), PeakParts { weights_bytes: 100, workspace_bytes: 20, slack_bytes: 180, ..PeakParts::default() });
        assert_eq!(live.stage(), peak, "the stage goes on");
        live.begin_stage(250);
        assert_eq!(live.stage(), PeakParts { weights_bytes: 100, workspace_bytes: 20, slack_bytes: 130, ..PeakParts::default() });
    }

    #[test]
    fn a_result_is_taken_out_of_the_workspace_at_the_peak_too() {
        let mut live = LiveAllocations::new();
        live.allocated(1, 30, 64, Workspace);
        live.allocated(2, 10, 64, Workspace);
        live.freed(2);
        live.retag(1, Activations);
        let peak = PeakParts { activations_bytes: 30, workspace_bytes: 10, slack_bytes: 24, ..PeakParts::default() };
        assert_eq!(live.stage(), peak);

        // One that came after the peak is no part of it.
        live.allocated(3, 5, 64, Workspace);
        live.retag(3, Activations);
        assert_eq!(live.stage(), peak);
        assert_eq!(live.allocated_bytes(), 35);
    }

    #[test]
    fn an_address_is_counted_once() {
        let mut live = LiveAllocations::new();
        live.allocated(1, 30, 64, Weights);
        live.allocated(1, 10, 64, Activations);
        assert_eq!(live.allocated_bytes(), 10);
        live.freed(1);
        live.freed(1);
        live.retag(1, Weights);
        assert_eq!(live.allocated_bytes(), 0);
    }

    #[test]
    fn a_failure_is_kept_until_the_next_stage() {
        let mut live = LiveAllocations::new();
        live.allocated(1, 30, 32, Weights);
        live.allocated(2, 30, 64, Activations);
        live.freed(2);
        live.ran_out(64);
        assert_eq!(live.failure(), Some(PeakParts { weights_bytes: 30, slack_bytes: 34, ..PeakParts::default() }));
        live.begin_stage(64);
        assert_eq!(live.failure(), None);
    }
}
