//! Live allocations: which purpose each belongs to, and what the peaks were made of.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::CStr;

use engine_protocol::{LiveAllocation, MemoryCourse, PeakParts, Purpose};

use super::course::{Course, Now, PURPOSES};
use super::place::Place;

/// Allocations of a peak that are told of by themselves.
const LARGEST: usize = 6;

/// A live allocation.
#[derive(Debug, Clone)]
struct Block {
    bytes: u64,
    purpose: Purpose,
    /// Its number among all allocations, which says whether it was there at a peak.
    number: u64,
    made: Place,
    /// Of the first tensor that is all of it.
    shape: Vec<i64>,
}

impl Block {
    fn told(&self) -> LiveAllocation {
        LiveAllocation {
            bytes: self.bytes,
            purpose: self.purpose.name().to_owned(),
            stage: self.made.stage.to_owned(),
            group: self.made.group.as_deref().unwrap_or_default().to_owned(),
            operation: self.made.operation.map(|name| name.to_string_lossy().trim_start_matches("aten::").to_owned()).unwrap_or_default(),
            shape: self.shape.clone(),
        }
    }
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

/// A step, or a stage that has none: its peak, how memory went, and the largest of what lived at the peak.
#[derive(Debug)]
struct Stretch {
    peak: Peak,
    course: Course,
    largest: Vec<Block>,
    /// What is alive now is the peak, and `largest` is of an earlier one.
    is_at_peak: bool,
}

impl Stretch {
    const NONE: Self = Self { peak: Peak::NONE, course: Course::NONE, largest: Vec::new(), is_at_peak: false };

    fn told(&self) -> Option<MemoryCourse> {
        Some(MemoryCourse { largest: self.largest.iter().map(Block::told).collect(), ..self.course.told()? })
    }
}

/// All live allocations, in the bytes that the caching allocator counts for them.
#[derive(Debug)]
pub(super) struct LiveAllocations {
    blocks: BTreeMap<usize, Block>,
    now: Now,
    /// Since the stage began.
    stage: Peak,
    /// Since the step began.
    step: Stretch,
    failure: Option<(PeakParts, Option<MemoryCourse>)>,
}

impl LiveAllocations {
    /// Nothing allocated yet.
    pub(super) const fn new() -> Self {
        let now = Now { purposes: [0; PURPOSES], number: 0 };
        Self { blocks: BTreeMap::new(), now, stage: Peak::NONE, step: Stretch::NONE, failure: None }
    }

    /// So many bytes at `address` are allocated, and `reserved` bytes are held from the driver.
    pub(super) fn allocated(&mut self, address: usize, bytes: u64, reserved: u64, purpose: Purpose, made: Place) {
        // One that was freed where nobody listened.
        self.freed(address, reserved);
        self.now.number += 1;
        self.blocks.insert(address, Block { bytes, purpose, number: self.now.number, made, shape: Vec::new() });
        self.now.purposes[purpose as usize] += bytes;
        let now = Peak { purposes: self.now.purposes, reserved, number: self.now.number };
        self.step.is_at_peak |= now.allocated() > self.step.peak.allocated();
        for peak in [&mut self.stage, &mut self.step.peak] {
            let reserved = peak.reserved.max(reserved);
            if now.allocated() > peak.allocated() {
                *peak = now;
            }
            peak.reserved = reserved;
        }
        self.step.course.see(self.now, reserved, true);
    }

    /// What was at `address` is free, and `reserved` bytes are held from the driver.
    pub(super) fn freed(&mut self, address: usize, reserved: u64) {
        if self.blocks.contains_key(&address) {
            self.look_at_peak();
        }
        if let Some(block) = self.blocks.remove(&address) {
            self.now.purposes[block.purpose as usize] -= block.bytes;
            self.step.course.see(self.now, reserved, false);
        }
    }

    /// Keeps the largest of what is alive, where that is the peak. It is called before anything of it goes, and not at each step up to there.
    fn look_at_peak(&mut self) {
        if std::mem::take(&mut self.step.is_at_peak) {
            let mut blocks: Vec<&Block> = self.blocks.values().collect();
            blocks.sort_by_key(|block| (Reverse(block.bytes), block.number));
            self.step.largest = blocks.into_iter().take(LARGEST).cloned().collect();
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
        shift(&mut self.now.purposes);
        // It is alive now, so it was at each peak since it was made.
        for peak in [&mut self.stage, &mut self.step.peak] {
            if block.number <= peak.number {
                shift(&mut peak.purposes);
            }
        }
        self.step.course.shift(block.number, shift);
        let same = self.step.largest.iter_mut().find(|largest| largest.number == block.number);
        same.into_iter().for_each(|largest| largest.purpose = purpose);
    }

    /// A tensor of that shape is all of what is at `address`, of which the first one counts, written by that operation.
    pub(super) fn shaped(&mut self, address: usize, shape: &[i64], operation: impl FnOnce() -> Option<&'static CStr>) {
        let Some(block) = self.blocks.get_mut(&address).filter(|block| block.shape.is_empty()) else { return };
        block.shape = shape.to_vec();
        if block.made.operation.is_none() {
            block.made.operation = operation();
        }
        let same = self.step.largest.iter_mut().find(|largest| largest.number == block.number);
        same.into_iter().for_each(|largest| largest.clone_from(block));
    }

    /// An allocation failed while so many bytes were held from the driver.
    pub(super) fn ran_out(&mut self, reserved: u64) {
        self.look_at_peak();
        self.failure = Some((PeakParts::new(self.now.purposes, reserved), self.step.told()));
    }

    /// A stage begins, and its first step, with so many bytes held from the driver.
    pub(super) fn begin_stage(&mut self, reserved: u64) {
        self.begin_step(reserved);
        self.stage = self.step.peak;
        self.failure = None;
    }

    /// A step begins, with so many bytes held from the driver.
    pub(super) fn begin_step(&mut self, reserved: u64) {
        let Now { purposes, number } = self.now;
        let (peak, course) = (Peak { purposes, reserved, number }, Course::beginning(self.now, reserved));
        self.step = Stretch { peak, course, largest: Vec::new(), is_at_peak: true };
    }

    /// Bytes that are allocated now.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.now.allocated()
    }

