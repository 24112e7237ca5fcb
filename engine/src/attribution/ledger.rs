//! The ledger of live allocations: which component each belongs to, and what the peaks were made of.

use std::collections::BTreeMap;

use engine_protocol::{Component, PeakParts};

const COMPONENTS: usize = Component::ALL.len();

/// A live allocation.
#[derive(Debug, Clone, Copy)]
struct Block {
    bytes: u64,
    component: Component,
    /// Its number among all allocations, which says whether it was there at a peak.
    number: u64,
}

/// The most that was allocated at once since some moment, by component, and the most that was reserved.
#[derive(Debug, Clone, Copy)]
struct Peak {
    components: [u64; COMPONENTS],
    reserved: u64,
    /// The last allocation before or at the peak.
    number: u64,
}

impl Peak {
    const NONE: Self = Self { components: [0; COMPONENTS], reserved: 0, number: 0 };

    fn parts(&self) -> PeakParts {
        PeakParts::new(self.components, self.reserved)
    }

    fn allocated(&self) -> u64 {
        self.components.iter().sum()
    }
}

/// All live allocations, in the bytes that the caching allocator counts for them.
#[derive(Debug)]
pub(super) struct Ledger {
    blocks: BTreeMap<usize, Block>,
    /// Bytes of each component now.
    components: [u64; COMPONENTS],
    /// Allocations until now.
    number: u64,
    /// Since the stage and since the step began.
    stage: Peak,
    step: Peak,
    failure: Option<PeakParts>,
}

impl Ledger {
    /// Nothing allocated yet.
    pub(super) const fn new() -> Self {
        Self { blocks: BTreeMap::new(), components: [0; COMPONENTS], number: 0, stage: Peak::NONE, step: Peak::NONE, failure: None }
    }

    /// So many bytes at `address` are allocated, and `reserved` bytes are held from the driver.
    pub(super) fn allocated(&mut self, address: usize, bytes: u64, reserved: u64, component: Component) {
        // One that was freed where nobody listened.
        self.freed(address);
        self.number += 1;
        self.blocks.insert(address, Block { bytes, component, number: self.number });
        self.components[component as usize] += bytes;
        let now = Peak { components: self.components, reserved, number: self.number };
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
            self.components[block.component as usize] -= block.bytes;
        }
    }

    /// What is at `address` belongs to `component`, and did from its first moment: a peak that it was part of counts it so too.
    pub(super) fn retag(&mut self, address: usize, component: Component) {
        let Some(block) = self.blocks.get_mut(&address) else { return };
        let before = std::mem::replace(&mut block.component, component);
        let shift = |components: &mut [u64; COMPONENTS]| {
            components[before as usize] -= block.bytes;
            components[component as usize] += block.bytes;
        };
        shift(&mut self.components);
        // It is alive now, so it was at each peak since it was made.
        for peak in [&mut self.stage, &mut self.step] {
            if block.number <= peak.number {
                shift(&mut peak.components);
            }
        }
    }

    /// An allocation failed while so many bytes were held from the driver.
    pub(super) fn ran_out(&mut self, reserved: u64) {
        self.failure = Some(PeakParts::new(self.components, reserved));
    }

    /// A stage begins, and its first step, with so many bytes held from the driver.
    pub(super) fn begin_stage(&mut self, reserved: u64) {
        self.begin_step(reserved);
        self.stage = self.step;
        self.failure = None;
    }

    /// A step begins, with so many bytes held from the driver.
    pub(super) fn begin_step(&mut self, reserved: u64) {
        self.step = Peak { components: self.components, reserved, number: self.number };
    }

    /// Bytes that are allocated now.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.components.iter().sum()
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
    use Component::{Activations, Weights, Workspace};

    #[test]
    fn a_peak_is_what_was_alive_at_once() {
        let mut ledger = Ledger::new();
        ledger.allocated(1, 100, 200, Weights);
        ledger.allocated(2, 50, 200, Activations);
        ledger.freed(2);
        ledger.allocated(3, 20, 300, Workspace);
        let peak = PeakParts { weights_bytes: 100, activations_bytes: 50, slack_bytes: 150, ..PeakParts::default() };
        assert_eq!((ledger.stage(), ledger.step()), (peak, peak));
        assert_eq!(ledger.allocated_bytes(), 120);

        // From here on, what is alive now is the peak until more is.
        ledger.begin_step(300);
        assert_eq!(ledger.step(), PeakParts { weights_bytes: 100, workspace_bytes: 20, slack_bytes: 180, ..PeakParts::default() });
        assert_eq!(ledger.stage(), peak, "the stage goes on");
        ledger.begin_stage(250);
        assert_eq!(ledger.stage(), PeakParts { weights_bytes: 100, workspace_bytes: 20, slack_bytes: 130, ..PeakParts::default() });
    }

    #[test]
    fn a_result_is_taken_out_of_the_workspace_at_the_peak_too() {
        let mut ledger = Ledger::new();
        ledger.allocated(1, 30, 64, Workspace);
        ledger.allocated(2, 10, 64, Workspace);
        ledger.freed(2);
        ledger.retag(1, Activations);
        let peak = PeakParts { activations_bytes: 30, workspace_bytes: 10, slack_bytes: 24, ..PeakParts::default() };
        assert_eq!(ledger.stage(), peak);

        // One that came after the peak is no part of it.
        ledger.allocated(3, 5, 64, Workspace);
        ledger.retag(3, Activations);
        assert_eq!(ledger.stage(), peak);
        assert_eq!(ledger.allocated_bytes(), 35);
    }

    #[test]
    fn an_address_is_counted_once() {
        let mut ledger = Ledger::new();
        ledger.allocated(1, 30, 64, Weights);
        ledger.allocated(1, 10, 64, Activations);
        assert_eq!(ledger.allocated_bytes(), 10);
        ledger.freed(1);
        ledger.freed(1);
        ledger.retag(1, Weights);
        assert_eq!(ledger.allocated_bytes(), 0);
    }

    #[test]
    fn a_failure_is_kept_until_the_next_stage() {
        let mut ledger = Ledger::new();
        ledger.allocated(1, 30, 32, Weights);
        ledger.allocated(2, 30, 64, Activations);
        ledger.freed(2);
        ledger.ran_out(64);
        assert_eq!(ledger.failure(), Some(PeakParts { weights_bytes: 30, slack_bytes: 34, ..PeakParts::default() }));
        ledger.begin_stage(64);
        assert_eq!(ledger.failure(), None);
    }
}
