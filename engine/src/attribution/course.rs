//! How memory went over a stretch, in so many moments that a record has room for them.

use engine_protocol::{MemoryCourse, Purpose, Thinned};

pub(super) const PURPOSES: usize = Purpose::ALL.len();

/// Parts of a stretch.
const MOST: usize = 32;

/// What is alive: bytes of each purpose, and allocations until now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) purposes: [u64; PURPOSES],
    pub(super) number: u64,
}

impl Now {
    pub(super) fn allocated(&self) -> u64 {
        self.purposes.iter().sum()
    }
}

/// A stretch as far as it is. Its first moment is its beginning; another one is there after each time that something was allocated or freed.
#[derive(Debug, Clone)]
pub(super) struct Course {
    moments: Thinned<Now>,
    allocations: u64,
}

impl Course {
    /// One of which nothing is known.
    pub(super) const NONE: Self = Self { moments: Thinned::new(MOST), allocations: 0 };

    /// One that begins now.
    pub(super) fn beginning(now: Now, reserved: u64) -> Self {
        let mut course = Self::NONE;
        course.moments.see(now.allocated(), reserved, &now);
        course
    }

    /// Something was allocated, or else freed.
    pub(super) fn see(&mut self, now: Now, reserved: u64, is_allocated: bool) {
        self.allocations += u64::from(is_allocated);
        self.moments.see(now.allocated(), reserved, &now);
    }

    /// Allocation `number`, which is alive, belongs to another purpose, and did from its first moment.
    pub(super) fn shift(&mut self, number: u64, shift: impl Fn(&mut [u64; PURPOSES])) {
        for part in self.moments.parts_mut() {
            if part.iter().all(|moment| moment.state.number < number) {
                break;
            }
            part.iter_mut().filter(|moment| moment.state.number >= number).for_each(|moment| shift(&mut moment.state.purposes));
        }
    }

    /// As a record has it; nothing where nothing was allocated.
    pub(super) fn told(&self) -> Option<MemoryCourse> {
        if self.allocations == 0 {
            return None;
        }
        let of = |purpose: Purpose| self.moments.moments().map(|moment| moment.state.purposes[purpose as usize]).collect::<Vec<_>>();
        let purposes = Purpose::ALL.into_iter().map(|purpose| (purpose.name().to_owned(), of(purpose)));
        Some(MemoryCourse {
            steps: Vec::new(),
            events: self.moments.seen() - 1,
            at: self.moments.moments().map(|moment| moment.at).collect(),
            reserved_bytes: self.moments.moments().map(|moment| moment.reserved).collect(),
            allocated_bytes: purposes.filter(|(_, bytes)| bytes.iter().any(|bytes| *bytes > 0)).collect(),
            largest: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_without_an_allocation_is_not_told_of() {
        let of = |bytes| Now { purposes: std::array::from_fn(|place| if place == 0 { bytes } else { 0 }), number: 1 };
        let mut course = Course::beginning(of(8), 8);
        course.see(of(0), 8, false);
        assert_eq!(course.told(), None);
    }
}