    /// The peak since the stage began.
    pub(super) fn stage(&self) -> PeakParts {
        self.stage.parts()
    }

    /// The peak since the step began.
    pub(super) fn step(&self) -> PeakParts {
        self.step.peak.parts()
    }

    /// How memory went since the step began; nothing where nothing was allocated.
    pub(super) fn course(&mut self) -> Option<MemoryCourse> {
        self.look_at_peak();
        self.step.told()
    }

    /// What was allocated when an allocation of this stage failed, and how memory went until then.
    pub(super) fn failure(&self) -> Option<&(PeakParts, Option<MemoryCourse>)> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Purpose::{Activations, Weights, Workspace};

    fn allocate(live: &mut LiveAllocations, address: usize, bytes: u64, reserved: u64, purpose: Purpose) {
        live.allocated(address, bytes, reserved, purpose, Place { stage: "denoise", ..Place::default() });
    }

    #[test]
    fn a_peak_is_what_was_alive_at_once() {
        let mut live = LiveAllocations::new();
        allocate(&mut live, 1, 100, 200, Weights);
        allocate(&mut live, 2, 50, 200, Activations);
        live.freed(2, 64);
        allocate(&mut live, 3, 20, 300, Workspace);
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
        allocate(&mut live, 1, 30, 64, Workspace);
        allocate(&mut live, 2, 10, 64, Workspace);
        live.freed(2, 64);
        live.retag(1, Activations);
        let peak = PeakParts { activations_bytes: 30, workspace_bytes: 10, slack_bytes: 24, ..PeakParts::default() };
        assert_eq!(live.stage(), peak);

        // One that came after the peak is no part of it.
        allocate(&mut live, 3, 5, 64, Workspace);
        live.retag(3, Activations);
        assert_eq!(live.stage(), peak);
        assert_eq!(live.allocated_bytes(), 35);
    }

    #[test]
    fn an_address_is_counted_once() {
        let mut live = LiveAllocations::new();
        allocate(&mut live, 1, 30, 64, Weights);
        allocate(&mut live, 1, 10, 64, Activations);
        assert_eq!(live.allocated_bytes(), 10);
        live.freed(1, 64);
        live.freed(1, 64);
        live.retag(1, Weights);
        assert_eq!(live.allocated_bytes(), 0);
    }

    #[test]
    fn a_failure_is_kept_until_the_next_stage() {
        let mut live = LiveAllocations::new();
        live.begin_stage(0);
        allocate(&mut live, 1, 30, 32, Weights);
        allocate(&mut live, 2, 30, 64, Activations);
        live.freed(2, 64);
        live.ran_out(64);
        let (parts, course) = live.failure().cloned().expect("a failure");
        assert_eq!(parts, PeakParts { weights_bytes: 30, slack_bytes: 34, ..PeakParts::default() });
        assert_eq!(course.map(|course| (course.events, course.peak_allocated_bytes())), Some((3, 60)));
        live.begin_stage(64);
        assert_eq!(live.failure(), None);
    }

    #[test]
    fn the_largest_of_a_peak_are_those_that_lived_then() {
        let mut live = LiveAllocations::new();
        live.begin_stage(0);
        allocate(&mut live, 1, 30, 64, Weights);
        allocate(&mut live, 2, 50, 128, Workspace);
        // The peak is over, and then what the allocation was is said.
        live.freed(1, 128);
        live.shaped(2, &[5, 10], || Some(c"aten::mul"));
        live.shaped(2, &[50], || None);
        live.retag(2, Activations);
        allocate(&mut live, 3, 20, 128, Workspace);
        let course = live.course().expect("a course");
        let told: Vec<_> = course
            .largest
            .iter()
            .map(|block| (block.bytes, block.purpose.as_str(), block.operation.as_str(), block.shape.as_slice()))
            .collect();
        assert_eq!(told, [(50, "activations", "mul", &[5, 10][..]), (30, "weights", "", &[][..])]);
        assert_eq!(course.allocated_bytes["activations"], [0, 0, 50, 50, 50]);
        assert_eq!(course.allocated_bytes["workspace"], [0, 0, 0, 0, 20], "only what came after");
        live.begin_step(128);
        assert_eq!(live.course(), None, "nothing was allocated since");
    }
}
